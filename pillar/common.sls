# What every node of every account gets.
base:
  timezone: Etc/UTC

# Looked at by the minion itself; an event says what is about to end.
beacons:
  certificate_expiry:
    - directory: /etc/voice/tls
    - days: 21
    - interval: 3600

# Where secrets are kept, by the name that references use ({secret: esl-password}).
secrets:
  esl-password:
    parameter: /voice/{workspace}/{role}/esl-password
    dummy: lab-esl-not-a-secret
  esl-monitor-password:
    parameter: /voice/{workspace}/{role}/esl-monitor-password
    dummy: lab-monitor-not-a-secret

# Which output of a stack feeds which pillar key: {pillar key: stack:output}. An output that is not
# published yet leaves the key to the layers below.
from_stacks:
  freeswitch:rtp:start_port: lab:rtp_start_port
  freeswitch:rtp:end_port: lab:rtp_end_port
