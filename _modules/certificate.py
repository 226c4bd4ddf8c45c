"""Verify certificate bundles and deploy them as a whole: a directory a version, one symlink.

Nothing reaches the disk before every check has passed, and what is live changes in one step. No
answer, change or error of this module holds a key; bundles are told apart by fingerprints.
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import itertools
import os
import pwd
import re
import shutil
from pathlib import Path

from salt.exceptions import CommandExecutionError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

__virtualname__ = "certificate"

DIRECTORY = "/etc/voice/tls"
KEPT = 3
VERSION_LENGTH = 16  # hexadecimal digits of the leaf's fingerprint that name a version
SMALLEST_RSA = 2048
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----[A-Za-z0-9+/=\n]+-----END \1-----\n?")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_OUR_PEM_KINDS = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}


def __virtual__():  # noqa: N807
    if HAS_CRYPTOGRAPHY:
        return __virtualname__
    return False, "python3-cryptography is missing from the minion's Python"


def inspect(name, directory=DIRECTORY):
    """
    Return what is deployed under a name, ``{"subject", "names", "serial", "not_after",
    "fingerprint", "version"}``, or None.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.inspect default
    """
    live = Path(directory) / _checked(name) / "current"
    try:
        chain = (live / "chain.pem").read_text()
        version = live.readlink().name
    except (OSError, UnicodeDecodeError):
        return None
    try:
        leaf = x509.load_pem_x509_certificate(chain.encode())
    except ValueError:
        raise CommandExecutionError(
            f"certificate {name}: {live}/chain.pem is no certificate; apply the state again"
        ) from None
    return {**_facts(leaf), "version": version}


def verify(name, chain, key, dns_names=None, directory=DIRECTORY):
    """
    Check a bundle and return the facts of its leaf; raise with one line if it may not be served.

    chain
        PEM certificates, the leaf first, each followed by its issuer.

    key
        The leaf's private key, PEM, not encrypted.

    dns_names
        DNS names the leaf must hold.

    directory
        Where the live one is, whose serial the error names.

    Never run this by hand with a real key: arguments end up in the job cache.

    CLI Example:

    .. code-block:: bash

        salt-call --local certificate.verify default chain="$(cat chain.pem)" key="$(cat key.pem)"
    """
    try:
        certificates = _chain(chain)
        private = _key(key)
        leaf = certificates[0]
        _check_pair(leaf, private)
        _check_leaf(leaf, dns_names or [])
        _check_order(certificates)
    except ValueError as err:
        raise CommandExecutionError(
            f"certificate {_checked(name)}: {err}{_kept(name, directory)}"
        ) from None
    return _facts(leaf)


def facts(chain):
    """
    Return what the first certificate of a PEM text says, without checking it.

    ``{"subject", "names", "serial", "not_after", "fingerprint"}``; the fingerprint is SHA-256.

    CLI Example:

    .. code-block:: bash

        salt-call --local certificate.facts "$(cat chain.pem)"
    """
    try:
        return _facts(x509.load_pem_x509_certificate(str(chain).encode()))
    except ValueError:
        raise CommandExecutionError("that is no certificate in PEM") from None


def directories(directory=DIRECTORY):
    """
    Return name -> directory of each certificate of pillar, as it is or is about to be deployed.

    The directory is named after the leaf's fingerprint, so a configuration that names it changes
    with the certificate. One that may not be served keeps the directory that is live.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.directories
    """
    found = {}
    for name in __salt__["pillar.get"]("certificates", {}):
        home = Path(directory) / _checked(name)
        try:
            bundle = _bundle(f"certificates:{name}")
            version = verify(name, bundle["chain"], bundle["key"])["fingerprint"][:VERSION_LENGTH]
            live = home / "current"
            if live.is_symlink() and live.readlink().name.startswith(version):
                version = live.readlink().name
            found[name] = str(home / version)
        except CommandExecutionError:
            live = home / "current"
            found[name] = str(home / live.readlink().name if live.is_symlink() else live)
    return found


def deploy(
    name,
    pillar_key=None,
    dns_names=None,
    directory=DIRECTORY,
    layout="plain",
    owner="root",
    test=False,
):
    """
    Deploy a bundle from pillar if it is not the live one.

    name
        Directory under ``directory``; ``<name>/current`` is the live version.

    pillar_key
        Where pillar holds ``chain`` and ``key``; ``certificates:<name>`` by default.

    dns_names
        DNS names the leaf must hold.

    layout
        ``plain`` (``chain.pem``, ``key.pem``) or ``sofia``, which has besides what FreeSWITCH's SIP
        stack reads: ``agent.pem`` (leaf and key), ``cafile.pem`` (the intermediates, which it
        sends from there), ``wss.pem`` (chain and key).

    owner
        User, and group of the same name, who may read it.

    Returns ``{"result", "comment", "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt '*' certificate.deploy default test=True
    """
    bundle = _bundle(pillar_key or f"certificates:{_checked(name)}")
    new = verify(name, bundle["chain"], bundle["key"], dns_names, directory)
    home = Path(directory) / name
    old = inspect(name, directory)
    files = _files(layout, bundle)
    if old and _same(home / "current", files):
        told = f"certificate {name} is deployed, ends {old['not_after']}"
        return {"result": True, "comment": told, "changes": {}}
    changes = {
        "certificate": {"old": _shown(old), "new": _shown(new)},
        # Whoever serves it goes on with what it has read; nothing is interrupted by the flip.
        "disruption": "none",
        "why": [f"certificate {name} {'replaced' if old else 'deployed'}"],
    }
    if test:
        told = f"certificate {name} would be deployed"
        return {"result": None, "comment": told, "changes": changes}
    try:
        ids = pwd.getpwnam(owner).pw_uid, grp.getgrnam(owner).gr_gid
        _write(home, new["fingerprint"][:VERSION_LENGTH], files, ids)
    except KeyError:
        raise CommandExecutionError(
            f"certificate {name}: no user and group {owner} on this node; install its package first"
        ) from None
    except OSError as err:
        raise CommandExecutionError(
            f"certificate {name}: cannot write {home}: {err.strerror}; the old one is live"
        ) from None
    return {"result": True, "comment": f"certificate {name} deployed", "changes": changes}


# -- the checks, in the order a person would make them -------------------------------------------


def _blocks(text, what):
    """Return (kind, PEM) of each block; ValueError when there is anything else around them."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{what} is empty")
    if text.strip() in ("False", "None", "**********"):
        raise ValueError(f"{what} holds a placeholder instead of PEM; is the secret readable?")
    if "-----BEGIN" not in text:
        raise ValueError(f"{what} is not PEM")
    if "\r" in text:
        raise ValueError(f"{what} has CRLF line ends; convert it with dos2unix")
    found = [(match[1], match[0]) for match in _PEM.finditer(text)]
    if not found:
        raise ValueError(f"{what} is not PEM")
    if _PEM.sub("", text).strip():
        raise ValueError(f"{what} has bytes outside its PEM blocks")
    return found


