{%- for name, bundle in pillar.get("certificates", {}) | dictsort %}
Certificate {{ name }} deployed:
  certificate.deployed:
    - name: {{ name }}
    - names: {{ bundle.names | default([]) | tojson }}
    - pillar_key: certificates:{{ name }}
{%- else %}
No certificate asked for:
  test.nop
{%- endfor %}
