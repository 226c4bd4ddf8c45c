"""Decide whether a certificate bundle, a chain and its key in PEM, may be served.

Nothing is read or written here. Every fault is a ``ValueError`` of one line that says what to do
about it and never holds a key. The first fault is told: in the order in which a person would look,
text before structure, the leaf before its issuers, what is broken before what is not wanted.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import itertools
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    # Whatever a certificate that is not well formed may raise when it is looked at.
    FAULTS = (
        *(ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension),
        *(x509.InvalidVersion, x509.UnsupportedGeneralNameType),
    )
    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
PLACEHOLDERS = ("False", "None", "null", "**********")
LARGEST = {"chain": 64 * 1024, "key": 16 * 1024}  # characters
MOST_CERTIFICATES = 10
LONGEST_NAME = 120  # characters of a subject in an error
SMALLEST_RSA, LARGEST_RSA = 2048, 8192  # bits; a handshake with more takes too long
SMALLEST_EXPONENT = 65537
CURVES = ("secp256r1", "secp384r1", "secp521r1")
USAGES = ("server", "client", "both", "any")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n((?:[A-Za-z0-9+/=]+\n)+)-----END \1-----\n?")
_KEYS = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}
_DATE = "%Y-%m-%d"
_SECOND = "%Y-%m-%dT%H:%M:%SZ"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_WEAK_DIGESTS = ("md5", "sha1")


def __virtual__():  # noqa: N807
    if HAS_CRYPTOGRAPHY:
        return True
    return False, "python3-cryptography is missing from this Python"


def verify(
    chain: str,
    key: str,
    dns_names: Iterable[str] | None = None,
    *,
    addresses: Iterable[str] = (),
    minimum_days: int = 0,
    self_signed: bool = False,
    authority: str | None = None,
    usage: str = "server",
    partial: bool = False,
    now: datetime.datetime | None = None,
) -> dict:
    """Return the ``facts`` of a bundle's leaf; ``ValueError`` if the bundle may not be served.

    The leaf must hold ``dns_names`` and ``addresses``, be valid for another ``minimum_days`` and be
    meant for ``usage``: server, client, both or any. A self-signed leaf is refused unless
    ``self_signed``. The chain must end with what ``authority`` issued: PEM roots, or ``system`` for
    those of Debian. Without an authority it must at least hold one issuer, unless ``partial``.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    with warnings.catch_warnings():
        # It warns of serial numbers and dates that we refuse ourselves, or of old algorithms.
        warnings.simplefilter("ignore")
        certificates = _chain(chain)
        leaf = certificates[0]
        _check_pair(leaf, _key(key))
        _check_leaf(leaf, now, minimum_days)
        _check_usage(leaf, usage)
        _check_names(leaf, list(dns_names or ()), list(addresses))
        for one in certificates:
            _check_strength(one)
            _check_extensions(one)
        _check_order(certificates)
        for one in certificates[1:]:
            _check_issuer(one, now)
        _check_constraints(certificates)
        _check_end(certificates, authority, self_signed, partial)
        return _facts(leaf)


