"""What the master's configuration says under ``acme``: the parser is the validator.

.. code-block:: yaml

    acme:
      directory: https://acme-v02.api.letsencrypt.org/directory
      terms_agreed: true
      contact: [voice@example.net]
      state: /var/lib/guardian/acme
      certificates:
        default:
          names: [pbx.example.net, "*.pbx.example.net"]
          challenge: {route53: {zone: Z0123456789ABC}}
          store: {secretsmanager: voice/certificates/default, region: eu-west-2}
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from guardian.acme.bundle import AcmeError
from guardian.acme.challenges import Route53, Solver, Standalone, Webroot
from guardian.acme.stores import File, Parameters, SecretsManager, Store

KEYS = ("rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"(\*\.)?({_LABEL}\.)+[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_ADDRESS = re.compile(r"[0-9a-f.:]{0,45}")
_PARAMETER = re.compile(r"[A-Za-z0-9_.\-/]{1,1011}")
_SECRET = re.compile(r"[A-Za-z0-9/_+=.@:\-]{1,2048}")
_ROLE = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+")
_MOST_NAMES = 100  # in one certificate, of most CAs


@dataclass(frozen=True)
class Binding:
    """An account of the CA's own that ours belongs to; the file holds its HMAC key."""

    kid: str
    hmac: Path


@dataclass(frozen=True)
class Certificate:
    """One certificate that is wanted."""

    name: str
    names: tuple[str, ...]
    challenge: Solver
    store: Store
    key: str = "rsa-2048"  # old desk phones know no other
    preferred_chain: str = ""
    profile: str = ""


@dataclass(frozen=True)
class Config:
    """The CA, our account there, and all certificates that are wanted of it."""

    directory: str
    state: Path
    contact: tuple[str, ...] = ()
    ca: str = ""  # a file: what the CA's own web server is proven by; empty for what the system has
    authority: str = ""  # PEM, or "system": what chains must end with; empty for anything
    binding: Binding | None = None
    timeout: float = 300.0
    certificates: dict[str, Certificate] = field(default_factory=dict)

    def certificate(self, name: str) -> Certificate:
        """Return the one of that name; AcmeError names the nearest."""
        if name in self.certificates:
            return self.certificates[name]
        raise AcmeError(f"acme: certificate {name[:60]!r} unknown{_near(name, self.certificates)}")


def parse(value: object) -> Config:
    """Check the value of ``acme``; AcmeError says in one line where it is wrong and how."""
    if value is None:
        raise AcmeError("acme: the master's configuration does not have it; see docs")
    top = _Entry("acme", value)
    known = (
        "directory",
        "terms_agreed",
        "contact",
        "state",
        "ca",
        "authority",
        "binding",
        "timeout",
    )
    top.only(*known, "certificates")
    if top.get("terms_agreed", bool, False) is not True:
        top.fail("terms_agreed", "must be true, once somebody has read the CA's terms")
    directory = top.need("directory", str)
    if urlsplit(directory).scheme != "https" or not urlsplit(directory).netloc:
        top.fail("directory", "must be an https address, such as a CA's …/directory")
    config = Config(
        directory=directory,
        state=top.path("state"),
        contact=tuple(f"mailto:{one}" for one in top.strings("contact", r"[^@\s,]+@[^@\s,]+")),
        ca=str(top.path("ca")) if top.has("ca") else "",
        authority=_authority(top),
        binding=_binding(top.below("binding")) if top.has("binding") else None,
        timeout=_seconds(top),
        certificates={
            name: _certificate(name, entry) for name, entry in top.below("certificates").entries()
        },
    )
    _check_apart(config, top)
    return config


def _certificate(name: str, entry: "_Entry") -> Certificate:
    if not _NAME.fullmatch(name):
        entry.fail("", "a name is small letters, digits and dashes")
    entry.only("names", "challenge", "store", "key", "preferred_chain", "profile")
    names = entry.strings("names", _DNS.pattern)
    if not names:
        entry.fail("names", "names nothing")
    if len(names) > _MOST_NAMES or len(set(names)) < len(names):
        entry.fail("names", f"has a name twice, or more than {_MOST_NAMES}")
    challenge = _challenge(entry.below("challenge"))
    wild = [one for one in names if one.startswith("*.")]
    if wild and challenge.kind != "dns-01":
        entry.fail("challenge", f"{wild[0]} can only be proven by dns-01: use route53")
    key = entry.get("key", str, "rsa-2048")
    if key not in KEYS:
        entry.fail("key", f"{key[:40]!r} unknown{_near(key, KEYS)}")
    return Certificate(
        name=name,
        names=names,
        challenge=challenge,
        store=_store(entry.below("store")),
        key=key,
        preferred_chain=entry.get("preferred_chain", str, ""),
        profile=entry.get("profile", str, ""),
    )


