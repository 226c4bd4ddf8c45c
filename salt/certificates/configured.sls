{#- Chain and key stay where they are: the module reads them from pillar itself. -#}
{%- for name, bundle in pillar.get("certificates", {}) | dictsort %}
Certificate {{ name }} deployed:
  certificate.deployed:
    - name: {{ name }}
  {%- for key in ["directory", "layout", "owner", "service", "served"] if key in bundle %}
    - {{ key }}: {{ bundle[key] | tojson }}
  {%- endfor %}
{%- else %}
No certificate asked for:
  test.nop
{%- endfor %}
