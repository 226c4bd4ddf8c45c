"""What pillar declares under ``secrets``: where each is kept and what it must look like."""

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
PARAMETER, SECRET, CIPHERTEXT, ACM, FILE = KINDS = (
    "parameter",
    "secretsmanager",
    "ciphertext",
    "acm",
    "file",
)
_KEYS = {*KINDS, "field", "json", "version", "required", "dummy"}
_FORMS = {
    PARAMETER: (re.compile(r"[A-Za-z0-9_.\-/]{1,1011}"), "a parameter's name, dotted or slashed"),
    SECRET: (re.compile(r"[A-Za-z0-9/_+=.@:\-]{1,2048}"), "a secret's name or ARN"),
    CIPHERTEXT: (re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*"), "base64 of what KMS encrypted"),
    ACM: (re.compile(r"arn:[a-z\-]+:acm:[a-z0-9\-]+:[0-9]{12}:certificate/[A-Za-z0-9\-]+"),
          "the ARN of a certificate"),
    FILE: (re.compile(r"(/[^/\x00-\x1f]+)+"), "an absolute path"),
}  # fmt: skip
_VERSION = re.compile(r"[A-Za-z0-9_.\-]{1,256}")


@dataclass(frozen=True)
class Source:
    """Where a value is kept, for one node: placeholders are filled in."""

    kind: str
    name: str
    version: str = ""
    context: tuple[tuple[str, str], ...] = ()  # KMS's encryption context, of ciphertexts alone

    @property
    def key(self) -> str:
        """What names it to others, whatever its version: ``parameter:/voice/prod-euw2/…``."""
        return f"{self.kind}:{self.name}"

    def __str__(self) -> str:
        if self.kind == CIPHERTEXT:  # no secret, but too long for a line
            return f"ciphertext {hashlib.sha256(self.name.encode()).hexdigest()[:12]}"
        version = f" version {self.version}" if self.version else ""
        return f"{self.kind} {self.name}{version}"


@dataclass(frozen=True)
class Declaration:
    """One entry of ``secrets``."""

    name: str
    kind: str
    template: str
    field: str | None = None
    json: bool = False
    version: str = ""
    required: bool = True
    dummy: object = None


def parse(name: object, entry: object) -> Declaration:
    """Check one declaration; ValueError says what is wrong with it."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"secrets:{str(name)[:60]!r}: a name is small letters, digits and dashes")
    where = f"secrets:{name}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a mapping such as {{parameter: /voice/…}}")
    for key in entry:
        if key not in _KEYS:
            raise ValueError(f"{where}:{key}: unknown key{did_you_mean(key, _KEYS)}")
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        said = "names " + " and ".join(kinds) if kinds else "names no source"
        raise ValueError(f"{where}: {said}; it must have exactly one of {', '.join(KINDS)}")
    kind = kinds[0]
    take = _Taker(where, entry)
    declaration = Declaration(
        name=name,
        kind=kind,
        template=take(kind, "", str),
        field=take("field", None, str),
        json=take("json", False, bool),
        version=take("version", "", str),
        required=take("required", True, bool),
        dummy=entry.get("dummy"),
    )
    _check(where, declaration)
    return declaration


def source(declaration: Declaration, fill: Callable[[str], str], **context: str) -> Source:
    """Return the declared source with placeholders filled; ValueError when it is malformed."""
    kind, where = declaration.kind, f"secrets:{declaration.name}:{declaration.kind}"
    try:
        name = declaration.template if kind == CIPHERTEXT else fill(declaration.template)
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from None
    form, words = _FORMS[kind]
    if not form.fullmatch(name):
        raise ValueError(f"{where}: is not {words}")
    if kind == CIPHERTEXT:
        return Source(kind, "".join(name.split()), context=tuple(sorted(context.items())))
    if kind == FILE and {".", ".."} & set(name.split("/")):
        raise ValueError(f"{where}: . and .. are refused; write the path out")
    return Source(kind, name, declaration.version)


def did_you_mean(word: object, known: object) -> str:
    """Return `` (did you mean …?)``, or nothing when no known word is close."""
    words = [str(one) for one in known] if isinstance(known, (set, dict, list)) else []
    close = difflib.get_close_matches(str(word), words, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class _Taker:
    def __init__(self, where: str, entry: dict[str, Any]) -> None:
        self._where, self._entry = where, entry

    def __call__(self, key: str, default: Any, kind: type) -> Any:
        value = self._entry.get(key, default)
        if value is not default and type(value) is not kind:
            words = {str: "a string in quotes", bool: "true or false"}[kind]
            raise ValueError(f"{self._where}:{key}: must be {words}")
        return value


def _check(where: str, declaration: Declaration) -> None:
    kind = declaration.kind
    if kind == ACM and declaration.field not in ("chain", "key"):
        raise ValueError(f"{where}:field: a certificate of ACM has the fields chain and key")
    if declaration.version:
        if kind not in (PARAMETER, SECRET):
            raise ValueError(f"{where}:version: a {kind} has no versions to pin")
        if not _VERSION.fullmatch(declaration.version):
            raise ValueError(f"{where}:version: must be a number, a label, a stage or an id")
