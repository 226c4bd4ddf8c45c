{%- set monitoring = salt["slsutil.merge"]({"interval": 15}, pillar.get("monitoring", {})) %}
include:
  - monitoring.installed
{%- for file in ["esl.py", "mi.py", "sip.py"] %}

Metrics library {{ file }} present:
  file.managed:
    - name: /usr/local/lib/voice-metrics/{{ file }}
    - source: salt://_utils/{{ file }}
    - makedirs: true
    - mode: "0644"
{%- endfor %}

Metrics program present:
  file.managed:
    - name: /usr/local/lib/voice-metrics/voice_metrics.py
    - source: salt://monitoring/files/voice_metrics.py
    - mode: "0644"

Metrics unit present:
  file.managed:
    - name: /etc/systemd/system/voice-metrics.service
    - source: salt://monitoring/files/voice-metrics.service
    - mode: "0644"

Metrics timer present:
  file.managed:
    - name: /etc/systemd/system/voice-metrics.timer
    - source: salt://monitoring/files/voice-metrics.timer
    - template: jinja
    - context: {interval: {{ monitoring.interval }}}
    - mode: "0644"

Metrics units known to systemd:
  module.run:
    - service.systemctl_reload: []
    - onchanges:
      - file: Metrics unit present
      - file: Metrics timer present
