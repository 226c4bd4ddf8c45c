#!py
"""A minion has started: where pillar says so, let it take our modules and apply its highstate.

The event is the minion's own word: its id must match the one in the tag and have the form of ours,
and what is enqueued holds nothing else of it.
"""

import re

MINION_ID = re.compile(r"(?:sip|pbx|fsx)-[a-z0-9]{1,32}\.(?P<workspace>[a-z0-9]{2,16}-[a-z0-9]{2,8})")
# Disposable hosts only: in every other workspace Guardian decides when a node is touched.
WORKSPACES = {"lab-local"}


def run():
    """Return the highstate to enqueue, nothing for an id or workspace that is not ours."""
    found = MINION_ID.fullmatch(str(data.get("id", "")))
    if found is None or tag != f"salt/minion/{found[0]}/start":
        return {}
    if found["workspace"] not in WORKSPACES:
        return {}
    return {
        "configure a started minion": {
            "local.state.apply": [{"tgt": found[0]}, {"tgt_type": "list"}, {"queue": True}]
        }
    }
