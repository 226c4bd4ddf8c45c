"""Give a minion the outputs of its workspace's Terraform stacks, under ``stack:<stack>``.

Guardian publishes them in a directory or in Parameter Store; see ``guardian/stacks/outputs.py``.
Nothing published yet is no error: a workspace's first stack comes before its first node. An output
that Terraform calls sensitive is left out: it is declared under ``secrets`` and referred to.

.. code-block:: yaml

    ext_pillar:
      - stack_outputs: {path: /srv/guardian-outputs}
      # or, through the broker of aws_secrets and with its options:
      - stack_outputs:
          parameters: /guardian/outputs
          region: eu-west-2
          cache: /run/guardian/secrets
"""

from __future__ import annotations

import re

from guardian.stacks import outputs

WORKSPACE = re.compile(r"[a-z0-9]+-[a-z0-9]+")


def ext_pillar(minion_id, pillar, **source):
    """Return ``{"stack": {stack: {output: value}}}``; ValueError names what cannot be read."""
    workspace = minion_id.partition(".")[2]
    if not WORKSPACE.fullmatch(workspace):
        return {}
    stacks = outputs.published(source, workspace)
    return {"stack": stacks} if stacks else {}
