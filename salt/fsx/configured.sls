{#- A release is a directory named by its content; one symlink says which is live. -#}
{%- set release = salt["cp.hash_file"]("salt://fsx/files/worker.php")["hsum"][:12] %}
include:
  - fsx.installed

Worker release present:
  file.managed:
    - name: /srv/fsx/releases/{{ release }}/worker.php
    - source: salt://fsx/files/worker.php
    - makedirs: true
    - mode: "0644"
    - require:
      - user: Worker user present

Worker release live:
  file.symlink:
    - name: /srv/fsx/current
    - target: /srv/fsx/releases/{{ release }}
    - atomic: true
    - force: false
    - require:
      - file: Worker release present

Worker unit present:
  file.managed:
    - name: /etc/systemd/system/fsx-worker@.service
    - source: salt://fsx/files/fsx-worker@.service
    - mode: "0644"

Worker unit known to systemd:
  module.run:
    - service.systemctl_reload: []
    - onchanges:
      - file: Worker unit present
