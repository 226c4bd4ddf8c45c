Node exporter installed:
  pkg.installed:
    - pkgs:
      - prometheus-node-exporter
    - install_recommends: false
