include:
  - monitoring.configured

Node exporter running:
  service.running:
    - name: prometheus-node-exporter
    - enable: true
    - require:
      - pkg: Node exporter installed

Metrics timer running:
  service.running:
    - name: voice-metrics.timer
    - enable: true
    - require:
      - file: Metrics unit present
    - watch:
      - file: Metrics timer present
