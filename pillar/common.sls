# What every node of every account gets.
base:
  timezone: Etc/UTC

# Which output of a stack feeds which pillar key: {pillar key: stack:output}. An output that is not
# published yet leaves the key to the layers below.
from_stacks:
  freeswitch:rtp:start_port: lab:rtp_start_port
  freeswitch:rtp:end_port: lab:rtp_end_port
