"""Seal ``secret_values`` to the minion they are for, so that no view of its pillar shows them.

Runs last of all, after what checks pillar. Who has no accepted key is left without values: only a
person who looks at its pillar on the master asks for those. Nodes of ``plain`` accounts, whose
secrets are dummies, keep them readable.

.. code-block:: yaml

    ext_pillar:
      - secrets_sealed: {plain: [lab]}
"""

from __future__ import annotations

import salt.cache

KEYS = "keys"


def ext_pillar(minion_id, pillar, plain=()):
    """Return ``{"secret_values": {name: sealed value}}``, which replaces what was there."""
    values = pillar.get("secret_values")
    account = minion_id.partition(".")[2].partition("-")[0]
    if not values or account in plain:
        return {}
    key = _accepted(minion_id)
    if key is None:
        return {"secret_values": __utils__["secret_seal.withheld"](values)}
    return {"secret_values": __utils__["secret_seal.seal"](values, key, minion_id)}


def _accepted(minion_id):
    """Return the public key the master has accepted of a minion, None if it has not."""
    store = salt.cache.Cache(__opts__, driver=__opts__["keys.cache_driver"])
    found = store.fetch(KEYS, minion_id)
    return found["pub"] if found and found["state"] == "accepted" else None
