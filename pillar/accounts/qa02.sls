# Load tests: no limit but the machine's own, and generators that are never banned.
features:
  echo: true

opensips:
  registrar:
    domains: [qa02.voice.example.com]
  workers: 16
  tcp_workers: 16
  memory: {shared: 4096, private: 32}
  trusted: [10.92.0.0/24]
  gateways:
    simulator-1: {address: 10.92.0.10, port: 5080, ping: false}
    simulator-2: {address: 10.92.0.11, port: 5080, ping: false}
  carriers:
    simulator: {gateways: {simulator-1: 50, simulator-2: 50}, by: weight}
  outbound:
    - {prefix: "", carriers: [simulator]}

defence:
  packets_per_second: 10000
  trusted: [10.92.0.0/24]
