"""An authority that gives out as many certificates as are asked for: root, intermediate, leaves."""

import datetime
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import bundles

NAME = "voice.example"


class Bundle(NamedTuple):
    """What pillar gives a node, and how the leaf is told from all others."""

    chain: str
    key: str
    fingerprint: str


class Authority:
    """Its leaves are signed by an intermediate, as those of public authorities are."""

    def __init__(self) -> None:
        root, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = bundles.pem(bundles.issue("root", root, "root", root, ca=True))
        between = bundles.issue("between", self._key, "root", root, ca=True)
        self._between = bundles.pem(between)

    def bundle(self, *, days: int = 30) -> Bundle:
        """A new leaf with a new key, and the chain that goes with it."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = bundles.NOW + datetime.timedelta(days=days)
        leaf = bundles.issue(
            NAME, key, "between", self._key,
            names=[NAME], begins=ends - datetime.timedelta(days=90), ends=ends,
        )  # fmt: skip
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        return Bundle(bundles.pem(leaf) + self._between, bundles.private(key), fingerprint)
