# A proxy: spreads calls over the nodes of these roles, a dispatcher set each.
opensips:
  sets: {"1": pbx, "2": fsx}
  numbers:
    - {expression: "^8[0-9]{3}$", set: 2}
  algorithm: 4
defence:
  jails: [opensips]
