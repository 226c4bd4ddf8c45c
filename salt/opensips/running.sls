include:
  - opensips.configured

OpenSIPS running:
  opensips.running:
    - name: opensips
    - require:
      - opensips: OpenSIPS configured
