"""auth and auth_db: digest challenges, and logins against the subscriber table."""

import hashlib
import hmac
import re
import secrets
import time

import sip
from context import Context
from engine import Engine

_NO_USER, _WRONG, _STALE, _NONE = -1, -2, -3, -4


class Auth:
    """www_* is for registrations, proxy_* for calls; they differ in header and status alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._expire = float(engine.config.parameter("auth", "nonce_expire", 30))
        self._nonces: dict[str, float] = {}

    def do_www_challenge(
        self, context: Context, realm: str, qop: str | None = None, *_: object
    ) -> int:
        return self._challenge(context, 401, "Unauthorized", "WWW-Authenticate", realm, qop)

    def do_proxy_challenge(
        self, context: Context, realm: str, qop: str | None = None, *_: object
    ) -> int:
        reason = "Proxy Authentication Required"
        return self._challenge(context, 407, reason, "Proxy-Authenticate", realm, qop)

    def _challenge(
        self, context: Context, status: int, reason: str, header: str, realm: str, qop: str | None
    ) -> int:
        now = time.monotonic()
        self._nonces = {key: end for key, end in self._nonces.items() if end > now - 600}
        nonce = secrets.token_urlsafe(32)
        self._nonces[nonce] = now + self._expire
        value = f'Digest realm="{realm or _realm(context)}", nonce="{nonce}"'
        value += f', qop="{qop}"' if qop else ""
        value += ", stale=true" if "stale" in context.flags else ""
        context.reply_headers += f"{header}: {value}\r\n"
        return self._engine.features["core"].do_send_reply(context, status, reason) or 1

    def do_consume_credentials(self, context: Context) -> int:
        names = ("Authorization", "Proxy-Authorization")
        found = any(context.request.get(name) for name in names)
        for name in names:
            context.request.remove(name)
        return 1 if found else -1

    def known(self, nonce: str) -> bool | None:
        """Whether a nonce is in force, None for one that never was."""
        end = self._nonces.get(nonce)
        return None if end is None else end > time.monotonic()


class AuthDb:
    """Looks users up as cached, or as stored, by what `db_url` is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        parameter = engine.config.parameter
        self._user = str(parameter("auth_db", "user_column", "username"))
        self._domain = str(parameter("auth_db", "domain_column", "domain"))
        self._password = str(parameter("auth_db", "password_column", "ha1"))
        self._plain = bool(parameter("auth_db", "calculate_ha1", 0))
        self._by_domain = bool(parameter("auth_db", "use_domain", 0))
        self._database = engine._database("auth_db")

    def do_www_authorize(self, context: Context, realm: str, table: str) -> int:
        return self._authorize(context, "Authorization", realm, table)

    def do_proxy_authorize(self, context: Context, realm: str, table: str) -> int:
        return self._authorize(context, "Proxy-Authorization", realm, table)

    def _authorize(self, context: Context, header: str, realm: str, table: str) -> int:
        realm = realm or _realm(context)
        given = _digest(context.request.get(header))
        if given.get("realm") != realm or not given.get("nonce"):
            return _NONE
        context.user, context.realm = given.get("username", ""), realm
        in_force = self._engine.features["auth"].known(given["nonce"])
        if not in_force:
            context.flags.add("stale")
            return _STALE
        user, _, domain = context.user.partition("@")
        row = next(
            (
                row
                for row in self._database.rows(table)
                if row[self._user] == user
                and (not self._by_domain or row[self._domain] == (domain or realm))
            ),
            None,
        )
        if row is None:
            return _NO_USER
        a1 = row[self._password]
        if self._plain:
            a1 = _md5(f"{context.user}:{realm}:{a1}")
        wanted = _response(given, a1, context.request.method)
        return 1 if hmac.compare_digest(wanted, given.get("response", "")) else _WRONG


def _realm(context: Context) -> str:
    """The host of To for a REGISTER, of From for anything else."""
    name = "To" if context.request.method == "REGISTER" else "From"
    return sip.Uri.parse(context.request.get(name)).host


def _digest(header: str) -> dict[str, str]:
    found = re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]+))', header.partition("Digest")[2])
    return {name: quoted or plain for name, quoted, plain in found}


def _response(given: dict[str, str], a1: str, method: str) -> str:
    a2 = _md5(f"{method}:{given.get('uri', '')}")
    if "qop" not in given:
        return _md5(f"{a1}:{given['nonce']}:{a2}")
    middle = ":".join(given.get(key, "") for key in ("nonce", "nc", "cnonce", "qop"))
    return _md5(f"{a1}:{middle}:{a2}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
