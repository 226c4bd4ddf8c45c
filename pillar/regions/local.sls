# The region that is this machine: calls come from the hub.
opensips:
  trusted: [10.77.0.1]
