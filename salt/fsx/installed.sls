PHP installed:
  pkg.installed:
    - pkgs:
      - php8.2-cli

Worker user present:
  user.present:
    - name: fsx
    - system: true
    - usergroup: true
    - createhome: false
    - home: /srv/fsx
    - shell: /usr/sbin/nologin
