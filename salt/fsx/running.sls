{%- set fsx = pillar["fsx"] %}
include:
  - fsx.configured
{%- for port in range(fsx.first_port, fsx.first_port + fsx.workers) %}

Worker on port {{ port }} running:
  service.running:
    - name: fsx-worker@{{ port }}
    - enable: true
    # SIGUSR1: a worker finishes the call it has, then starts over with the live release.
    - reload: true
    - require:
      - file: Worker unit present
    - watch:
      - file: Worker release live
{%- endfor %}
