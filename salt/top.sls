# What a node is, by its minion id; roles/README.md says what each role is for.
base:
  'sip-*':
    - roles.sip
  'pbx-*':
    - roles.pbx
  'fsx-*':
    - roles.fsx
