{%- import_yaml "freeswitch/defaults.yaml" as defaults %}
{%- set freeswitch = salt["slsutil.merge"](defaults, pillar.get("freeswitch", {})) %}
{%- set name, repository = "FreeSWITCH", freeswitch.repository %}
{%- include "base/apt_repository.jinja" %}

FreeSWITCH installed:
  freeswitch.installed:
    - name: {{ freeswitch.package.name }}
    - version: {{ freeswitch.package.version | tojson }}
    - hold: {{ freeswitch.package.hold | tojson }}
    - require:
      - file: FreeSWITCH repository present
