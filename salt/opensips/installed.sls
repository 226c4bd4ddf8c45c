{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- import_yaml "opensips/packages.yaml" as packages %}
{%- set opensips = salt["slsutil.merge"](defaults, pillar.get("opensips", {})) %}
{%- set driver = (opensips.database.remote or {}).get("driver") %}
{%- set asked = {
  "sqlite": opensips.database.local == "sqlite",
  "mysql": driver == "mysql",
  "postgres": driver == "postgres",
  "registrar": opensips.registrar.domains,
  "tls": opensips.tls,
  "wss": opensips.sockets | selectattr("proto", "equalto", "wss") | list,
  "metrics": opensips.metrics.port,
} %}
{%- set modules = opensips.package.modules | list %}
{%- for part, needed in packages.items() if asked[part] %}
{%- do modules.extend(needed) %}
{%- endfor %}
{%- set name, repository = "OpenSIPS", opensips.repository %}
{%- include "base/apt_repository.jinja" %}

OpenSIPS installed:
  opensips.installed:
    - name: {{ opensips.package.name }}
    - version: {{ opensips.package.version | tojson }}
    - hold: {{ opensips.package.hold | tojson }}
    - modules: {{ modules | unique | list | tojson }}
    - require:
      - file: OpenSIPS repository present
