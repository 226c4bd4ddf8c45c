Host packages installed:
  pkg.installed:
    - pkgs:
      - chrony
      - logrotate
      - tzdata
