# Layers, broad to narrow. A minion's id alone (<role>-<nn>.<account>-<region>) decides what it is
# given: grains are the minion's own word and never choose a secret.
base:
  '*':
    - common
  '*.lab-*':
    - accounts.lab
  '*.*-local':
    - regions.local
  'sip-*':
    - roles.sip
  'pbx-*':
    - roles.pbx
  'fsx-*':
    - roles.fsx
  '*.lab-local':
    - workspaces.lab-local
