include:
  - base
  - certificates
  - opensips
  - monitoring
