"""Tell a minion who it is and whom it serves, from its id and its workspace's fleet alone.

Adds ``node`` (id, name, role, workspace, account, region, zone, address, and public_address where
the fleet has one) and the whole ``fleet``, takes over the stack outputs that ``from_stacks`` names,
fills in ``services``, and builds a proxy's dispatcher sets from the fleet. Who is of the fleet is
decided by ``guardian/membership.py``; a stranger is given nothing. Stands first.

.. code-block:: yaml

    ext_pillar:
      - fleet_node: true
"""

from __future__ import annotations

from guardian import membership


def ext_pillar(minion_id, pillar, _enabled=True):
    """Return what is computed; ValueError when the minion is none of ours.

    A stranger is left with nothing: neither in the pillar that is handed in, which is a copy where
    an override came with the request, nor in the one that Salt goes on with.
    """
    try:
        member = membership.member(minion_id, __opts__)
        computed = _from_stacks(_mapping(pillar, "from_stacks"), member.stacks)
        services = {**_mapping(pillar, "services"), **_mapping(computed, "services")}
        filled = _filled(services, member)
    except ValueError:
        pillar.clear()
        __pillar__.clear()
        raise
    if filled:
        computed["services"] = filled
    computed["fleet"] = member.fleet
    computed["node"] = {
        "id": minion_id,
        "name": member.host,
        "role": member.role,
        "workspace": member.workspace,
        "account": member.account,
        "region": member.region,
        "zone": member.entry.get("zone"),
        "address": member.entry.get("address"),
    }
    if "public_address" in member.entry:
        computed["node"]["public_address"] = member.entry["public_address"]
    if member.role == "sip":
        computed.setdefault("opensips", {})["dispatcher"] = _sets(pillar, member.fleet)
    return computed


def _from_stacks(wanted, stacks):
    """Return the pillar keys that published outputs feed; several feed one key name by name."""
    found = {}
    for key, sources in wanted.items():
        values = [
            value
            for stack, _, output in (source.partition(":") for source in _listed(sources))
            if (value := stacks.get(stack, {}).get(output)) is not None
        ]
        if not values or key == "fleet":
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


def _mapping(pillar, key):
    """Return a part of pillar; one of another kind counts as none here, the schema names it."""
    found = pillar.get(key)
    return found if isinstance(found, dict) else {}


def _filled(services, member):
    """Return services with what the minion id says in place of ``{region}`` and so on."""
    filled = {}
    for name, url in services.items():
        try:
            filled[name] = member.fill(url) if isinstance(url, str) else url
        except ValueError as problem:
            raise ValueError(f"services:{name}: {problem}") from None
    return filled


def _sets(pillar, fleet):
    """Return {set id: destinations} of the roles this proxy serves, in the fleet's order."""
    profiles = _mapping(_mapping(pillar, "freeswitch"), "profiles")
    port = _mapping(profiles, "internal").get("port", 5060)
    return {
        number: [
            {
                "node": name,
                "uri": f"sip:{entry.get('address')}:{port}",
                "weight": entry.get("weight", 1),
                **{key: entry[key] for key in ("standby", "calls") if key in entry},
            }
            for name, entry in fleet.items()
            if entry.get("role") == role
        ]
        for number, role in _mapping(_mapping(pillar, "opensips"), "sets").items()
    }
