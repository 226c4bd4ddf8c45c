include:
  - base
  - certificates
  - freeswitch
  - monitoring
