# Releases under test: production's limits and switches, and a simulator instead of carriers.
features:
  recording: true
  transcription: true

opensips:
  registrar:
    domains: [qa01.voice.example.com]
  limits: {calls: 1000, calls_per_second: 50, account_calls: 20, account_calls_per_second: 4}
  topology_hiding: true
  accounting: {log: true, database: true}
  gateways:
    simulator: {address: 10.91.0.10, port: 5080, hide_topology: true}
  carriers:
    simulator: {gateways: [simulator]}
  outbound:
    - {prefix: "1", carriers: [simulator]}
    - {prefix: "44", carriers: [simulator]}
