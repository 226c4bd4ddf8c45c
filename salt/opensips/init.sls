# OpenSIPS: package, configuration, daemon, in this order.
include:
  - opensips.installed
  - opensips.configured
  - opensips.running
