"""What the real daemon finds wrong only when it starts, and what this twin cannot do at all."""

import re
from collections.abc import Iterator

import pv
from cfgparse import (
    Assign,
    Call,
    Compare,
    Config,
    ForEach,
    If,
    Logic,
    Math,
    Return,
    Switch,
    While,
)
from context import StartError
from engine import Engine
from pv import Variable
from script import Script
from values import can_read, can_write

_WORDS = frozenset(("xlog", "log", "xdbg", "exit", "drop", "break", "route", ""))
_ROUTES_OF = {
    "t_on_failure": ("failure_route", "tm:fixup_froute: failure route"),
    "t_on_reply": ("onreply_route", "tm:fixup_rroute: onreply route"),
    "t_on_branch": ("branch_route", "tm:fixup_broute: branch route"),
}
# The flags a function takes, by the number of the argument that holds them.
_FLAGS = {"ds_select_dst": (2, frozenset("fusdSFMD"))}


def check(config: Config) -> None:
    """StartError in the words of the real one."""
    for statements in config.routes.values():
        for part in _parts(statements):
            if isinstance(part, Call):
                _check_call(config, part)
            elif isinstance(part, Compare) and part.operator in ("=~", "!~"):
                _check_expression(part)
    if "mi_datagram" in config.modules and not config.parameter("mi_datagram", "socket_name", ""):
        raise StartError("ERROR:mi_datagram:mi_mod_init: missing modparam: 'socket_name'")


def check_able(engine: Engine, script: Script) -> None:
    """StartError for what a real OpenSIPS could do and this twin cannot; it never pretends."""
    for statements in script.config.routes.values():
        for part in _parts(statements):
            missing = ""
            if isinstance(part, Call) and part.name not in _WORDS:
                missing = "" if script.function(part.name) else part.name
            elif isinstance(part, Assign):
                missing = "" if can_write(part.variable) else f"${part.variable.name} to write"
            elif isinstance(part, Variable) and not can_read(part):
                changes = "".join(f"{{{name}}}" for name, _ in part.transformations)
                missing = f"${part.name}{changes}"
            if missing:
                place = f" at {part.place}" if isinstance(part, Call | Assign) else ""
                raise StartError(f"ERROR:twin: this twin has no {missing}{place}")


def _parts(thing: object) -> Iterator[object]:
    """Everything in statements and expressions, the inner before the outer."""
    match thing:
        case tuple():
            for one in thing:
                yield from _parts(one)
        case If(condition, then, otherwise):
            yield from _parts((condition, then, otherwise))
        case While(condition, body):
            yield from _parts((condition, body))
        case ForEach(variable, over, body):
            yield from _parts((over, body))
        case Switch(variable, cases):
            yield from _parts((variable, tuple(body for _, body in cases)))
        case Logic(_, parts):
            yield from _parts(parts)
        case Math(left, _, right) | Compare(left, _, right):
            yield thing
            yield from _parts((left, right))
        case Assign(_, _, value):
            yield thing
            yield from _parts((value,))
        case Return(value):
            yield from _parts((value,))
        case Call():
            yield thing
            yield from _parts(thing.arguments)
        case Variable():
            yield thing


def _check_call(config: Config, call: Call) -> None:
    first = call.arguments[0] if call.arguments else ""
    if call.name == "route" and isinstance(first, str) and "$" not in first:
        if ("route", first) not in config.routes:
            raise StartError(
                f"ERROR:core:fix_actions: called route [{first}] is not defined\n"
                "ERROR:core:fix_actions: failed to validate a route() statement (type 3)\n"
                f"ERROR:core:fix_actions: fixing failed (code=-6) at {call.place}"
            )
        return
    function = config.function(call.name)
    for number, given in enumerate(call.arguments, start=1):
        parameter = function.parameters[number - 1] if function else None
        if not isinstance(given, str) or (parameter and not parameter.expanded):
            continue
        told = ""
        try:
            parts = pv.parse_format(given, config.modules)
        except ValueError as err:
            told = str(err)
            parts = ()
        if not told and call.name in _ROUTES_OF and len(parts) == 1 and parts[0] == given:
            kind, words = _ROUTES_OF[call.name]
            if (kind, given) not in config.routes:
                told = f"ERROR:{words} <{given}> does not exist"
        if not told and call.name in _FLAGS and _FLAGS[call.name][0] == number - 1:
            bad = set(given) - _FLAGS[call.name][1]
            told = f"ERROR:dispatcher:fixup_flags: invalid flag {min(bad)}" if bad else ""
        if told:
            raise StartError(
                f"{told}\nERROR:core:fix_cmd: Fixup failed for param [{number}]\n"
                f"ERROR:core:fix_actions: Failed to fix command <{call.name}>\n"
                f"ERROR:core:fix_actions: fixing failed (code=-6) at {call.place}"
            )


def _check_expression(part: Compare) -> None:
    if isinstance(part.right, str):
        try:
            re.compile(part.right)
        except re.error:
            raise StartError(
                f'CRITICAL:core:fix_expr: bad re "{part.right}"\n'
                "ERROR:core:main: failed to fix configuration with err code -3"
            ) from None
