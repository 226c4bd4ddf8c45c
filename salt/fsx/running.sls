include:
  - fsx.configured
{%- for port in pillar["fsx"]["ports"] %}

Worker on port {{ port }} running:
  service.running:
    - name: fsx-worker@{{ port }}
    - enable: true
    # It ends its last call, then starts over with the live release; the other workers take calls.
    - reload: true
    - require:
      - file: Worker unit present
    - watch:
      - file: Worker release live
{%- endfor %}
