{%- for name, bundle in pillar.get("certificates", {}) | dictsort %}
Certificate {{ name }} deployed:
  certificate.deployed:
    - name: {{ name }}
    - dns_names: {{ bundle.dns_names | default([]) | tojson }}
    - pillar_key: certificates:{{ name }}
{%- else %}
No certificate asked for:
  test.nop
{%- endfor %}
