# The lab's packages come from its own signed repository, its calls from the hub, and its secrets
# are none.
{% set lab_repository = {
  "uri": "http://10.77.0.1:3142/voice",
  "suite": "bookworm",
  "components": ["main"],
  "key": "/srv/guardian-lab/voice.gpg",
} %}
features:
  echo: true
freeswitch:
  repository: {{ lab_repository | tojson }}
  unit:
    realtime: false         # a host of the lab may not schedule in real time
    drain_seconds: 600
opensips:
  repository: {{ lab_repository | tojson }}
  memory: {shared: 64, private: 4}
certificates:
  default:
    dns_names: [voice.lab.invalid]
    self_signed: true
base:
  time_service: false       # a host of the lab may not set the clock
defence:
  trusted: [10.77.0.1]    # where the lab's callers are
