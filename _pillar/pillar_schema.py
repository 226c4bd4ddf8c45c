"""Check what a minion would be given against the JSON Schemas, and give it nothing if it fails.

Runs last. One schema a top-level key, ``<path>/<key>.json``. A failure becomes a pillar error, so
that no state runs; it names the key path and the kind of what is wrong, never a value.

.. code-block:: yaml

    ext_pillar:
      - pillar_schema: {path: /srv/guardian/pillar/schema}
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import jsonschema

SHOWN = 5
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
INTERNAL = {"_errors", "master"}


def ext_pillar(minion_id, pillar, path):
    """Return nothing; ValueError lists up to five faults, one sentence each."""
    problems = faults(pillar, Path(path))
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"pillar of {minion_id} refused: {'; '.join(problems[:SHOWN])}{more}")
    return {}


def faults(pillar, directory):
    """Return what is wrong with a whole pillar, in sentences without values."""
    schemas = {file.stem: file for file in sorted(directory.glob("*.json"))}
    if not schemas:
        return [f"no schema in {directory}"]
    problems = []
    for key in sorted(set(pillar) - INTERNAL - set(schemas)):
        problems.append(f"{key}: unknown key{_suggest(key, schemas)}")
    if "node" not in pillar:
        problems.append("node: missing; is fleet_node among the ext_pillars?")
    for key, file in schemas.items():
        if key in pillar:
            schema = json.loads(file.read_bytes())
            validator = jsonschema.Draft202012Validator(schema)
            found = sorted(validator.iter_errors(pillar[key]), key=lambda e: list(map(str, e.path)))
            for error in found:
                where = ":".join([key, *map(str, error.path)])
                problems += _unknown(where, error) or [_sentence(where, error)]
    return [CONTROL.sub("?", problem) for problem in problems]  # a key may hold a newline


def _unknown(where, error):
    """Return a sentence for each key a schema does not know."""
    if error.validator != "additionalProperties":
        return []
    known = list(error.schema.get("properties", {}))
    patterns = error.schema.get("patternProperties", {})
    return [
        f"{where}:{name}: unknown key{_suggest(name, known)}"
        for name in map(str, error.instance)
        if name not in known and not any(re.search(p, name) for p in patterns)
    ]


def _sentence(where, error):
    match error.validator:
        case "required":
            missing = next(k for k in error.validator_value if k not in error.instance)
            return f"{where}:{missing}: missing"
        case "type":
            wanted = error.validator_value
            wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
            return f"{where}: must be {wanted}, is {_kind(error.instance)}"
        case "enum":
            return f"{where}: must be one of {', '.join(map(str, error.validator_value))}"
        case "minimum" | "maximum":
            word = "at least" if error.validator == "minimum" else "at most"
            return f"{where}: must be {word} {error.validator_value}"
        case "pattern":
            return f"{where}: has not the form {error.schema.get('description', 'asked for')!r}"
    return f"{where}: breaks rule {error.validator}"


def _kind(value):
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array"}
    return kinds.get(type(value), "null" if value is None else "object")


def _suggest(name, known):
    close = difflib.get_close_matches(str(name), list(map(str, known)), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
