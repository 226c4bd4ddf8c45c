{%- import_yaml "fsx/defaults.yaml" as defaults %}
{%- set fsx = salt["slsutil.merge"](defaults, pillar["fsx"]) %}
PHP installed:
  pkg.installed:
    - pkgs:
      - php8.2-cli
      {%- for extension in fsx.extensions %}
      - php8.2-{{ extension }}
      {%- endfor %}

Worker user present:
  user.present:
    - name: fsx
    - system: true
    - usergroup: true
    - createhome: false
    - home: /srv/fsx
    - shell: /usr/sbin/nologin
