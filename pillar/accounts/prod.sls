# Production.
features:
  recording: true
  transcription: true

freeswitch:
  loglevel: notice

opensips:
  package: {version: 3.4.18-1}
  log_level: 1
  registrar:
    domains: [voice.example.com]
  limits: {calls: 8000, calls_per_second: 200, account_calls: 20, account_calls_per_second: 4}
  topology_hiding: true
  accounting: {log: true, database: true}
  # Which countries may be called, and by whom they are reached; a number that no rule takes is
  # refused. pillar/workspaces says who the carriers of a region are.
  outbound:
    - {prefix: "1", carriers: [primary, secondary]}       # North America
    - {prefix: "33", carriers: [primary, secondary]}      # France
    - {prefix: "34", carriers: [primary, secondary]}      # Spain
    - {prefix: "353", carriers: [primary, secondary]}     # Ireland
    - {prefix: "39", carriers: [primary, secondary]}      # Italy
    - {prefix: "44", carriers: [primary, secondary]}      # United Kingdom
    - {prefix: "49", carriers: [primary, secondary]}      # Germany
    - {prefix: "61", carriers: [primary, secondary]}      # Australia
    - {prefix: "64", carriers: [primary, secondary]}      # New Zealand
    - {prefix: "65", carriers: [primary, secondary]}      # Singapore
    - {prefix: "81", carriers: [primary, secondary]}      # Japan
  fraud:
    "1":
      - {prefix: "1", calls_per_minute: {warning: 20, critical: 40}}
      - {prefix: "4470", calls_per_minute: {warning: 2, critical: 5}, concurrent_calls: {critical: 2}}
      - {prefix: "44", calls_per_minute: {warning: 20, critical: 40}}
      - {prefix: "61", calls_per_minute: {warning: 20, critical: 40}}

defence:
  tries: 5
  ban: 86400
