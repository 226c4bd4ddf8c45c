"""Digest authentication, both ends (RFC 2617 with MD5, as the field still speaks it)."""

import hashlib
import re
import secrets

from directory import Directory

_PART = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^,\s]+))')


def challenge(realm: str) -> str:
    return f'Digest realm="{realm}", nonce="{secrets.token_hex(16)}", algorithm=MD5, qop="auth"'


def parts(header: str) -> dict[str, str]:
    """The name="value" pairs of a challenge or an answer to one."""
    return {name.lower(): quoted or bare for name, quoted, bare in _PART.findall(header)}


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _response(a1: str, given: dict[str, str], method: str) -> str:
    a2 = _md5(f"{method}:{given.get('uri', '')}")
    if given.get("qop"):
        middle = f"{given.get('nonce')}:{given.get('nc')}:{given.get('cnonce')}:{given['qop']}"
    else:
        middle = given.get("nonce", "")
    return _md5(f"{a1}:{middle}:{a2}")


def verify(header: str, method: str, users: Directory) -> bool:
    """Whether an answer was made with the password (or a1-hash) the directory has for its user."""
    given = parts(header)
    settings = users.find(given.get("username", "")) or {}
    a1 = settings.get("a1-hash") or (
        _md5(f"{given['username']}:{given.get('realm', '')}:{settings['password']}")
        if settings.get("password")
        else ""
    )
    expected = _response(a1, given, method)
    return bool(a1) and secrets.compare_digest(expected, given.get("response", ""))


def answer(header: str, username: str, password: str, method: str, uri: str) -> str:
    """The Authorization value that answers a challenge."""
    asked = parts(header)
    given = {"username": username, "realm": asked.get("realm", ""), "uri": uri}
    given["nonce"] = asked.get("nonce", "")
    if "auth" in asked.get("qop", ""):
        given |= {"qop": "auth", "nc": "00000001", "cnonce": secrets.token_hex(8)}
    given["response"] = _response(_md5(f"{username}:{given['realm']}:{password}"), given, method)
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in given.items())
