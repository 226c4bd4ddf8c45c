{%- import_yaml "fsx/defaults.yaml" as defaults %}
{%- set fsx = salt["slsutil.merge"](defaults, pillar["fsx"]) %}
include:
  - fsx.installed

Worker unit present:
  file.managed:
    - name: /etc/systemd/system/fsx-worker@.service
    - source: salt://fsx/files/fsx-worker@.service.jinja
    - template: jinja
    - mode: "0644"
    - context:
        directory: /srv/fsx
        entry: {{ fsx.entry }}
        drain_seconds: {{ fsx.drain_seconds }}

Worker unit known to systemd:
  module.run:
    - service.systemctl_reload: []
    - onchanges:
      - file: Worker unit present

# Workers that run are renewed here, one after the other; those that do not start in fsx.running.
Worker release live:
  fsx.deployed:
    - name: /srv/fsx
    - source: {{ fsx.source }}
    - source_hash: {{ fsx.source_hash | tojson }}
    - entry: {{ fsx.entry }}
    - keep: {{ fsx.keep }}
    - ports: {{ fsx.ports | tojson }}
    - require:
      - pkg: PHP installed
      - user: Worker user present
      - module: Worker unit known to systemd
