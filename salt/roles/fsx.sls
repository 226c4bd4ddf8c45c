include:
  - base
  - certificates
  - freeswitch
  - fsx
  - monitoring
  - defence
