# Development. Calls leave for a simulator and nowhere else.
features:
  echo: true

freeswitch:
  loglevel: debug

opensips:
  log_level: 3
  registrar:
    domains: [dev01.voice.example.com]
  limits: {calls: 200, calls_per_second: 20, account_calls: 5, account_calls_per_second: 2}
  gateways:
    simulator: {address: 10.90.0.10, port: 5080}
  carriers:
    simulator: {gateways: [simulator]}
  outbound:
    - {prefix: "", carriers: [simulator]}
