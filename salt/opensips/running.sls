{%- set port = pillar.get("opensips", {}).get("health", {}).get("port") %}
include:
  - opensips.configured

OpenSIPS running:
  opensips.running:
    - name: opensips
    - require:
      - opensips: OpenSIPS configured
{%- if port %}

# It comes and goes with the daemon; a drain closes it.
OpenSIPS health socket enabled:
  service.enabled:
    - name: opensips-health.socket
    - require:
      - opensips: OpenSIPS configured
    - require_in:
      - opensips: OpenSIPS running
{%- endif %}
