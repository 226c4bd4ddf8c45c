{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- set opensips = salt["slsutil.merge"](defaults, pillar.get("opensips", {})) %}
{%- set name, repository = "OpenSIPS", opensips.repository %}
{%- include "base/apt_repository.jinja" %}

OpenSIPS installed:
  opensips.installed:
    - name: {{ opensips.package.name }}
    - version: {{ opensips.package.version | tojson }}
    - hold: {{ opensips.package.hold | tojson }}
    - require:
      - file: OpenSIPS repository present
