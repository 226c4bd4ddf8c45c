include:
  - base
  - certificates
  - freeswitch
  - monitoring
  - defence
