{%- import_yaml "defence/defaults.yaml" as defaults %}
{%- set defence = salt["slsutil.merge"](defaults, pillar.get("defence", {})) %}
include:
  - defence.configured

Packet filter in force:
  service.running:
    - name: guardian-defence
    - enable: true
    - reload: true
    - watch:
      - file: Packet filter written
    - require:
      - file: Packet filter unit present
{%- if defence.jails %}

Jails kept:
  service.running:
    - name: fail2ban
    - enable: true
    - watch:
      - file: Jails present
      - file: Jail action present
    {%- for jail in defence.jails %}
      - file: Jail filter {{ jail }} present
    {%- endfor %}
    - require:
      - service: Packet filter in force
{%- endif %}
