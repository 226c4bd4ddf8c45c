{#- One context for every template; the templates read no pillar themselves. -#}
{%- import_yaml "freeswitch/defaults.yaml" as defaults %}
{%- set context = salt["slsutil.merge"](defaults, pillar.get("freeswitch", {})) %}
{%- set serving = context.profiles.values() | list + context.xml_curl.values() | list %}
{%- set served = serving | selectattr("certificate", "defined") | map(attribute="certificate") %}
{%- set served = served | unique | list %}
{%- set directories = salt["certificate.directories"](context.tls_directory, "sofia") %}
{#- What others see: as the fleet says, else as EC2 tells the instance itself. -#}
{%- set public = grains.get("ec2", {}).get("public_ip", pillar["node"].address) %}
{%- for name, on in pillar.get("features", {}) | dictsort %}
{%- do context.variables.setdefault("feature_" ~ (name | replace("-", "_")), on) %}
{%- endfor %}
{%- do context.update({
  "node": pillar["node"],
  "fleet": pillar["fleet"],
  "public_address": pillar["node"].public_address | default(public),
  "tls_directories": directories,
}) %}

include:
  - freeswitch.installed
{%- for name in served %}

FreeSWITCH certificate {{ name }} deployed:
  certificate.deployed:
    - name: {{ name }}
    - dns_names: {{ pillar["certificates"][name].dns_names | default([]) | tojson }}
    - directory: {{ context.tls_directory }}
    - layout: sofia
    - owner: freeswitch
    - require:
      - freeswitch: FreeSWITCH installed
    - require_in:
      - freeswitch: FreeSWITCH configured
{%- endfor %}

FreeSWITCH configured:
  freeswitch.configured:
    - name: /etc/freeswitch
    - source: salt://freeswitch/files
    - context: {{ context | tojson }}
    - require:
      - freeswitch: FreeSWITCH installed

# No program of this node takes a port of the media range for a connection of its own.
Media ports reserved:
  sysctl.present:
    - name: net.ipv4.ip_local_reserved_ports
    - value: {{ context.rtp.start_port }}-{{ context.rtp.end_port }}
    - config: /etc/sysctl.d/60-guardian.conf
