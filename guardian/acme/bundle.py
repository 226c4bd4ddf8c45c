"""A certificate with its chain and its key, which no representation of it shows."""

import json
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from guardian.errors import GuardianError


class AcmeError(GuardianError):
    """Why there is no new certificate, in one line, without a secret."""


@dataclass(frozen=True)
class Bundle:
    """PEM texts: the key not encrypted, the chain from the leaf to the last intermediate."""

    key: str = field(repr=False)
    chain: str = field(repr=False)

    def leaf(self) -> x509.Certificate:
        """Parse the first certificate; ValueError when there is none."""
        return x509.load_pem_x509_certificate(self.chain.encode())

    def to_json(self) -> str:
        """Return ``{"chain": …, "key": …}``, what pillar reads by ``field``."""
        return json.dumps({"chain": self.chain, "key": self.key})


def from_json(text: str) -> Bundle | None:
    """Return the bundle of a JSON text, None when it holds none."""
    try:
        found = json.loads(text)
        key, chain = found["key"], found["chain"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Bundle(key, chain) if isinstance(key, str) and isinstance(chain, str) else None


def tidy(chain: str) -> str:
    """Return a CA's answer as plain PEM without the root; ValueError when it holds no certificate.

    CAs may put text, blank lines or CRLF between certificates, and private ones send their root,
    which nobody who does not have it already would trust.
    """
    certificates = x509.load_pem_x509_certificates(chain.encode())
    if len(certificates) > 1 and certificates[-1].issuer == certificates[-1].subject:
        certificates.pop()
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def ends_at(chain: str) -> str:
    """Return the common name of whoever issued the last certificate of a chain."""
    last = x509.load_pem_x509_certificates(chain.encode())[-1]
    names = last.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
