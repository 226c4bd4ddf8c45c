# node_exporter, and what it shows of calls.
include:
  - monitoring.installed
  - monitoring.configured
  - monitoring.running