def _challenge(entry: "_Entry") -> Solver:
    kind = entry.one_of("standalone", "webroot", "route53")
    entry.only(kind)
    if kind == "webroot":
        return Webroot(entry.path("webroot"))
    inner = entry.below(kind)
    if kind == "standalone":
        inner.only("address", "port")
        port = inner.get("port", int, 80)
        if not 1 <= port <= 65535:
            inner.fail("port", "is between 1 and 65535")
        return Standalone(inner.match("address", _ADDRESS, "an address of this host", ""), port)
    inner.only("zone", "role")
    return Route53(
        inner.match("zone", re.compile(r"([A-Z0-9]{1,32})?"), "the id of a hosted zone", ""),
        inner.match("role", re.compile(rf"({_ROLE.pattern})?"), "the ARN of a role", ""),
    )


def _store(entry: "_Entry") -> Store:
    kind = entry.one_of("secretsmanager", "parameters", "file")
    if kind == "file":
        entry.only("file")
        return File(entry.path("file"))
    entry.only(kind, "region")
    region = entry.match("region", _REGION, "AWS's name of a region, such as eu-west-2")
    if kind == "secretsmanager":
        return SecretsManager(entry.match(kind, _SECRET, "a secret's name or ARN"), region)
    pair = entry.below("parameters")
    pair.only("key", "chain")
    words = "a parameter's name, dotted or slashed"
    key, chain = (pair.match(one, _PARAMETER, words) for one in ("key", "chain"))
    if key == chain:
        pair.fail("chain", "is where the key is; a pair has two names")
    return Parameters(key, chain, region)


def _binding(entry: "_Entry") -> Binding:
    entry.only("kid", "hmac")
    return Binding(entry.need("kid", str), entry.path("hmac"))


def _authority(top: "_Entry") -> str:
    if not top.has("authority") or top.need("authority", str) == "system":
        return str(top.get("authority", str, ""))
    try:
        return top.path("authority").read_text()
    except (OSError, UnicodeDecodeError):
        return top.fail("authority", "must be `system` or a readable file of PEM certificates")


def _seconds(top: "_Entry") -> float:
    value = top.get("timeout", int, 300)
    if not 10 <= value <= 3600:
        top.fail("timeout", "is between 10 and 3600 seconds")
    return float(value)


def _check_apart(config: Config, top: "_Entry") -> None:
    """Two certificates in one place would replace one another for ever."""
    seen: dict[str, str] = {}
    for name, certificate in config.certificates.items():
        for source in certificate.store.sources():
            if source in seen:
                top.fail(f"certificates:{name}:store", f"is where {seen[source]} is stored")
            seen[source] = name


def _near(word: str, known: Any) -> str:
    close = get_close_matches(word, list(known), n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f"; there is {', '.join(known)}" if known else ""


class _Entry:
    """A mapping and where it stands, read by key and type or refused."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise AcmeError(f"{where}: must be a mapping with keys of text")
        self._where, self._value = where, value

    def fail(self, key: str, why: str) -> NoReturn:
        raise AcmeError(f"{self._where}{':' if key else ''}{key}: {why}")

    def only(self, *known: str) -> None:
        for key in self._value:
            if key not in known:
                self.fail(key[:60], f"unknown key{_near(key, known)}")

    def has(self, key: str) -> bool:
        return key in self._value

    def get(self, key: str, kind: type, default: Any) -> Any:
        value = self._value.get(key, default)
        if type(value) is not kind:
            words = {str: "text in quotes", bool: "true or false", int: "a whole number"}[kind]
            self.fail(key, f"must be {words}")
        return value

    def need(self, key: str, kind: type) -> Any:
        if not self._value.get(key):
            self.fail(key, "is missing")
        return self.get(key, kind, None)

    def match(self, key: str, form: re.Pattern[str], words: str, default: str | None = None) -> str:
        text = self.need(key, str) if default is None else self.get(key, str, default)
        if not form.fullmatch(text):
            self.fail(key, f"must be {words}")
        return str(text)

    def path(self, key: str) -> Path:
        found = Path(self.need(key, str))
        if not found.is_absolute() or ".." in found.parts:
            self.fail(key, "must be an absolute path without ..")
        return found

    def strings(self, key: str, form: str) -> tuple[str, ...]:
        value = self._value.get(key, [])
        if not isinstance(value, list):
            self.fail(key, "must be a list")
        for one in value:
            if not isinstance(one, str) or len(one) > 253 or not re.fullmatch(form, one):
                self.fail(key, f"{str(one)[:60]!r} is malformed")
        return tuple(value)

    def one_of(self, *kinds: str) -> str:
        found = [kind for kind in kinds if kind in self._value]
        if len(found) != 1:
            self.fail("", f"must have exactly one of {', '.join(kinds)}")
        return found[0]

    def below(self, key: str) -> "_Entry":
        if not self.has(key):
            self.fail(key, "is missing")
        return _Entry(f"{self._where}:{key}", self._value[key] or {})

    def entries(self) -> "Iterator[tuple[str, _Entry]]":
        for key in self._value:
            yield key, self.below(key)
