{#- One context for every template; the templates read no pillar themselves. -#}
{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar.get("opensips", {})) %}
{%- do context.update({"node": pillar["node"]}) %}

include:
  - opensips.installed

OpenSIPS configured:
  opensips.configured:
    - name: /etc/opensips
    - source: salt://opensips/files
    - context: {{ context | tojson }}
    - require:
      - opensips: OpenSIPS installed
