{%- import_yaml "freeswitch/defaults.yaml" as defaults %}
{%- set freeswitch = salt["slsutil.merge"](defaults, pillar.get("freeswitch", {})) %}
{%- set repository = freeswitch.repository %}
{%- set key = repository.key %}
{%- if key.startswith("salt://") %}
{%- set key = "/etc/apt/keyrings/freeswitch.gpg" %}

Key of the FreeSWITCH repository present:
  file.managed:
    - name: {{ key }}
    - source: {{ repository.key }}
    - mode: "0644"
    - makedirs: true
    - require_in:
      - file: FreeSWITCH repository present
{%- endif %}

FreeSWITCH repository present:
  file.managed:
    - name: /etc/apt/sources.list.d/freeswitch.sources
    - mode: "0644"
    - contents:
      - "Types: deb"
      - "URIs: {{ repository.uri }}"
      - "Suites: {{ repository.suite }}"
      - "Components: {{ repository.components | join(' ') }}"
      - "Signed-By: {{ key }}"

FreeSWITCH installed:
  freeswitch.installed:
    - name: {{ freeswitch.package.name }}
    - version: {{ freeswitch.package.version | tojson }}
    - hold: {{ freeswitch.package.hold | tojson }}
    - require:
      - file: FreeSWITCH repository present
