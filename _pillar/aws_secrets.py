"""Give a minion the secrets that its pillar refers to, under ``secret_values``.

Runs after what tells a minion who it is (``fleet_node``) and before what checks its pillar. A
reference is ``{secret: name}``; ``secrets`` in pillar declares where each name is kept; a file of
grants says who may have what. The minion id decides alone, and only if it is of the fleet: pillar
as it is handed in may hold an override of the minion's own. Whatever is required and cannot be had
is an error of the pillar, so that no state runs. ``docs/secrets.md`` has it all.

.. code-block:: yaml

    ext_pillar:
      - aws_secrets:
          grants: /srv/guardian/pillar/grants.yaml
          region: eu-west-2               # the only one this master serves; default: the minion's
          cache: /run/guardian/secrets    # on tmpfs
          ttl: 300                        # seconds that a value is taken from the cache
          stale: 900                      # seconds more for optional ones while AWS is unwell
          rate: 30                        # calls a second, of all processes of this master
          dummies: [lab]                  # accounts that get dummies, and no AWS
"""

from __future__ import annotations

from guardian import membership
from guardian.secrets import resolver

OURS = ("secrets", "secret_values")


def ext_pillar(minion_id, pillar, grants, region=None, dummies=(), **settings):
    """Return ``{"secret_values": {name: value}}``; ValueError says which secret, and why not."""

    def broker():
        from guardian.secrets.broker import Broker  # and boto3, which dummies have no need of

        return Broker(region=region or "", **settings)

    wanting = {key: value for key, value in pillar.items() if key not in OURS}
    values = resolver.resolve(
        membership.member(minion_id, __opts__),
        __utils__["secret_refs.found"](wanting),
        pillar.get("secrets"),
        granted=grants,
        broker=broker,
        region=region,
        dummies=dummies,
    )
    return {"secret_values": values} if values else {}
