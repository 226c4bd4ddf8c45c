"""Who may have what: least privilege as data, checked before anything is asked of AWS.

A grant is ``{names: [kind:pattern], roles, workspaces, assume}``. Its patterns and ``assume`` hold
the placeholders of a minion id, so that one line gives every node its own secrets and no other's.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from guardian.secrets.declarations import CIPHERTEXT, KINDS, Source, did_you_mean
from guardian.secrets.failures import DENIED, SecretError
from guardian.secrets.node import Node

_KEYS = ["names", "roles", "workspaces", "assume"]


@dataclass(frozen=True)
class Grant:
    """Patterns of names that nodes of these roles and workspaces may have."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    workspaces: tuple[str, ...]
    assume: str

    def pattern(self, node: Node, name: str) -> str | None:
        """Return the filled-in pattern that gives this node the name, or None."""
        if self.roles and node.role not in self.roles:
            return None
        if self.workspaces and not any(
            fnmatch.fnmatchcase(node.workspace, one) for one in self.workspaces
        ):
            return None
        filled = (node.fill(pattern) for pattern in self.names)
        return next((one for one in filled if fnmatch.fnmatchcase(name, one)), None)


@dataclass(frozen=True)
class Given:
    """What a grant adds to a source: the role to assume (if any) and the path it lies under."""

    assume: str
    prefix: str


class Grants:
    """All grants of a file, in its order: the first that matches counts."""

    def __init__(self, grants: list[Grant], file: str) -> None:
        self._grants, self._file = grants, file

    def find(self, node: Node, source: Source, declared: str) -> Given:
        """Return what gives the node this source; SecretError when nothing does.

        A ciphertext has no name of its own, so grants match the name it is declared by: what it
        may be used for is bound by its encryption context, which KMS checks.
        """
        name = f"{source.kind}:{declared}" if source.kind == CIPHERTEXT else source.key
        for grant in self._grants:
            pattern = grant.pattern(node, name)
            if pattern is not None:
                return Given(node.fill(grant.assume), _prefix(pattern))
        raise SecretError(
            DENIED,
            f"no grant gives {name.replace(':', ' ', 1)} to role {node.role} of {node.workspace};"
            f" see {self._file}",
        )


_loaded: dict[str, tuple[tuple[int, int, int], Grants]] = {}


def load(path: str | Path) -> Grants:
    """Read a file of grants, once as long as it stays the same; ValueError names what is wrong."""
    file = Path(path)
    try:
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = _loaded.get(str(file))
        if known is not None and known[0] == stamp:
            return known[1]
        content = yaml.safe_load(file.read_bytes())
    except OSError as problem:
        why = os.strerror(problem.errno or 0)
        raise ValueError(f"{file}: {why}; option grants of aws_secrets names it") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{file}{line}: is not YAML") from None
    grants = Grants(_parse(content, str(file)), str(file))
    _loaded[str(file)] = (stamp, grants)
    return grants


def _parse(content: object, file: str) -> list[Grant]:
    if not isinstance(content, list):
        raise ValueError(f"{file}: must be a list of grants")
    return [_grant(entry, f"{file}: grant {n}") for n, entry in enumerate(content, 1)]


def _grant(entry: object, where: str) -> Grant:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a mapping")
    for key in entry:
        if key not in _KEYS:
            raise ValueError(f"{where}: unknown key {key}{did_you_mean(key, _KEYS)}")
    names = _strings(entry, "names", where)
    if not names:
        raise ValueError(f"{where}: names nothing")
    for pattern in names:
        kind = pattern.partition(":")[0]
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(f"{where}: {pattern} begins with no kind of source ({known}) and `:`")
        _try(pattern, where)
    assume = entry.get("assume", "")
    if not isinstance(assume, str) or (assume and not assume.startswith("arn:")):
        raise ValueError(f"{where}: assume must be the ARN of a role")
    _try(assume, where)
    roles, workspaces = _strings(entry, "roles", where), _strings(entry, "workspaces", where)
    return Grant(names, roles, workspaces, assume)


def _strings(entry: dict[str, object], key: str, where: str) -> tuple[str, ...]:
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{where}: {key} must be a list of strings")
    if key in entry and not value:  # everybody, by mistake
        raise ValueError(f"{where}: {key} is empty; leave it out to mean all")
    return tuple(value)


def _try(template: str, where: str) -> None:
    try:
        Node("pbx-01.a-b", "pbx-01", "pbx", "a", "b", "a-b").fill(template)
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from None


def _prefix(pattern: str) -> str:
    """Return the path below which a pattern gives everything, or nothing when it gives less."""
    kind, _, name = pattern.partition(":")
    path = name.removesuffix("*")
    whole = kind == "parameter" and name.endswith("/*") and not set(path) & set("*?[")
    return path if whole and path.count("/") > 2 else ""
