include:
  - fsx.configured
{#- A release that is refused keeps no worker from running the one that is live. #}
{%- for port in pillar["fsx"]["ports"] %}

Worker on port {{ port }} running:
  service.running:
    - name: fsx-worker@{{ port }}
    - enable: true
    - require:
      - module: Worker unit known to systemd
{%- endfor %}
