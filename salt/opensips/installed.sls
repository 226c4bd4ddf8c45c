{%- import_yaml "opensips/defaults.yaml" as defaults %}
{%- set opensips = salt["slsutil.merge"](defaults, pillar.get("opensips", {})) %}
{%- set repository = opensips.repository %}

OpenSIPS repository present:
  file.managed:
    - name: /etc/apt/sources.list.d/opensips.sources
    - mode: "0644"
    - contents:
      - "Types: deb"
      - "URIs: {{ repository.uri }}"
      - "Suites: {{ repository.suite }}"
      - "Components: {{ repository.components | join(' ') }}"
      - "Signed-By: {{ repository.key }}"

OpenSIPS installed:
  opensips.installed:
    - name: {{ opensips.package.name }}
    - version: {{ opensips.package.version | tojson }}
    - hold: {{ opensips.package.hold | tojson }}
    - require:
      - file: OpenSIPS repository present
