Host packages installed:
  pkg.installed:
    - pkgs:
      - chrony
      - tzdata
