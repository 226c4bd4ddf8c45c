# Load tests, Oregon. Stacks make the nodes.
from_stacks:
  fleet: [rt-sip:nodes, rt-pbx:nodes, fsx8:nodes]
