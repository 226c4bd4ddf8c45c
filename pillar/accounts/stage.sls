# Staging: production's releases before production, over the carriers' test trunks.
features:
  recording: true
  transcription: true

opensips:
  package: {version: 3.4.18-1}
  registrar:
    domains: [stage.voice.example.com]
  limits: {calls: 1000, calls_per_second: 50, account_calls: 20, account_calls_per_second: 4}
  topology_hiding: true
  accounting: {log: true, database: true}
  gateways:
    test-trunk: {address: 192.0.2.10, calls: 30, hide_topology: true}
  carriers:
    test: {gateways: [test-trunk]}
  outbound:
    - {prefix: "44", carriers: [test]}
    - {prefix: "61", carriers: [test]}