def _chain(text):
    certificates = []
    for kind, pem in _blocks(text, "chain"):
        if "PRIVATE KEY" in kind:
            raise ValueError("chain holds a private key; key and chain are swapped or joined")
        if kind != "CERTIFICATE":
            raise ValueError(f"chain holds a {kind.lower()} block; only certificates belong there")
        try:
            certificates.append(x509.load_pem_x509_certificate(pem.encode()))
        except ValueError:
            raise ValueError(
                f"certificate {len(certificates) + 1} of the chain is damaged"
            ) from None
    return certificates


def _key(text):
    blocks = _blocks(text, "key")
    kind = blocks[0][0]
    if kind == "CERTIFICATE":
        raise ValueError("key holds a certificate; key and chain are swapped")
    if "ENCRYPTED" in kind or "ENCRYPTED" in text:
        raise ValueError("key is encrypted; store it in clear in the secret store")
    if len(blocks) != 1 or kind not in _OUR_PEM_KINDS:
        raise ValueError("key is not one private key in PEM")
    try:
        return serialization.load_pem_private_key(blocks[0][1].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("key is damaged or of a kind that is not supported") from None


def _check_pair(leaf, private):
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*public) != leaf.public_key().public_bytes(*public):
        raise ValueError(f"key does not match leaf {_subject(leaf)}")
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < SMALLEST_RSA:
            raise ValueError(f"RSA key has {private.key_size} bits, {SMALLEST_RSA} are the least")
    elif not isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise ValueError("key is neither RSA, ECDSA nor Ed25519")


def _check_leaf(leaf, names):
    now = datetime.datetime.now(datetime.UTC)
    if leaf.not_valid_after_utc <= now:
        raise ValueError(f"{_subject(leaf)} expired {leaf.not_valid_after_utc:%Y-%m-%d}")
    if leaf.not_valid_before_utc > now:
        raise ValueError(f"{_subject(leaf)} is not valid before {leaf.not_valid_before_utc:%F %T}Z")
    if _is_authority(leaf):
        raise ValueError(f"{_subject(leaf)} comes first but is a CA; put the leaf first")
    algorithm = leaf.signature_hash_algorithm
    if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
        raise ValueError(f"{_subject(leaf)} is signed with {algorithm.name}")
    have = _names(leaf)
    missing = [name for name in names if not any(_covers(pattern, name) for pattern in have)]
    if missing:
        raise ValueError(f"{_subject(leaf)} does not hold the name {missing[0]}")


