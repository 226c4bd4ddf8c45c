"""A pillar in which every place for a secret refers to a canary of its own."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from tests.support.canary.values import Canaries
from tests.support.secrets import schema, secret_refs


def planted(component: str, plain: dict[str, Any], canaries: Canaries) -> tuple[dict, dict]:
    """Return a copy with references where the schema wants them, and their values by name."""
    held, values = copy.deepcopy(plain), {}
    for path, wrong in list(secret_refs.misplaced(held, schema(component))):
        if wrong != secret_refs.PLAIN:
            continue
        at, (*parents, last) = held, path.split(":")
        for key in parents:
            at = at[int(key) if isinstance(at, list) else key]
        name = re.sub(r"[^a-z0-9]+", "-", f"{component}-{path}".lower()).strip("-")
        values[name] = _like(name, at[last], canaries)
        at[last] = {secret_refs.REFERENCE: name}
    return held, values


def _like(name: str, plain: str, canaries: Canaries) -> str:
    """Return a canary of a plain value's form."""
    if plain.startswith("-----BEGIN"):
        return canaries.pem(name, plain)
    if re.fullmatch(r"[0-9a-f]{32}", plain):
        return canaries.digest(name)
    return (
        plain.replace("CANARY", canaries.text(name)) if "CANARY" in plain else canaries.text(name)
    )


def places(component: str) -> set[str]:
    """Return every place of a schema that is for secrets alone."""
    return {path for path, marked in _walk(schema(component), component) if marked}


def unplanted(component: str, pillars: list[dict[str, Any]]) -> set[str]:
    """Return the places for secrets that no reference in any of the pillars is at."""
    found = [path.split(":") for pillar in pillars for path, _ in secret_refs.found(pillar)]
    return {
        place
        for place in places(component)
        if not any(_at(place.split(":"), path) for path in found)
    }


def _at(place: list[str], path: list[str]) -> bool:
    return len(place) == len(path) and all(
        one == key or (one.startswith("^") and re.search(one, key))
        for one, key in zip(place, path, strict=True)
    )


def _walk(node: Any, path: str) -> Iterator[tuple[str, bool]]:
    if isinstance(node, dict):
        yield path, bool(node.get(secret_refs.SECRET_MARK))
        for word in ("properties", "patternProperties"):
            for key, inner in node.get(word, {}).items():
                yield from _walk(inner, f"{path}:{key}")
        yield from _walk(node.get("items"), path)
        for word in ("allOf", "anyOf", "oneOf"):
            for inner in node.get(word, []):
                yield from _walk(inner, path)
        for word in ("then", "else"):
            yield from _walk(node.get(word), path)
