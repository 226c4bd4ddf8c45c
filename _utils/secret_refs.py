"""References to secrets in pillar, ``{secret: name}``, and what they stand for.

Pillar, states and their contexts hold references alone; whoever writes a secret to where it belongs
resolves it at the last moment, so that no SLS, log, job or event can show it.
"""

from __future__ import annotations

from collections.abc import Iterator

REFERENCE = "secret"
VALUES = "secret_values"  # the pillar key under which the values come: {name: value}
MASK = "**********"
PLACEHOLDERS = {"", "False", "None", MASK}
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
            yield from found(inner, f"{path}:{key}" if path else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from found(inner, f"{path}:{number}")


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
        inner = {
            key: _resolved(one, values, f"{path}:{key}" if path else str(key))
            for key, one in value.items()
        }
        return {key: one for key, one in inner.items() if one is not _ABSENT}
    if isinstance(value, list):
        items = [_resolved(one, values, f"{path}:{n}") for n, one in enumerate(value)]
        return [one for one in items if one is not _ABSENT]
    return value


def _value(name: str, values: dict, path: str) -> object:
    if name not in values:
        raise ValueError(
            f"secret {name} of {path} is not in this node's pillar;"
            " run saltutil.refresh_pillar, then look at pillar _errors"
        )
    value = values[name]
    if value is None:
        return _ABSENT
    if isinstance(value, str) and value.strip() in PLACEHOLDERS:
        raise ValueError(
            f"secret {name} of {path} is empty or a placeholder; mend it at its source"
        )
    return value
