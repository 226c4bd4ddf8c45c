# A proxy: spreads calls over the nodes of these roles, a dispatcher set each.
opensips:
  sets: {"1": pbx, "2": fsx}
  algorithm: 4
