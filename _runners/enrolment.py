"""Compare the keys on this master with the fleets in pillar.

A key that is accepted is a node that is trusted: one that no fleet names was left behind, or was
never meant to be.
"""

from __future__ import annotations

import re

import salt.key
import salt.pillar

NODE = re.compile(r"[a-z]+-[a-z0-9]+\.(?P<workspace>[a-z0-9]+-[a-z0-9]+)")


def report(workspace):
    """
    Return who is trusted, who asks, and who is missing in a workspace.

    ``accepted`` are nodes of the fleet, ``strangers`` accepted keys of no node of it, ``missing``
    nodes without an accepted key, ``pending`` ``{id: fingerprint}`` of keys that wait: compare the
    fingerprint with the node's own (``salt-call --local key.finger``) before you accept one.

    CLI Example:

    .. code-block:: bash

        salt-run enrolment.report lab-local
    """
    keys = salt.key.get_key(__opts__)
    listed = keys.list_keys()
    accepted = _of(workspace, listed["minions"])
    nodes = _nodes(workspace, accepted)
    pending = _of(workspace, listed["minions_pre"])
    return {
        "accepted": sorted(accepted & nodes),
        "strangers": sorted(accepted - nodes),
        "missing": sorted(nodes - accepted),
        "pending": {
            minion_id: keys.finger(minion_id)["minions_pre"][minion_id]
            for minion_id in sorted(pending)
        },
    }


def _of(workspace, minion_ids):
    found = set()
    for minion_id in minion_ids:
        named = NODE.fullmatch(minion_id)
        if named and named["workspace"] == workspace:
            found.add(minion_id)
    return found


def _nodes(workspace, accepted):
    """Return the minion ids of a workspace's fleet, as pillar gives it to a node of it.

    A stranger is given no pillar, so the first accepted key that is no stranger's tells.
    """
    for minion_id in sorted(accepted):
        pillar = salt.pillar.get_pillar(__opts__, {"id": minion_id}, minion_id).compile_pillar()
        fleet = pillar.get("fleet")
        if isinstance(fleet, dict):
            return {f"{host}.{workspace}" for host in fleet}
    return set()
