include:
  - freeswitch.configured

FreeSWITCH running:
  freeswitch.running:
    - name: freeswitch
    - require:
      - freeswitch: FreeSWITCH configured
