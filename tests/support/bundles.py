"""Certificates for tests: issued in a line, and their PEM."""

import datetime
import ipaddress
import warnings
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
NAMES = ["sip.example.org", "*.voice.example.org"]
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("leaf", "ca", "root", "other")}


def subject(name: str) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what we do on purpose
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])


def issue(name: str, key: Any, issuer: str, signer: Any, **settings: Any) -> x509.Certificate:
    """One certificate.

    ``settings`` may hold ca, path_length, names, addresses, begins, ends, serial, and more:
    extensions, each (value, critical).
    """
    public = (
        key if hasattr(key, "public_numbers") and not hasattr(key, "sign") else key.public_key()
    )
    ca = settings.get("ca", False)
    length = settings.get("path_length")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer))
        .public_key(public)
        .serial_number(settings.get("serial") or x509.random_serial_number())
        .not_valid_before(settings.get("begins", NOW - DAY))
        .not_valid_after(settings.get("ends", NOW + 30 * DAY))
        .add_extension(x509.BasicConstraints(ca, length), critical=True)
    )
    held: list[x509.GeneralName] = [x509.DNSName(name) for name in settings.get("names") or ()]
    for address in settings.get("addresses") or ():
        held.append(x509.IPAddress(ipaddress.ip_address(address)))
    if held:
        builder = builder.add_extension(x509.SubjectAlternativeName(held), critical=False)
    for value, critical in settings.get("more", ()):
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, hashes.SHA256())


def leaf(**settings: Any) -> x509.Certificate:
    """A leaf that ``CA`` issued."""
    key = settings.pop("key", KEYS["leaf"])
    return issue("sip", key, "ca", KEYS["ca"], **{"names": NAMES, **settings})


def authority(**settings: Any) -> x509.Certificate:
    """The intermediate that issues leaves."""
    key = settings.pop("key", KEYS["ca"])
    return issue("ca", key, "root", KEYS["root"], **{"ca": True, **settings})


def pem(*things: Any) -> str:
    """The PEM of certificates and keys, joined."""
    return "".join(_pem(thing) for thing in things)


def _pem(thing: Any) -> str:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return private(thing)


def private(
    key: Any,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    password: bytes | None = None,
) -> str:
    """The PEM of a private key."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


CA = authority()
ROOT = issue("root", KEYS["root"], "root", KEYS["root"], ca=True)
LEAF = leaf()
GOOD = {"chain": pem(LEAF, CA), "key": pem(KEYS["leaf"])}


def renewed(**settings: Any) -> dict[str, str]:
    """Another good bundle of the same key."""
    return {"chain": pem(leaf(**settings), CA), "key": GOOD["key"]}
