include:
  - defence.installed
  - defence.configured
  - defence.running
