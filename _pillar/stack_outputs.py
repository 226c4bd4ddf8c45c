"""Give a minion the outputs of its workspace's Terraform stacks, under ``stack:<stack>``.

Guardian publishes them as ``<path>/<workspace>/<stack>.json``. Nothing published yet is no error:
a workspace's first stack comes before its first node.

.. code-block:: yaml

    ext_pillar:
      - stack_outputs: {path: /srv/guardian-outputs}
"""

from __future__ import annotations

import json
import re
from pathlib import Path

WORKSPACE = re.compile(r"[a-z0-9]+-[a-z0-9]+")


def ext_pillar(minion_id, pillar, path):
    """Return ``{"stack": {stack: {output: value}}}``; ValueError names a file that is not JSON."""
    workspace = minion_id.partition(".")[2]
    if not WORKSPACE.fullmatch(workspace):
        return {}
    stacks = {}
    for file in sorted((Path(path) / workspace).glob("*.json")):
        try:
            outputs = json.loads(file.read_bytes())
        except (OSError, ValueError):
            outputs = None
        if not isinstance(outputs, dict):
            raise ValueError(f"{file}: not a JSON object; run `guardian deploy {workspace}` again")
        stacks[file.stem] = outputs
    return {"stack": stacks} if stacks else {}
