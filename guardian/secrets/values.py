"""What a value must be before it may stand in a file, checked without ever showing it."""

import json
import re

from guardian.secrets.declarations import ACM, FILE, Declaration
from guardian.secrets.failures import UNFIT, SecretError

PLACEHOLDERS = {"", "False", "None", "null", "**********"}
_BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LIMIT = 8 * 1024
_LIMITS = {ACM: 64 * 1024, FILE: 64 * 1024}  # a chain may well be longer


def accepted(raw: str, declaration: Declaration) -> object:
    """Return the value that a declaration asks for out of what its source holds.

    Raises SecretError (unfit): empty, a placeholder, too long, binary, not the JSON it must be,
    without the field.
    """
    if declaration.field is not None:
        return _checked(_field(raw, declaration.field), declaration)
    return _checked(_parsed(raw) if declaration.json else raw, declaration)


def accepted_dummy(declaration: Declaration, account: str) -> object:
    """Return what nodes of an account without AWS get; None for an optional one without.

    Raises SecretError when there is none, or one that could stand in no file.
    """
    dummy = declaration.dummy
    if dummy is None:
        if not declaration.required:
            return None
        raise SecretError(UNFIT, f"no dummy, which nodes of account {account} get instead")
    return _checked(dummy, declaration)


def _field(raw: str, field: str) -> object:
    found = _parsed(raw)
    if not isinstance(found, dict) or field not in found:
        raise SecretError(UNFIT, f"field {field} is missing from its JSON")
    return found[field]


def _parsed(raw: str) -> object:
    _refuse_placeholder(raw)  # what is empty is that, before it is no JSON
    try:
        return json.loads(raw)
    except ValueError:
        raise SecretError(UNFIT, "is not the JSON it must be") from None


def _checked(value: object, declaration: Declaration) -> object:
    limit = _LIMITS.get(declaration.kind, _LIMIT)
    if not declaration.json:
        if not isinstance(value, str):
            raise SecretError(UNFIT, "is no string; say json: true if it stands for more")
        if _quoted(value):
            raise SecretError(UNFIT, "is a JSON text in quotes; say json: true to have it read")
    _check_leaves(value)
    size = len((value if isinstance(value, str) else json.dumps(value)).encode())
    if size > limit:
        raise SecretError(UNFIT, f"is longer than {limit} bytes")
    if value is True or value is False or value == {} or value == []:
        raise SecretError(UNFIT, "holds nothing")
    return value


def _quoted(value: str) -> bool:
    text = value.strip()
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return False
    try:
        return isinstance(json.loads(text), str)
    except ValueError:
        return False


def _check_leaves(value: object) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _check_leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_leaves(inner)
    elif value is None or isinstance(value, str):
        _refuse_placeholder(value or "")


def _refuse_placeholder(text: str) -> None:
    stripped = text.strip()
    if not stripped:
        raise SecretError(UNFIT, "is empty")
    if stripped in PLACEHOLDERS:
        raise SecretError(UNFIT, "is a placeholder (False, None, null or asterisks)")
    if _BINARY.search(text):
        raise SecretError(UNFIT, "is binary")
