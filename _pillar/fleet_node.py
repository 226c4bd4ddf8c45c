"""Tell a minion who it is and whom it serves, from its id and its workspace's fleet alone.

Adds ``node`` (id, name, role, workspace, account, region, zone, address, and public_address where
the fleet has one), takes over the stack outputs that ``from_stacks`` names, and builds a proxy's
dispatcher sets from the fleet: that of the workspace's file and that of outputs, by host name.

.. code-block:: yaml

    ext_pillar:
      - fleet_node: true
"""

from __future__ import annotations

import re

MINION_ID = re.compile(r"(?P<role>[a-z]+)-[a-z0-9]+\.(?P<account>[a-z0-9]+)-(?P<region>[a-z0-9]+)")


def ext_pillar(minion_id, pillar, _enabled=True):
    """Return what is computed; ValueError when the id is none of ours or not in the fleet.

    A stranger is left with nothing: an error alone would stop its states, but it would still be
    handed every secret that the layers above give to ids of that form.
    """
    try:
        computed = _from_stacks(pillar.get("from_stacks", {}), pillar.get("stack", {}))
        fleet = _fleet(pillar.get("fleet"), computed.get("fleet"))
        named, entry = _known(minion_id, fleet)
    except ValueError:
        pillar.clear()
        raise
    host, _, workspace = minion_id.partition(".")
    computed["node"] = {
        "id": minion_id,
        "name": host,
        "role": named["role"],
        "workspace": workspace,
        "account": named["account"],
        "region": named["region"],
        "zone": entry.get("zone"),
        "address": entry.get("address"),
    }
    if "public_address" in entry:
        computed["node"]["public_address"] = entry["public_address"]
    if named["role"] == "sip":
        computed.setdefault("opensips", {})["dispatcher"] = _sets(pillar, fleet)
    return computed


def _known(minion_id, fleet):
    """Return what the id says of a node and the fleet's entry of it; ValueError for a stranger."""
    named = MINION_ID.fullmatch(minion_id)
    if named is None:
        raise ValueError(f"minion id {minion_id!r} is not <role>-<nn>.<account>-<region>")
    host, _, workspace = minion_id.partition(".")
    if not isinstance(fleet, dict):
        raise ValueError(f"workspace {workspace} is unknown: pillar/workspaces has no such file")
    entry = fleet.get(host)
    if not isinstance(entry, dict) or entry.get("role") != named["role"]:
        raise ValueError(
            f"{host} is not in the fleet of {workspace} with role {named['role']}:"
            f" add it to pillar/workspaces/{workspace}.sls"
        )
    return named, entry


def _fleet(own, published):
    """Return the workspace's nodes and those that stacks made; a name in both is an error."""
    if published is None:
        return own
    if not isinstance(published, dict):
        raise ValueError("from_stacks:fleet names an output that maps no host names to nodes")
    twice = sorted(set(own or {}) & set(published))
    if twice:
        raise ValueError(f"{twice[0]} is in the workspace's fleet and in a stack's; drop one")
    return {**(own or {}), **dict(sorted(published.items()))}


def _from_stacks(wanted, stacks):
    """Return the pillar keys that published outputs feed; several feed one key name by name."""
    found = {}
    for key, sources in wanted.items():
        values = [
            value
            for stack, _, output in (source.partition(":") for source in _listed(sources))
            if (value := stacks.get(stack, {}).get(output)) is not None
        ]
        if not values:
            continue
        *parents, last = key.split(":")
        at = found
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = values[0] if len(values) == 1 else _joined(key, values)
    return found


def _joined(key, values):
    """Return one mapping of several outputs."""
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f"from_stacks:{key}: outputs that are joined must be mappings")
    return {name: entry for value in values for name, entry in value.items()}


def _listed(value):
    return value if isinstance(value, list) else [value]


def _sets(pillar, fleet):
    """Return {set id: destinations} of the roles this proxy serves, in the fleet's order."""
    port = pillar.get("freeswitch", {}).get("profiles", {}).get("internal", {}).get("port", 5060)
    return {
        number: [
            {
                "node": name,
                "uri": f"sip:{entry['address']}:{port}",
                "weight": entry.get("weight", 1),
                **{key: entry[key] for key in ("standby", "calls") if key in entry},
            }
            for name, entry in fleet.items()
            if entry.get("role") == role
        ]
        for number, role in pillar.get("opensips", {}).get("sets", {}).items()
    }
