# FreeSWITCH: package, configuration, daemon, in this order.
include:
  - freeswitch.installed
  - freeswitch.configured
  - freeswitch.running
