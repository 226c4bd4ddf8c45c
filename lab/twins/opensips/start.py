"""What the real daemon finds wrong only when it starts, and what this twin cannot do at all."""

import logging
import re
import socket
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
    mismatch,
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
_DS_COLUMNS = ("setid", "destination", "state", "weight", "priority", "attrs", "description",
               "socket", "probe_mode")  # fmt: skip


def check(config: Config) -> None:
    """StartError in the words of the real one."""
    for statements in config.routes.values():
        for part in _parts(statements):
            if isinstance(part, Call):
                _check_call(config, part)
            elif isinstance(part, Compare) and part.operator in ("=~", "!~"):
                _check_expression(part)
    events = any(kind == "event_route" for kind, _ in config.routes)
    if events and "event_route" not in config.modules:
        raise StartError(
            "ERROR:core:fix_rls: event_route used but 'event_route' module not loaded!"
        )


def check_modules(config: Config) -> None:
    """StartError for what the modules do not take of their parameters; a reload does not ask."""
    if "mi_datagram" in config.modules and not config.parameter("mi_datagram", "socket_name", ""):
        raise StartError("ERROR:mi_datagram:mi_mod_init: missing modparam: 'socket_name'")
    for name, default in (("fr_timeout", 5), ("fr_inv_timeout", 120)):
        if int(config.parameter("tm", name, default)) < 2:
            timer = name.upper().replace("TIMEOUT", "TIMER")
            raise StartError(
                f"ERROR:tm:tm_init_timers: {timer} must be at least 2\n"
                "ERROR:tm:mod_init: timer init failed"
            )
    mode = config.parameter("dialog", "db_mode", 0)
    if mode not in range(4):
        raise StartError(f"ERROR:dialog:mod_init: unsupported db_mode {mode}")
    for code in str(config.parameter("dispatcher", "options_reply_codes", "")).split(","):
        if code.strip() and not code.strip().isdecimal():
            told = "Bad format for options_reply_code parameter"
            raise StartError(
                f"ERROR:core:parse_reply_codes: Bad format - not am integer [{code}]\n"
                f"ERROR:dispatcher:mod_init: {told} - Need a code list separated by commas"
            )
    for name in _DS_COLUMNS:
        column = config.parameter("dispatcher", f"{name}_col", name)
        if column != name:
            raise StartError(f"ERROR:twin:start: this twin has no {name}_col <{column}>")
    if "httpd" in config.modules:
        _try_http(config)


def _try_http(config: Config) -> None:
    """Say what the real one says of an address that is not ours; it stays up all the same."""
    address = str(config.parameter("httpd", "ip", "")) or "0.0.0.0"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, int(config.parameter("httpd", "port", 8888))))
        except OSError:
            logging.getLogger("httpd").error("httpd_proc: unable to start http daemon")


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
                raise StartError(f"ERROR:twin:start: this twin has no {missing}{place}")


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
        if wrong := mismatch(parameter, given) if parameter else "":
            raise _unfixed(call, f"ERROR:core:fix_cmd: Param [{number}] expected to be {wrong}")
        if told := _unfit(call.name, number, given):
            raise _unfixed(call, told)
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
        if told:
            raise _unfixed(call, f"{told}\nERROR:core:fix_cmd: Fixup failed for param [{number}]")


def _unfixed(call: Call, told: str) -> StartError:
    return StartError(
        f"{told}\nERROR:core:fix_actions: Failed to fix command <{call.name}>\n"
        f"ERROR:core:fix_actions: fixing failed (code=-6) at {call.place}"
    )


def _unfit(name: str, number: int, given: object) -> str:
    """What a function has against a literal of the right type."""
    failed = f"\nERROR:core:fix_cmd: Fixup failed for param [{number}]"
    match name, number, given:
        case "ds_select_dst", 3, str() if set(given) - set(" fFuUdDaA"):
            return f"ERROR:dispatcher:fixup_ds_flags: Invalid definition{failed}"
        case "send_reply", 1, int() if not 100 <= given <= 699:
            told = f"wrong code: {given}, allowed values: 1xx - 6xx only!"
            return f"ERROR:signaling:fixup_sig_send_reply: {told}{failed}"
        case "is_method", 1, str() if re.search(r"[^\s,|]\s+[^\s,|]", given):
            told = "ERROR:core:parse_methods: comma expected"
            return f"{told}\nERROR:sipmsgops:fixup_method: bad method names{failed}"
        case "t_check_status", 1, str():
            try:
                re.compile(given)
            except re.error:
                return f"ERROR:core:fixup_regcomp: bad re {given}"
    return ""


def _check_expression(part: Compare) -> None:
    if isinstance(part.right, str):
        try:
            re.compile(part.right)
        except re.error:
            raise StartError(
                f'CRITICAL:core:fix_expr: bad re "{part.right}"\n'
                "ERROR:core:main: failed to fix configuration with err code -3"
            ) from None
