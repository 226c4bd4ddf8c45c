"""Seal the secrets of a pillar to the one minion that is given them, and keep them out of words.

Pillar is shown by more than its masked functions: by ``pillar.raw``, ``config.get``, a runner, a
cache on disk, whatever prints it. Sealed, it shows nothing anywhere: only the minion's private key
opens a value, where it is written to a file. The master seals with the key it accepted of that
minion; each value is bound to the minion's id and its own name.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

MARK = "sealed:"
SHORTEST = 4  # characters; a PIN of three would blot out whatever has these digits


def seal(values: dict, public_key: str, minion_id: str) -> dict:
    """Return the same names with sealed values; None, an optional secret that is not, stays None.

    Raises ``ValueError`` when ``public_key`` is no PEM of RSA.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    secret = AESGCM.generate_key(256)
    wrapped = _text(load_pem_public_key(public_key.encode()).encrypt(secret, _padding()))
    sealed = {}
    for name, value in values.items():
        nonce = os.urandom(12)
        plain = json.dumps(value).encode()
        held = nonce + AESGCM(secret).encrypt(nonce, plain, _bound(minion_id, name))
        sealed[name] = None if value is None else f"{MARK}{wrapped}:{_text(held)}"
    return sealed


def withheld(values: dict) -> dict:
    """Return the same names with values that nobody can open."""
    return {name: None if value is None else MARK for name, value in values.items()}


def opened(values: dict) -> dict:
    """Return the values of pillar ``secret_values`` as this minion's key opens them.

    One that is not sealed stays as it is. Raises ``ValueError`` naming secret and remedy.
    """
    return {name: _opened(name, value) for name, value in values.items()}


def _opened(name: str, value: object) -> object:
    if not (isinstance(value, str) and value.startswith(MARK)):
        return value
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    wrapped, _, held = value.removeprefix(MARK).partition(":")
    try:
        content = base64.b64decode(held, validate=True)
        secret = _unwrapped(wrapped, str(Path(__opts__["pki_dir"]) / "minion.pem"))
        bound = _bound(__opts__["id"], name)
        return json.loads(AESGCM(secret).decrypt(content[:12], content[12:], bound))
    except (InvalidTag, OSError, ValueError):
        raise ValueError(
            f"secret {name} is not sealed to this minion's key; see on the master whether the key"
            " is accepted, then run saltutil.refresh_pillar"
        ) from None


def redacted(told: object, values: dict) -> object:
    """Return what is about to be told with ``<secret name>`` wherever one of ``values`` stands.

    An error of a template, a check or a daemon may quote what it could not make sense of.
    """
    try:
        known = opened(values)
    except ValueError:
        return told  # what cannot be opened has come to nobody
    words = {word: name for name, value in known.items() for word in _words(value)}
    if not words:
        return told
    longest = sorted(words, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)))
    return _each_text(told, lambda text: pattern.sub(lambda hit: f"<secret {words[hit[0]]}>", text))


def _words(value: object) -> Iterator[str]:
    """Yield how a value may be quoted: as it is, line by line, escaped."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _words(one)
    elif isinstance(value, str):
        for line in {value, *value.splitlines()}:
            if len(line) >= SHORTEST:
                yield from (line, html.escape(line), quote(line, ""), repr(line)[1:-1])
                yield json.dumps(line)[1:-1]


def _each_text(told: object, change: Callable[[str], str]) -> object:
    if isinstance(told, str):
        return change(told)
    if isinstance(told, dict):
        return {_each_text(key, change): _each_text(one, change) for key, one in told.items()}
    if isinstance(told, list | tuple):
        return [_each_text(one, change) for one in told]
    return told


@functools.lru_cache(maxsize=4)
def _unwrapped(wrapped: str, path: str) -> bytes:
    """Return the key that all values of one pillar are sealed with."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # The minion talks to its master with this key; proving its primes again takes half a second.
    private = load_pem_private_key(
        Path(path).read_bytes(), None, unsafe_skip_rsa_key_validation=True
    )
    return private.decrypt(base64.b64decode(wrapped, validate=True), _padding())


def _padding():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _bound(minion_id: str, name: str) -> bytes:
    return f"{minion_id} {name}".encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
