# What every node of every account gets.
base:
  timezone: Etc/UTC

# Looked at by the minion itself; an event says what is about to end.
beacons:
  certificate_expiry:
    - directory: /etc/voice/tls
    - days: 21
    - interval: 3600

# Which output of a stack feeds which pillar key: {pillar key: stack:output}. An output that is not
# published yet leaves the key to the layers below.
from_stacks:
  freeswitch:rtp:start_port: lab:rtp_start_port
  freeswitch:rtp:end_port: lab:rtp_end_port
