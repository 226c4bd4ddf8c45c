"""References to secrets in pillar, ``{secret: name}``: where they may stand, what they stand for.

Pillar, states and their contexts hold references alone; whoever writes a secret to where it belongs
resolves it at the last moment, so that no SLS, log, job or event can show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

REFERENCE = "secret"
VALUES = "secret_values"  # the pillar key under which the values come: {name: value}
MASK = "**********"
PLACEHOLDERS = {"", "false", "none", "null"}  # what a failed look-up turns into
SECRET_MARK, REFERENCE_MARK = "x-secret", "x-reference"  # what a schema says of a place
PLAIN = "must be a reference to a secret; declare it under secrets and write {secret: its name}"
USELESS = "a reference to a secret is of no use here"
_ABSENT = object()


def named(value: object) -> str | None:
    """Return the name that a reference names, None for anything else."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get(REFERENCE), str):
        return value[REFERENCE]
    return None


def found(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(pillar path, name)`` of every reference in a pillar or a part of it."""
    name = named(value)
    if name is not None:
        yield path, name
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from found(inner, _below(path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from found(inner, _below(path, number))


def misplaced(value: object, schema: dict, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(pillar path, what is wrong)`` where a schema and a pillar disagree on secrets.

    A place that the schema marks ``x-secret`` holds a reference or null; one that it marks
    ``x-reference`` may hold a reference; no other may.
    """
    yield from _misplaced(value, [schema], path)


def resolve(value: object, values: dict, path: str = "") -> object:
    """Return a copy with every reference replaced by what ``values`` has under its name.

    A name that has the value None is of an optional secret that does not exist: its key is left
    out. Raises ``ValueError`` naming the pillar path where there is no value, or none that may be
    written to a file; never a value.
    """
    resolved = _resolved(value, values, path)
    return None if resolved is _ABSENT else resolved


def _resolved(value: object, values: dict, path: str) -> object:
    name = named(value)
    if name is not None:
        return _value(name, values, path)
    if isinstance(value, dict):
        inner = {key: _resolved(one, values, _below(path, key)) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not _ABSENT}
    if isinstance(value, list):
        items = [_resolved(one, values, _below(path, n)) for n, one in enumerate(value)]
        return [one for one in items if one is not _ABSENT]
    return value


def _value(name: str, values: dict, path: str) -> object:
    where = f"secret {name} of {path}"
    if name not in values:
        raise ValueError(
            f"{where} is not in this node's pillar;"
            " run saltutil.refresh_pillar, then look at pillar _errors"
        )
    value = values[name]
    if value is None:
        return _ABSENT
    if isinstance(value, bool) or (isinstance(value, str) and _worthless(value)):
        raise ValueError(f"{where} is empty or a placeholder; mend it at its source")
    if any(MASK in text for text in _texts(value)):
        raise ValueError(f"{where} is masked; mend it at its source")
    return value


def _worthless(value: str) -> bool:
    return value.strip().lower() in PLACEHOLDERS


def _texts(value: object) -> Iterator[str]:
    """Yield every text of a value, which may be a whole subtree."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _misplaced(value: object, schemas: list, path: str) -> Iterator[tuple[str, str]]:
    schemas = list(_alternatives(schemas))
    secret, allowed = (
        any(schema.get(mark) for schema in schemas) for mark in (SECRET_MARK, REFERENCE_MARK)
    )
    if named(value) is not None:
        if not secret and not allowed:
            yield path, USELESS
    elif secret and value is not None:
        yield path, PLAIN
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _misplaced(inner, _of_key(schemas, str(key)), _below(path, key))
    elif isinstance(value, list):
        items = [schema.get("items") for schema in schemas]
        for number, inner in enumerate(value):
            yield from _misplaced(inner, items, _below(path, number))


def _of_key(schemas: list, key: str) -> list:
    """Return the schemas that say something of the value under a key."""
    found = []
    for schema in schemas:
        found.append(schema.get("properties", {}).get(key))
        patterns = schema.get("patternProperties", {}).items()
        found += [one for pattern, one in patterns if re.search(pattern, key)]
    return found


def _alternatives(schemas: list) -> Iterator[dict]:
    """Yield schemas and all that they are made of, whichever of it applies."""
    for schema in schemas:
        if isinstance(schema, dict):
            yield schema
            for word in ("allOf", "anyOf", "oneOf"):
                yield from _alternatives(schema.get(word, []))
            yield from _alternatives([schema.get("then"), schema.get("else")])


def _below(path: str, key: object) -> str:
    return f"{path}:{key}" if path else str(key)
