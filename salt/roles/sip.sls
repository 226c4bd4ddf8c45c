include:
  - base
  - certificates
  - opensips
  - monitoring
  - defence