def facts(chain: str) -> dict:
    """Return what the first certificate of a PEM text says, unchecked; ``ValueError`` for none.

    ``{"subject", "issuer", "names", "serial", "not_before", "not_after", "fingerprint"}``; the
    fingerprint is SHA-256 in hexadecimal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _facts(x509.load_pem_x509_certificate(str(chain).encode()))
        except FAULTS:
            raise ValueError("that is no certificate in PEM") from None


def parts(chain: str) -> list[str]:
    """Return each certificate of a chain as a PEM text of its own; ``ValueError`` for no chain."""
    return [_ended(pem) for _, pem in _blocks(chain, "chain")]


# -- text ----------------------------------------------------------------------------------------


def _chain(text: str) -> list[x509.Certificate]:
    """Return the certificates of a chain; ``ValueError`` for anything else in it."""
    certificates, seen = [], {}
    for number, (kind, pem) in enumerate(_blocks(text, "chain"), 1):
        if "PRIVATE KEY" in kind and number == 1:
            raise ValueError("chain holds a private key; key and chain are swapped")
        if "PRIVATE KEY" in kind:
            raise ValueError("chain has a private key behind its certificates; take it out")
        if kind != "CERTIFICATE":
            raise ValueError(f"chain holds a {kind.lower()} block; only certificates belong there")
        one = _certificate(pem, number)
        if one in seen:
            raise ValueError(f"certificate {number} of the chain is certificate {seen[one]} again")
        seen[one] = number
        certificates.append(one)
    if len(certificates) > MOST_CERTIFICATES:
        raise ValueError(
            f"chain has {len(certificates)} certificates, {MOST_CERTIFICATES} are the most;"
            " is it a bundle of roots?"
        )
    return certificates


def _certificate(pem: str, number: int) -> x509.Certificate:
    what = f"certificate {number} of the chain"
    der = _decoded(pem, what)
    length = _der_length(der)
    if length is not None and length < len(der):
        raise ValueError(f"{what} has {len(der) - length} bytes behind its end; export it anew")
    if length is not None and length > len(der):
        raise ValueError(f"{what} is cut off, {length - len(der)} bytes are missing")
    try:
        found = x509.load_der_x509_certificate(der)
        # All that is looked at later is parsed here, where a fault means a damaged certificate.
        _ = found.subject.rfc4514_string(), found.issuer.rfc4514_string(), list(found.extensions)
        _ = found.public_key(), found.not_valid_after_utc, found.version
    except x509.DuplicateExtension:
        raise ValueError(f"{what} has an extension twice; have it issued anew") from None
    except x509.InvalidVersion:
        raise ValueError(f"{what} is of a version that does not exist") from None
    except UnsupportedAlgorithm:
        raise ValueError(f"{what} has a key of a kind or curve that is not supported") from None
    except x509.UnsupportedGeneralNameType:
        raise ValueError(f"{what} has a name that is neither of DNS nor an address") from None
    except (ValueError, TypeError):
        raise ValueError(f"{what} is damaged; export it anew") from None
    if not der.endswith(b"\0" + found.signature):  # the signature does not cover its own frame
        raise ValueError(f"{what} is damaged around its signature; export it anew")
    if found.version is not x509.Version.v3:
        raise ValueError(f"{what} is of version 1; have it issued as version 3, with its names")
    if found.serial_number <= 0:
        raise ValueError(f"{what} has a serial number that is not positive")
    return found


def _key(text: str) -> PrivateKeyTypes:
    """Return the private key of a text; ``ValueError`` for anything but one in clear."""
    blocks = _blocks(text, "key")
    kinds = [kind for kind, _ in blocks]
    if kinds[0] == "CERTIFICATE":
        raise ValueError("key holds a certificate; key and chain are swapped")
    if "EC PARAMETERS" in kinds or "DH PARAMETERS" in kinds:
        found = next(kind for kind in kinds if kind.endswith("PARAMETERS"))
        raise ValueError(f"key has a block {found} beside it; keep the private key alone")
    if any("ENCRYPTED" in kind for kind in kinds):
        raise ValueError("key is encrypted; store it in clear in the secret store")
    if len(kinds) > 1 and all(kind in _KEYS for kind in kinds):
        raise ValueError(f"key holds {len(kinds)} private keys; keep the one of the leaf")
    if "CERTIFICATE" in kinds:
        raise ValueError("key has a certificate behind it; certificates belong into the chain")
    if kinds[0] == "OPENSSH PRIVATE KEY":
        raise ValueError("key is an OpenSSH key; convert it with ssh-keygen -p -m PEM")
    if len(kinds) != 1 or kinds[0] not in _KEYS:
        strange = next(kind for kind in kinds if kind not in _KEYS)
        raise ValueError(f"key holds a {strange.lower()} block; only a private key belongs there")
    _decoded(blocks[0][1], "key")
    try:
        return serialization.load_pem_private_key(blocks[0][1].encode(), password=None)
    except UnsupportedAlgorithm:
        raise ValueError("key is of a kind or curve that is not supported") from None
    except (ValueError, TypeError):
        raise ValueError("key is damaged; export it anew") from None


def _blocks(text: str, what: str) -> list[tuple[str, str]]:
    """Return (kind, PEM) of each block; ``ValueError`` when there is anything else around them."""
    _check_text(text, what)
    found = [(match[1], match[0]) for match in _PEM.finditer(text)]
    if text.count("-----BEGIN ") > len(found):
        raise ValueError(_broken(text, what))
    if not found:
        raise ValueError(f"{what} has no line -----BEGIN …-----")
    if _PEM.sub("", text).strip():
        raise ValueError(f"{what} has text outside its PEM blocks; keep the blocks alone")
    return found


def _check_text(text: str, what: str) -> None:
    if isinstance(text, bytes | bytearray):
        raise ValueError(f"{what} is bytes; store it as text in PEM")
    if not isinstance(text, str):
        raise ValueError(f"{what} is not a text but {type(text).__name__}")
    if not text:
        raise ValueError(f"{what} is empty")
    if not text.strip():
        raise ValueError(f"{what} is nothing but blanks")
    if text.strip() in PLACEHOLDERS:
        raise ValueError(f"{what} holds a placeholder instead of PEM; is the secret readable?")
    if len(text) > LARGEST[what]:
        raise ValueError(f"{what} has {len(text)} characters, {LARGEST[what]} are the most")
    if "\0" in text:
        raise ValueError(f"{what} has NUL bytes; is it binary or UTF-16? store it as PEM")
    if text.startswith("\ufeff"):
        raise ValueError(f"{what} starts with a byte order mark; save it as UTF-8 without one")
    if "-----BEGIN" not in text:
        raise ValueError(f"{what} is not PEM{_instead(text)}")
    if not text.isascii():
        raise ValueError(
            f"{what} has characters that are not ASCII; was it pasted from a document?"
        )
    if "\r" in text:
        raise ValueError(f"{what} has CRLF line ends; convert it with dos2unix")
    if "\\n" in text:
        raise ValueError(f"{what} has \\n written out in place of line ends; store real ones")
    if text.lstrip()[0] in "{[\"'":
        raise ValueError(f"{what} is PEM inside JSON or quotes; name its field or take them off")
    if "Proc-Type:" in text:
        encrypted = "ENCRYPTED" in text
        raise ValueError(
            f"{what} is encrypted (Proc-Type); store it in clear in the secret store"
            if encrypted
            else f"{what} has header lines inside a block; export it anew"
        )


def _instead(text: str) -> str:
    """Say what a text without PEM seems to be."""
    if "-----END" in text:
        return "; its first lines are missing"
    if text.lstrip()[0] in "{[":
        return " but JSON; name its field in the secret's declaration"
    if text.lstrip().startswith(("/", "file:", "arn:")):
        return " but where it would be found; store the text itself"
    if text.startswith("PuTTY-User-Key-File"):
        return " but a PuTTY key; convert it with puttygen"
    if text.startswith(("b'0", 'b"0')) or (text.startswith("0") and not text.isprintable()):
        return " but DER; convert it with openssl x509 -inform DER"
    try:
        der = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return ""
    if not der.startswith(b"0"):
        return ""
    if b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02" in der[:24]:
        return " but PKCS #7; convert it with openssl pkcs7 -print_certs"
    if b"\x02\x01\x03" in der[:8]:
        return " but PKCS #12; convert it with openssl pkcs12 -nodes"
    return " but its base64 alone; put its BEGIN and END lines around it"


def _broken(text: str, what: str) -> str:
    """Say why a text with a BEGIN line is no block."""
    if re.search(r"^[ \t]+-----BEGIN |^[ \t]+[A-Za-z0-9+/=]", text, re.MULTILINE):
        return f"{what} has indented lines; take the blanks off"
    if text.count("-----BEGIN ") != text.count("-----END "):
        return f"{what} has a block without its END line; is it cut off?"
    if re.search(r"\n[ \t]*\n[A-Za-z0-9+/=]+[ \t]*\n", text):
        return f"{what} has an empty line inside a block"
    if re.search(r"[ \t]$", text, re.MULTILINE):
        return f"{what} has blanks at line ends; take them off"
    begins = re.findall(r"-----BEGIN ([^\n-]*)-----", text)
    ends = re.findall(r"-----END ([^\n-]*)-----", text)
    if begins != ends:
        return f"{what} has a block whose END line is that of another kind"
    return f"{what} has a block with characters that are not base64, or no line of its own"


def _decoded(pem: str, what: str) -> bytes:
    body = _PEM.fullmatch(pem)[2].replace("\n", "")
    try:
        der = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{what} is not base64 of whole bytes; is it cut off?") from None
    if base64.b64encode(der).decode() != body:
        raise ValueError(f"{what} has stray bits in its base64; export it anew")
    return der


def _der_length(der: bytes) -> int | None:
    """Return how long a DER sequence says it is; None when it says nothing of the kind."""
    if len(der) < 2 or der[0] != 0x30:
        return None
    if der[1] < 0x80:
        return 2 + der[1]
    count = der[1] & 0x7F
    if not 1 <= count <= 4 or len(der) < 2 + count:
        return None
    return 2 + count + int.from_bytes(der[2 : 2 + count], "big")


# -- the leaf ------------------------------------------------------------------------------------


def _check_pair(leaf: x509.Certificate, private: PrivateKeyTypes) -> None:
    if not isinstance(
        private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise ValueError(f"key is {_kind(private.public_key())}, not RSA, ECDSA or Ed25519")
    kinds = _kind(private.public_key()), _kind(leaf.public_key())
    if kinds[0] != kinds[1]:
        raise ValueError(f"key is {kinds[0]}, that of leaf {_subject(leaf)} is {kinds[1]}")
    if _public(private.public_key()) != _public(leaf.public_key()):
        raise ValueError(f"key does not match leaf {_subject(leaf)}")


def _kind(public: PublicKeyTypes) -> str:
    """Return what people call a kind of keys."""
    name = type(public).__name__.removesuffix("PublicKey").lstrip("_")
    return {"EllipticCurve": "ECDSA", "EC": "ECDSA"}.get(name, name)


def _public(key: PublicKeyTypes) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)


def _check_leaf(leaf: x509.Certificate, now: datetime.datetime, minimum_days: int) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if begins >= ends:
        raise ValueError(f"{_subject(leaf)} ends before it begins; have it issued anew")
    if ends <= now:
        raise ValueError(f"{_subject(leaf)} expired {ends:{_DATE}}")
    if begins > now:
        raise ValueError(f"{_subject(leaf)} is not valid before {begins:{_SECOND}}")
    if ends < now + datetime.timedelta(days=minimum_days):
        raise ValueError(
            f"{_subject(leaf)} ends {ends:{_DATE}}, in less than the {minimum_days} days that"
            " minimum_days asks for; renew it"
        )
    if _is_authority(leaf):
        raise ValueError(f"{_subject(leaf)} comes first but is a CA; put the leaf first")
    if _extension(leaf, "PrecertPoison") is not None:
        raise ValueError(f"{_subject(leaf)} is a precertificate; take the certificate itself")


def _check_usage(leaf: x509.Certificate, usage: str) -> None:
    if usage not in USAGES:
        raise ValueError(f"usage is none of {', '.join(USAGES)}")
    allowed = _extension(leaf, "KeyUsage")
    if allowed is not None and not allowed.digital_signature:
        raise ValueError(f"{_subject(leaf)} lacks key usage digitalSignature, which TLS needs")
    meant = _extension(leaf, "ExtendedKeyUsage")
    if meant is None or usage == "any" or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in meant:
        return
    needed = {
        "server": {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH},
        "client": {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH},
    }
    needed["both"] = {**needed["server"], **needed["client"]}
    for name, purpose in needed[usage].items():
        if purpose not in meant:
            raise ValueError(f"{_subject(leaf)} lacks extended key usage {name}")


def _check_names(leaf: x509.Certificate, names: list[str], addresses: list[str]) -> None:
    have = _names(leaf)
    held = _addresses(leaf)
    wanted = [name for name in names if not _is_address(name)]
    addresses = [*addresses, *(name for name in names if _is_address(name))]
    for name in have:
        labels = name.split(".")
        rest = labels[1:] if labels[0] == "*" else labels
        if "*" in "".join(rest) or (labels[0] == "*" and len(rest) < 2):
            raise ValueError(
                f"{_subject(leaf)} has the wildcard {name!r}; only *.example.org, one label deep,"
                " is understood"
            )
        if not all(_LABEL.fullmatch(label) for label in rest):
            raise ValueError(f"{_subject(leaf)} has {name!r} among its names, which is none of DNS")
    if (wanted or addresses) and not have and not held:
        raise ValueError(f"{_subject(leaf)} has no subject alternative names, but must hold some")
    for name in wanted:
        if not any(_covers(pattern, name) for pattern in have):
            near = " (a wildcard stands for one label)" if _is_near(have, name) else ""
            raise ValueError(f"{_subject(leaf)} does not hold the name {name}{near}")
    for address in addresses:
        if not _is_address(address):
            raise ValueError(f"{address} is to be among the addresses but is none")
        if ipaddress.ip_address(address) not in held:
            raise ValueError(f"{_subject(leaf)} does not hold the address {address}")


def _names(leaf: x509.Certificate) -> list[str]:
    found = _extension(leaf, "SubjectAlternativeName")
    return [] if found is None else found.get_values_for_type(x509.DNSName)


def _addresses(leaf: x509.Certificate) -> list[Address]:
    found = _extension(leaf, "SubjectAlternativeName")
    return [] if found is None else found.get_values_for_type(x509.IPAddress)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _covers(pattern: str, name: str) -> bool:
    """Tell whether a name of a certificate covers one; a wildcard stands for exactly one label."""
    pattern, name = pattern.lower(), name.lower().rstrip(".")
    if pattern.startswith("*."):
        label, _, rest = name.partition(".")
        return (bool(label) and label != "*" and rest == pattern[2:]) or name == pattern
    return pattern == name


def _is_near(have: list[str], name: str) -> bool:
    """Tell whether a wildcard looks as if it covered a name, and does not."""
    return any(
        one.startswith("*.") and f".{name}".lower().endswith(one[1:].lower()) for one in have
    )


# -- the chain -----------------------------------------------------------------------------------


def _check_order(certificates: list[x509.Certificate]) -> None:
    """Have each certificate followed by its issuer."""
    for number, (one, following) in enumerate(itertools.pairwise(certificates), 2):
        if one.issuer == one.subject:
            what = "leaf" if number == 2 else "root"
            raise ValueError(f"{_subject(one)} is a self-signed {what}, but more follows it")
        if one.issuer != following.subject:
            elsewhere = [
                at for at, other in enumerate(certificates, 1) if other.subject == one.issuer
            ]
            if elsewhere:
                raise ValueError(
                    f"chain is out of order: {_subject(one)} was issued by certificate"
                    f" {elsewhere[0]} but is followed by {_subject(following)}"
                )
            raise ValueError(
                f"{_subject(following)} follows {_subject(one)} but did not issue it;"
                f" {_name(one.issuer)} is missing"
            )
        if not _issued(one, following):
            raise ValueError(
                f"{_subject(one)} was not signed by {_subject(following)} that follows it, but by"
                " another of this name"
            )
        known, own = (
            _key_id(one, "AuthorityKeyIdentifier"),
            _key_id(following, "SubjectKeyIdentifier"),
        )
        if known and own and known != own:
            raise ValueError(
                f"{_subject(one)} names another key identifier than {_subject(following)} has;"
                " OpenSSL does not join them"
            )
    if len(certificates) > 1 and certificates[-1].issuer == certificates[-1].subject:
        raise ValueError("the chain ends in a root; leave it out, clients have their own")


def _check_issuer(one: x509.Certificate, now: datetime.datetime) -> None:
    who = f"intermediate {_subject(one)}"
    if not _is_authority(one):
        raise ValueError(f"{who} is no CA but stands as an issuer")
    allowed = _extension(one, "KeyUsage")
    if allowed is not None and not allowed.key_cert_sign:
        raise ValueError(f"{who} lacks key usage keyCertSign")
    if one.not_valid_after_utc <= now:
        raise ValueError(f"{who} has expired {one.not_valid_after_utc:{_DATE}}")
    if one.not_valid_before_utc > now:
        raise ValueError(f"{who} is not valid before {one.not_valid_before_utc:{_SECOND}}")
    meant = _extension(one, "ExtendedKeyUsage")
    tls = {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
    if meant is not None and not tls.intersection(meant):
        raise ValueError(f"{who} may issue for other purposes than TLS only")


def _check_strength(one: x509.Certificate) -> None:
    """Refuse keys and signatures that clients refuse, of issuers as of the leaf."""
    who, public = _subject(one), one.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < SMALLEST_RSA:
            raise ValueError(
                f"RSA key of {who} has {public.key_size} bits, {SMALLEST_RSA} are the least"
            )
        if public.key_size > LARGEST_RSA:
            raise ValueError(
                f"RSA key of {who} has {public.key_size} bits, {LARGEST_RSA} are the most"
            )
        exponent = public.public_numbers().e
        if exponent < SMALLEST_EXPONENT:
            raise ValueError(
                f"RSA key of {who} has the exponent {exponent}, {SMALLEST_EXPONENT} is the least"
            )
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in CURVES:
            raise ValueError(f"curve {public.curve.name} of {who} is none of {', '.join(CURVES)}")
    elif not isinstance(public, ed25519.Ed25519PublicKey):
        raise ValueError(f"key of {who} is {_kind(public)}, not RSA, ECDSA or Ed25519")
    digest = _digest(one)
    if digest in _WEAK_DIGESTS:
        raise ValueError(f"{who} is signed with {digest}; have it issued with SHA-256")


def _digest(one: x509.Certificate) -> str | None:
    """Return the name of the digest that a certificate is signed with; Ed25519 has none."""
    try:
        found = one.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise ValueError(f"{_subject(one)} is signed in a way that is not supported") from None
    return found.name if found else None


def _check_extensions(one: x509.Certificate) -> None:
    for extension in one.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise ValueError(
                f"{_subject(one)} has the critical extension {extension.oid.dotted_string},"
                " which clients do not know and refuse"
            )


def _check_constraints(certificates: list[x509.Certificate]) -> None:
    """Look at what issuers allow below them: how many, and which names."""
    leaf = certificates[0]
    for below, one in enumerate(certificates[1:]):
        longest = _extension(one, "BasicConstraints").path_length
        if longest is not None and below > longest:
            raise ValueError(
                f"{_subject(one)} allows {longest} intermediates below it, the chain has {below}"
            )
        limits = _extension(one, "NameConstraints")
        if limits is None:
            continue
        for name in [*_names(leaf), *_addresses(leaf)]:
            if not _is_allowed(name, limits):
                raise ValueError(f"name constraints of {_subject(one)} do not allow {name}")


def _is_allowed(name: str | Address, limits: x509.NameConstraints) -> bool:
    """Tell whether name constraints allow a DNS name or an address."""
    form = x509.DNSName if isinstance(name, str) else x509.IPAddress
    permitted, excluded = (
        [one.value for one in trees or () if isinstance(one, form)]
        for trees in (limits.permitted_subtrees, limits.excluded_subtrees)
    )
    if any(_is_below(name, tree) for tree in excluded):
        return False
    return not permitted or any(_is_below(name, tree) for tree in permitted)


def _is_below(name: str | Address, tree: str | Network) -> bool:
    if not isinstance(name, str):
        return name in tree
    name, tree = name.lower().removeprefix("*."), tree.lower().lstrip(".")
    return not tree or name == tree or name.endswith(f".{tree}")


def _check_end(certificates: list, authority: str | None, self_signed: bool, partial: bool) -> None:
    """Look at where a chain ends: with what clients can join to a root of theirs."""
    last = certificates[-1]
    if last.issuer == last.subject:
        if not _issued(last, last):
            raise ValueError(f"{_subject(last)} names itself as its issuer but did not sign it")
        if not self_signed:
            raise ValueError(
                f"{_subject(last)} is self-signed; where that is meant, say self_signed: true"
            )
        return
    if authority:
        roots = _roots(authority)
        if not any(root.subject == last.issuer and _issued(last, root) for root in roots):
            whose = "this system's roots" if authority == "system" else "the roots of its authority"
            raise ValueError(
                f"{_name(last.issuer)} that issued {_subject(last)} is neither in the chain nor"
                f" among {whose}; add what is missing between"
            )
    elif len(certificates) == 1 and not partial:
        raise ValueError(
            f"chain is the leaf alone: {_name(last.issuer)} that issued it is missing; add the"
            " intermediates, or name a root that issues leaves as its authority"
        )


def _roots(authority: str) -> list[x509.Certificate]:
    if authority == "system":
        try:
            authority = Path(SYSTEM_ROOTS).read_text()
        except OSError:
            raise ValueError(f"{SYSTEM_ROOTS} is missing; install ca-certificates") from None
    try:
        return x509.load_pem_x509_certificates(str(authority).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("authority holds no certificates in PEM") from None


def _issued(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _key_id(one: x509.Certificate, name: str) -> bytes | None:
    found = _extension(one, name)
    return found and (found.key_identifier or None)


# -- facts ---------------------------------------------------------------------------------------


def _facts(leaf: x509.Certificate) -> dict:
    return {
        "subject": _subject(leaf),
        "issuer": _name(leaf.issuer),
        "names": [*_names(leaf), *map(str, _addresses(leaf))],
        "serial": f"{leaf.serial_number:x}",
        "not_before": f"{leaf.not_valid_before_utc:{_SECOND}}",
        "not_after": f"{leaf.not_valid_after_utc:{_SECOND}}",
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
    }


def _is_authority(one: x509.Certificate) -> bool:
    found = _extension(one, "BasicConstraints")
    return found is not None and found.ca


def _extension(one: x509.Certificate, name: str) -> x509.ExtensionType | None:
    try:
        return one.extensions.get_extension_for_class(getattr(x509, name)).value
    except x509.ExtensionNotFound:
        return None


def _subject(one: x509.Certificate) -> str:
    return _name(one.subject) or f"serial {one.serial_number:x}"


def _name(name: x509.Name) -> str:
    """Return a distinguished name in one line that can be printed."""
    text = name.rfc4514_string()
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _ended(text: str) -> str:
    return text.rstrip("\n") + "\n"
