{%- import_yaml "base/defaults.yaml" as defaults %}
{%- set base = salt["slsutil.merge"](defaults, pillar.get("base", {})) %}
include:
  - base.installed
  - base.configured

Time service {{ "running" if base.time_service else "enabled" }}:
  service.{{ "running" if base.time_service else "enabled" }}:
    - name: chrony
    {%- if base.time_service %}
    - enable: true
    - watch:
      - file: Time servers named
    {%- endif %}
    - require:
      - pkg: Host packages installed

Journal limits in force:
  service.running:
    - name: systemd-journald
    - watch:
      - file: Journal bounded