def _check_order(certificates):
    """Each certificate is followed by its issuer, and the root is left out."""
    now = datetime.datetime.now(datetime.UTC)
    for one, issuer in itertools.pairwise(certificates):
        if one.issuer != issuer.subject:
            raise ValueError(f"{_subject(issuer)} follows {_subject(one)} but did not issue it")
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise ValueError(f"{_subject(one)} was not signed by {_subject(issuer)}") from None
        if not _is_authority(issuer):
            raise ValueError(f"{_subject(issuer)} is no CA but stands as an issuer")
        if issuer.not_valid_after_utc <= now:
            raise ValueError(f"intermediate {_subject(issuer)} has expired")
    if len(certificates) > 1 and certificates[-1].issuer == certificates[-1].subject:
        raise ValueError("the chain ends in a root; leave it out, clients have their own")


def _is_authority(certificate):
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(leaf):
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return found.get_values_for_type(x509.DNSName)


def _covers(pattern, name):
    """A wildcard stands for exactly one label."""
    if pattern.startswith("*."):
        return name.partition(".")[2].lower() == pattern[2:].lower()
    return pattern.lower() == name.lower()


# -- facts and files -----------------------------------------------------------------------------


def _subject(certificate):
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def _facts(leaf):
    return {
        "subject": _subject(leaf),
        "names": _names(leaf),
        "serial": f"{leaf.serial_number:x}",
        "not_after": f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex(),
    }


def _shown(found):
    return found and {key: found[key] for key in ("subject", "serial", "not_after", "fingerprint")}


def _kept(name, directory):
    try:
        old = inspect(name, directory)
    except CommandExecutionError:
        return ""
    return f"; kept serial {old['serial']}" if old else ""


def _checked(name):
    if not _NAME.fullmatch(str(name)):
        raise CommandExecutionError("a certificate's name may hold only a-z, 0-9, - and _")
    return name


def _bundle(key):
    """Read chain and key from pillar, unmasked: a masked value must never reach a file."""
    found = __salt__["pillar.get"](key, {}, unmask=True)
    if not isinstance(found, dict) or not {"chain", "key"} <= set(found):
        raise CommandExecutionError(f"pillar {key} must hold chain and key")
    return {"chain": str(found["chain"]), "key": str(found["key"])}


def _files(layout, bundle):
    """Return file name -> content of a layout."""
    chain, key = _ended(bundle["chain"]), _ended(bundle["key"])
    files = {"chain.pem": chain, "key.pem": key}
    if layout == "plain":
        return files
    if layout != "sofia":
        raise CommandExecutionError("a certificate's layout is plain or sofia")
    leaf, *issuers = (pem for _, pem in _blocks(chain, "chain"))
    # Without a cafile.pem FreeSWITCH signs a certificate of its own and serves that.
    issuers = "".join(map(_ended, issuers)) or leaf
    return {**files, "agent.pem": _ended(leaf) + key, "cafile.pem": issuers, "wss.pem": chain + key}


def _same(live, files):
    try:
        return all((live / name).read_text() == text for name, text in files.items())
    except (OSError, UnicodeDecodeError):
        return False


def _ended(text):
    return text.rstrip("\n") + "\n"


def _write(home, version, files, ids):
    """Write a version and flip ``current`` to it; a failure leaves no trace of it."""
    home.mkdir(mode=0o755, exist_ok=True, parents=True)
    target = _free(home / version)
    unfinished, link = home / f".{target.name}.unfinished", home / ".current.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, *ids)
        for name, text in files.items():
            descriptor = os.open(unfinished / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                os.fchown(descriptor, *ids)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        _sync(unfinished)
        unfinished.rename(target)
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        link.replace(home / "current")
    except OSError:
        for directory in (unfinished, target):
            shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
        raise
    _sync(home)
    _prune(home, target.name)


def _free(target):
    """Return a name nothing has yet: what is live, even damaged, is replaced by the flip alone."""
    names = itertools.chain(
        [target], (target.with_name(f"{target.name}-{n}") for n in itertools.count(2))
    )
    return next(name for name in names if not name.exists())


def _prune(home, version):
    """Keep the live version and the newest before it."""
    versions = [path for path in home.iterdir() if path.is_dir() and not path.is_symlink()]
    old = sorted((p for p in versions if p.name != version), key=lambda p: p.stat().st_mtime)
    for path in old[: max(0, len(old) - KEPT + 1)]:
        with contextlib.suppress(OSError):
            shutil.rmtree(path)


def _sync(directory):
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
