# Layers, broad to narrow. A minion's id alone (<role>-<nn>.<account>-<region>) decides what it is
# given: grains are the minion's own word and never choose anything. Who exists is said elsewhere:
# fleet.yaml (accounts, regions, roles) and workspaces/ (nodes); see docs/fleet.md.
base:
  '*':
    - common
    - dummies

  '* and not *.lab-*':
    - match: compound
    - aws
  '*.prod-*':
    - accounts.prod
  '*.stage-*':
    - accounts.stage
  '*.dev01-*':
    - accounts.dev01
  '*.qa01-*':
    - accounts.qa01
  '*.qa02-*':
    - accounts.qa02
  '*.lab-*':
    - accounts.lab

  '*.*-use2':
    - regions.use2
  '*.*-usw2':
    - regions.usw2
  '*.*-euw2':
    - regions.euw2
  '*.*-euc1':
    - regions.euc1
  '*.*-apse1':
    - regions.apse1
  '*.*-apse2':
    - regions.apse2
  '*.*-local':
    - regions.local

  'sip-*':
    - roles.sip
  'pbx-*':
    - roles.pbx
  'fsx-*':
    - roles.fsx

  '*.prod-use2':
    - workspaces.prod-use2
  '*.prod-usw2':
    - workspaces.prod-usw2
  '*.prod-euw2':
    - workspaces.prod-euw2
  '*.prod-euc1':
    - workspaces.prod-euc1
  '*.prod-apse1':
    - workspaces.prod-apse1
  '*.prod-apse2':
    - workspaces.prod-apse2
  '*.stage-euw2':
    - workspaces.stage-euw2
  '*.stage-apse2':
    - workspaces.stage-apse2
  '*.dev01-use2':
    - workspaces.dev01-use2
  '*.dev01-usw2':
    - workspaces.dev01-usw2
  '*.qa01-use2':
    - workspaces.qa01-use2
  '*.qa01-usw2':
    - workspaces.qa01-usw2
  '*.qa02-use2':
    - workspaces.qa02-use2
  '*.qa02-usw2':
    - workspaces.qa02-usw2
  '*.lab-local':
    - workspaces.lab-local
