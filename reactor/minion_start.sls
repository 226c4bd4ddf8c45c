#!py
"""A minion has started: let it take our modules and, where it is disposable, its highstate.

The event is the minion's own word: its id must match the one in the tag and have the form of ours,
and what is enqueued holds nothing else of it.
"""

import re

MINION_ID = re.compile(r"(?:sip|pbx|fsx)-[a-z0-9]{1,32}\.(?P<workspace>[a-z0-9]{2,16}-[a-z0-9]{2,8})")
# Disposable hosts only: in every other workspace Guardian decides when a node is touched.
DISPOSABLE = {"lab-local"}


def run():
    """Return what to enqueue, nothing for an id that is not ours."""
    found = MINION_ID.fullmatch(str(data.get("id", "")))
    if found is None or tag != f"salt/minion/{found[0]}/start":
        return {}
    to = [{"tgt": found[0]}, {"tgt_type": "list"}]
    jobs = {"sync a started minion": {"local.saltutil.sync_all": to}}
    if found["workspace"] in DISPOSABLE:
        jobs["configure a started minion"] = {"local.state.apply": [*to, {"queue": True}]}
    return jobs
