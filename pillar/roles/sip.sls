# A proxy: spreads calls over the nodes of these roles, a dispatcher set each. Registrations, users
# and call records are in the region's database, so that every proxy knows them.
opensips:
  sets: {"1": pbx, "2": fsx}
  numbers:
    - {expression: "^8[0-9]{3}$", set: 2}
  algorithm: 4
  database:
    remote:
      driver: mysql
      name: opensips
      user: opensips
      password: {secret: database-password}
from_stacks:
  opensips:database:remote:host: databases:voice_host
  opensips:cluster:nodes: rt-sip:cluster
defence:
  jails: [opensips]
