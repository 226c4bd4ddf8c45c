"""What a master remembers of AWS, dropped before a deploy looks at what nodes would be given.

A stack may just have published another address or password, and the master would go on with what
it read minutes ago. Runs on the master.
"""

from collections.abc import Mapping
from typing import Any


def renew(opts: Mapping[str, Any], workspace: str) -> None:
    """Have every secret in use and the workspace's outputs be asked for anew.

    ValueError when the cache cannot be reached.
    """
    for entry in opts.get("ext_pillar") or []:
        if isinstance(entry, dict) and "aws_secrets" in entry:
            # Not before: AWS's library takes a second to import, and most tests need none.
            from guardian.secrets.broker import from_opts

            if (broker := from_opts(opts)) is not None:
                broker.forget(broker.sources())
        if isinstance(entry, dict) and "parameters" in (entry.get("stack_outputs") or {}):
            from guardian.stacks import parameters

            parameters.forget(entry["stack_outputs"], workspace)
