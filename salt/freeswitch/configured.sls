{#- One context for every template; the templates read no pillar themselves. -#}
{%- import_yaml "freeswitch/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar.get("freeswitch", {})) %}
{%- do context.update({"node": pillar["node"], "fleet": pillar["fleet"]}) %}

include:
  - freeswitch.installed

FreeSWITCH configured:
  freeswitch.configured:
    - name: /etc/freeswitch
    - source: salt://freeswitch/files
    - context: {{ context | tojson }}
    - require:
      - freeswitch: FreeSWITCH installed
