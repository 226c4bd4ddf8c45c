{#- One context for every template; the templates read no pillar themselves. -#}
{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar.get("opensips", {})) %}
{%- set served = context.tls.values() | map(attribute="certificate") | unique | list %}
{%- set directories = salt["certificate.directories"]() if served else {} %}
{#- What others see: as the fleet says, else as EC2 tells the instance itself. -#}
{%- set public = grains.get("ec2", {}).get("public_ip", pillar["node"].address) %}
{%- set public = pillar["node"].public_address | default(public) %}
{%- do context.update({
  "node": salt["slsutil.merge"](pillar["node"], {"public_address": public}),
  "certificates": directories,
}) %}

include:
  - opensips.installed
{%- if served %}
  - certificates.configured
{%- endif %}

OpenSIPS configured:
  opensips.configured:
    - name: /etc/opensips
    - source: salt://opensips/files
    - context: {{ context | tojson | tojson }}    {#- as text, which Salt passes on unread #}
    - require:
      - opensips: OpenSIPS installed
{%- for name in served %}
      - certificate: Certificate {{ name }} deployed
{%- endfor %}
{#- A container has some of them only through its host. -#}
{%- for key, value in context.sysctl | dictsort
      if salt["file.file_exists"]("/proc/sys/" ~ (key | replace(".", "/"))) %}

Kernel parameter {{ key }} as OpenSIPS needs it:
  sysctl.present:
    - name: {{ key }}
    - value: {{ value }}
    - config: /etc/sysctl.d/60-guardian.conf
{%- endfor %}
