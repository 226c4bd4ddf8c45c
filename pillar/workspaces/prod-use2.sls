# Production, Ohio. Stacks make the nodes; the carriers are those that are reached from there.
from_stacks:
  fleet: [rt-sip:nodes, rt-pbx:nodes, fsx8:nodes]

opensips:
  gateways:
    primary-1: {address: 198.51.100.16, calls: 2000, hide_topology: true}
    primary-2: {address: 198.51.100.17, calls: 2000, hide_topology: true}
    secondary-1: {address: 203.0.113.16, calls: 1000, hide_topology: true, sources: [203.0.113.24/29]}
  carriers:
    primary: {gateways: {primary-1: 50, primary-2: 50}, by: weight}
    secondary: {gateways: [secondary-1]}
