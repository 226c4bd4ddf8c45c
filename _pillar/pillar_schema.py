"""Check what a minion would be given against the JSON Schemas, and give it no secret if it fails.

Runs last. One schema a top-level key, ``<path>/<key>.json``; ``pillar.json`` says what holds of all
of them together, such as which role needs which key. Secrets are checked twice: whether a
reference stands where the schema wants one (``x-secret``) or allows one (``x-reference``), and
whether the value has the form that its place asks for. A failure becomes a pillar error, so that no
state runs; it names the file, the key path and the remedy, never a value.

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
import salt.pillar

SHOWN = 5
NAMED = 8  # known keys that are worth a list
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
INTERNAL = {"_errors", "master"}
WHOLE = "pillar"
DECLARED, VALUES = "secrets", "secret_values"
SOURCES = {DECLARED, VALUES}  # declarations and values hold no references themselves


def ext_pillar(minion_id, pillar, path):
    """Return nothing; ValueError lists up to five faults, one sentence each."""
    problems = faults(pillar, Path(path))
    if not problems:
        return {}
    pillar.pop(
        VALUES, None
    )  # what is refused shall not be of use to modules that are called by hand
    layers = _layers(minion_id)
    told = [f"{_holder(layers, where)}{sentence}" for where, sentence in problems[:SHOWN]]
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise ValueError(f"pillar of {minion_id} refused: {'; '.join(told)}{more}")


def faults(pillar, directory):
    """Return what is wrong with a whole pillar, (key path, sentence without values) each."""
    files = sorted(directory.glob("*.json"))
    schemas = {file.stem: json.loads(file.read_bytes()) for file in files}
    if not schemas:
        return [((), f"no schema in {directory}")]
    whole = schemas.pop(WHOLE, {})
    problems = [
        ((key,), f"{key}: unknown key{_suggest(key, schemas)}")
        for key in sorted(set(pillar) - INTERNAL - set(schemas))
    ]
    if "node" not in pillar:
        problems.append((("node",), "node: missing; is fleet_node among the ext_pillars?"))
    own = {key: pillar[key] for key in schemas if key in pillar}
    problems += _misplaced(own, schemas) + _unresolved(own) + _malformed(own, schemas, whole)
    # A key may hold a newline; of keys that are missing each tells of all.
    cleaned = [(where, CONTROL.sub("?", sentence)) for where, sentence in problems]
    return list(dict.fromkeys(cleaned))


# -- secrets -------------------------------------------------------------------------------------


def _misplaced(own, schemas):
    """Return a fault for each secret where a reference must stand, and the other way round."""
    return [
        (tuple(where.split(":")), f"{where}: {wrong}")
        for key in own
        for where, wrong in __utils__["secret_refs.misplaced"](own[key], schemas[key], key)
    ]


def _references(own):
    """Return key path -> name of each reference."""
    asked = {key: value for key, value in own.items() if key not in SOURCES}
    return dict(__utils__["secret_refs.found"](asked))


def _unresolved(own):
    """Return a fault for each reference that stands for nothing."""
    declared, values, problems = own.get(DECLARED), own.get(VALUES), []
    declared = declared if isinstance(declared, dict) else {}
    references = _references(own)
    if references and not isinstance(values, dict):
        told = f"{VALUES}: missing; aws_secrets says why, or is not among the ext_pillars"
        problems.append(((VALUES,), told))
    for where, name in references.items():
        if name not in declared:
            close = _suggest(name, declared)
            told = f"{where}: no secret {name} is declared{close}; declare it under secrets"
            problems.append((tuple(where.split(":")), told))
        elif isinstance(values, dict) and name not in values:
            told = f"{where}: secret {name} has no value; aws_secrets says why"
            problems.append((tuple(where.split(":")), told))
    return problems


def _malformed(own, schemas, whole):
    """Return what breaks a schema once every reference is replaced by its value."""
    references = _references(own)
    values = own.get(VALUES)
    values = values if isinstance(values, dict) else {}
    unknown = {name: {"secret": name} for name in references.values() if name not in values}
    problems, held = [], {}
    for key, value in own.items():
        try:
            held[key] = value if key in SOURCES else _resolved(key, value, {**values, **unknown})
        except ValueError as err:
            problems.append(((key,), str(err)))
            continue
        for error in _errors(schemas[key], held[key]):
            problems += _told((key,), error, references, unknown)
    for error in _errors(whole, held) if len(held) == len(own) else ():
        problems += _told((), error, references, unknown)
    return problems


def _resolved(key, value, values):
    return __utils__["secret_refs.resolve"](value, values, key)


def _errors(schema, value):
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return sorted(found, key=lambda error: list(map(str, error.path)))


def _told(above, error, references, unknown):
    """Return the faults that one error of a schema amounts to."""
    path = (*above, *map(str, error.path))
    for length in range(1, len(path) + 1):
        name = references.get(":".join(path[:length]))
        if name in unknown:
            return []  # `_unresolved` has said so
        if name:  # what is below is part of the secret, its keys too
            inner = "a part of it " if length < len(path) else ""
            where = ":".join(path[:length])
            return [(path[:length], f"{where}: the value of secret {name}: {inner}{_rule(error)}")]
    return [
        ((*path, *more), f"{':'.join((*path, *named))}: {told}")
        for more, named, told in _sentences(path, error, references)
    ]


# -- sentences -----------------------------------------------------------------------------------


def _sentences(path, error, references):
    """Return (key that is there, key to name, what to say), one for each unknown key."""
    known = list(error.schema.get("properties", {}))
    if error.validator == "additionalProperties":
        patterns = error.schema.get("patternProperties", {})
        strange = [
            name
            for name in map(str, error.instance)
            if name not in known and not any(re.search(p, name) for p in patterns)
        ]
        wanted = f"; known are {', '.join(known)}" if 0 < len(known) <= NAMED else ""
        if patterns:
            wanted = f"; a name here has the form {' or '.join(patterns)}"
        told = {name: f"unknown key{_suggest(name, known) or wanted}" for name in strange}
        return [((name,), (name,), sentence) for name, sentence in told.items()]
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return [
            ((), (name,), _missing(references.get(":".join((*path, name))))) for name in missing
        ]
    return [((), (), _rule(error))]


def _missing(absent):
    return f"missing; {f'optional secret {absent} does not exist' if absent else 'set it'}"


def _rule(error):
    """Return which rule a value breaks, never the value."""
    wanted, schema = error.validator_value, error.schema
    match error.validator:
        case "additionalProperties":
            return "has a key that is not known"
        case "required":
            return f"lacks one of {', '.join(wanted)}"
        case "type":
            kinds = " or ".join(wanted) if isinstance(wanted, list) else wanted
            return f"must be {kinds}, is {_kind(error.instance)}"
        case "enum":
            return f"must be one of {', '.join(map(str, wanted))}{_meant(error.instance, wanted)}"
        case "minimum" | "maximum":
            return f"must be at {'least' if error.validator == 'minimum' else 'most'} {wanted}"
        case "minLength" | "minItems" | "minProperties":
            return f"must have at least {wanted} {_units(error.validator)}"
        case "maxLength" | "maxItems" | "maxProperties":
            return f"must have at most {wanted} {_units(error.validator)}"
        case "uniqueItems":
            return "must not hold anything twice"
        case "pattern":
            return f"has not the form {schema.get('description', wanted)!r}"
        case "dependentRequired":
            return "; ".join(f"{key} needs {' and '.join(names)}" for key, names in wanted.items())
    return schema.get("x-rule") or f"breaks rule {error.validator}"


def _units(rule):
    return {"Length": "characters", "Items": "entries", "Properties": "keys"}[rule[3:]]


def _kind(value):
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array"}
    return kinds.get(type(value), "null" if value is None else "object")


def _suggest(name, known):
    close = difflib.get_close_matches(str(name), list(map(str, known)), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _meant(value, known):
    return _suggest(value, known) if isinstance(value, str) else ""


# -- files ---------------------------------------------------------------------------------------


def _layers(minion_id):
    """Return (file, what it holds) of each layer that a minion is given, broad to narrow."""
    compiler = salt.pillar.Pillar(__opts__, {}, minion_id, "base")
    layers = []
    for saltenv, names in compiler.top_matches(compiler.get_top()[0]).items():
        for name in names:
            held, _, _ = compiler.render_pstate(name, saltenv, {})
            layers.append((_file(compiler.client.get_state(name, saltenv)["dest"]), held))
    return layers


def _file(path):
    """Return a file's path as it is in the repository, ``pillar/roles/pbx.sls``."""
    roots = [Path(root) for found in __opts__["pillar_roots"].values() for root in found]
    root = next((root for root in roots if Path(path).is_relative_to(root)), Path("/"))
    return str(Path(path).relative_to(root.parent))


def _holder(layers, path):
    """Return ``file: `` of the last layer that holds a key path, nothing if none does."""
    holders = [file for file, held in layers if path and _holds(held, path)]
    return f"{holders[-1]}: " if holders else ""


def _holds(held, path):
    for key in path:
        if isinstance(held, list):
            held = dict(enumerate(held))
        keys = {str(one): one for one in held} if isinstance(held, dict) else {}
        if key not in keys:
            return False
        held = held[keys[key]]
    return True
