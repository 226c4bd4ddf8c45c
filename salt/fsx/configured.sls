{%- import_yaml "fsx/defaults.yaml" as defaults %}
{%- set fsx = salt["slsutil.merge"](defaults, pillar["fsx"]) %}
include:
  - fsx.installed

# Workers read these at each call, so that a change needs no new start.
Worker settings present:
  file.serialize:
    - name: /etc/fsx/settings.json
    - dataset: {{ {"services": pillar.get("services", {}), "features": pillar.get("features", {})} | tojson }}
    - serializer: json
    - makedirs: true
    - mode: "0644"

# Who may enter it decides who may read what is in it.
Worker credentials kept to workers:
  file.directory:
    - name: /etc/fsx/credentials
    - group: fsx
    - mode: "0750"
    - require:
      - user: Worker user present
{%- for name, reference in fsx.credentials | dictsort %}

Worker credential {{ name }} present:
  secret_file.managed:
    - name: /etc/fsx/credentials/{{ name }}
    - content: {{ reference | tojson }}
    - mode: "0644"
    - require:
      - file: Worker credentials kept to workers
{%- endfor %}

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
