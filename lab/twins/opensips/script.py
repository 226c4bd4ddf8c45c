"""The routing script: runs a parsed configuration's routes over one message."""

import contextlib
import re
from collections.abc import Callable

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
    Net,
    Return,
    Statement,
    Switch,
    Value,
    While,
)
from context import Cell, Context, ScriptExit
from engine import Engine
from pv import Variable
from values import Reference, Values, in_net

_MAX_LOOPS = 100
_LEVELS = {"L_ALERT": -3, "L_CRIT": -2, "L_ERR": -1, "L_WARN": 1, "L_NOTICE": 2, "L_INFO": 3,
           "L_DBG": 4}  # fmt: skip


class RouteReturn(Exception):  # noqa: N818 (not an error)
    """return(n) carries n."""


class LoopBreak(Exception):  # noqa: N818 (not an error)
    """break"""


class Script:
    """Interprets `config`; `run` never raises for what a message holds."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config

    def run(self, context: Context, kind: str = "route", name: str = "") -> None:
        """Run one route to its end."""
        body = self.config.routes.get((kind, name))
        if body:
            _Run(self, context).route(body)

    def function(self, name: str) -> Callable[..., int] | None:
        """Who does a script function: the core's, or a module's."""
        for owner in self.engine.features.values():
            if found := getattr(owner, f"do_{name}", None):
                return found  # type: ignore[no-any-return]
        return None


class _Run:
    """One message's way through the script."""

    def __init__(self, script: Script, context: Context) -> None:
        self._script, self._context = script, context
        self._engine, self._config = script.engine, script.config
        self._values = Values(script.engine, context)

    def route(self, body: tuple[Statement, ...]) -> None:
        try:
            self._block(body)
        except (ScriptExit, RouteReturn):
            return

    def _block(self, statements: tuple[Statement, ...]) -> None:
        for statement in statements:
            match statement:
                case If(condition, then, otherwise):
                    self._block(then if self._true(condition) else otherwise)
                case Assign():
                    self._assign(statement)
                case Return(value):
                    number = self._values.read(value) if isinstance(value, Variable) else value
                    raise RouteReturn(int(number or 0))
                case While() | ForEach() | Switch():
                    with contextlib.suppress(LoopBreak):
                        self._loop(statement)
                case Call():
                    self._call(statement)

    def _loop(self, statement: While | ForEach | Switch) -> None:
        if isinstance(statement, While):
            for _ in range(_MAX_LOOPS):
                if not self._true(statement.condition):
                    return
                self._block(statement.body)
            self._engine.log.error("ERROR:core:do_action: max while loops reached")
        elif isinstance(statement, ForEach):
            over = statement.over
            for number in range(_MAX_LOOPS):
                value = self._values.read(Variable(over.name, over.inner, str(number)))
                if value is None:
                    return
                self._values.write(statement.variable, value)
                self._block(statement.body)
        else:
            value = self._values.read(statement.variable)
            matched = False
            for case, body in statement.cases:  # without a break one runs into the next
                matched = matched or case is None or _compare(value, "==", case)
                if matched:
                    self._block(body)

    # values

    def _true(self, value: Value) -> bool:
        match value:
            case Logic("or", parts):
                return any(self._true(part) for part in parts)
            case Logic("and", parts):
                return all(self._true(part) for part in parts)
            case Logic("not", parts):
                return not self._true(parts[0])
            case Logic("assign", parts):
                return self._assign(parts[0])  # type: ignore[arg-type]
            case Compare(left, operator, right):
                return self._compared(left, operator, right)
            case Call():
                return self._call(value) > 0
        result = self._evaluate(value)
        return result != 0 if isinstance(result, int) else bool(result)

    def _compared(self, left: Variable, operator: str, right: object) -> bool:
        value = self._values.read(left)
        if right is None:
            return (value is None) == (operator == "==")
        if isinstance(right, Net):
            return in_net(value, right.text) == (operator == "==")
        other = self._values.read(right) if isinstance(right, Variable) else right
        return _compare(value, operator, other)  # type: ignore[arg-type]

    def _evaluate(self, value: Value) -> Cell:
        match value:
            case Variable():
                return self._values.read(value)
            case Call():
                return self._call(value)
            case Math():
                return self._math(value)
            case str() | int() | None:
                return value
        return int(self._true(value))

    def _math(self, value: Math) -> Cell:
        left, right = self._evaluate(value.left), self._evaluate(value.right)
        if isinstance(left, str) and isinstance(right, str) and value.operator == "+":
            return left + right
        if not isinstance(left, int) or not isinstance(right, int):
            self._engine.log.error("ERROR:core:eval_elem: invalid string operands")
            return None
        return _calculate(left, value.operator, right)

    def _assign(self, statement: Assign) -> bool:
        value = self._evaluate(statement.value)
        operator = statement.operator
        if operator not in ("=", ":="):
            left = self._values.read(statement.variable) or 0
            value = self._math(Math(left, operator[0], value))
        if value is None and isinstance(statement.value, Math):
            self._engine.log.warning(
                "WARNING:core:do_assign: no value in right expression at %s", statement.place
            )
            return False
        self._values.write(statement.variable, value, replace=operator == ":=")
        return True

    # calls

    def _call(self, call: Call) -> int:
        """Run a function: positive is true, and 0 ends the script, as in OpenSIPS."""
        match call.name:
            case "":
                return 1
            case "exit" | "drop":
                raise ScriptExit
            case "break":
                raise LoopBreak
            case "xlog" | "log" | "xdbg":
                result = self._log(call)
            case "route":
                result = self._route(call)
            case _:
                handler = self._script.function(call.name)
                if handler is None:  # start.py has refused it; a reload may have brought it
                    self._engine.log.error("ERROR:twin:start: this twin has no %s", call.name)
                    raise ScriptExit
                result = int(handler(self._context, *self._arguments(call)))
        if result == 0:
            raise ScriptExit
        self._values.result = result
        return result

    def _arguments(self, call: Call) -> list[object]:
        function = self._config.function(call.name)
        arguments: list[object] = []
        for number, given in enumerate(call.arguments):
            parameter = function.parameters[number] if function else None
            value: object = given
            if isinstance(given, Variable):
                writes = parameter is not None and parameter.kinds == "v"
                value = Reference(self._values, given) if writes else self._values.read(given)
            elif isinstance(given, str) and parameter and parameter.expanded:
                value = self._expand(given)
            if parameter and parameter.kinds == "i" and isinstance(value, str):
                value = int(value) if value.lstrip("-").isdecimal() else 0
            arguments.append(value)
        return arguments

    def _expand(self, text: str) -> str:
        if "$" not in text:
            return text
        return self._values.expand(pv.parse_format(text, self._config.modules))

    def _log(self, call: Call) -> int:
        *level, text = call.arguments
        name = str(level[0]) if level else "L_NOTICE"
        if _LEVELS.get(name, 2) <= int(self._config.globals.get("log_level", "2")):
            shown = self._expand(str(text)).rstrip("\n")
            self._engine.log.warning("%s:%s", name.removeprefix("L_"), shown)
        return 1

    def _route(self, call: Call) -> int:
        first, *rest = call.arguments
        name = self._values.read(first) if isinstance(first, Variable) else self._expand(str(first))
        outer = self._values.parameters
        self._values.parameters = [
            self._values.read(one) if isinstance(one, Variable) else one for one in rest
        ]
        try:
            self._block(self._config.routes["route", str(name)])
        except RouteReturn as returned:
            return int(returned.args[0])
        finally:
            self._values.parameters = outer
        return 1


def _calculate(left: int, operator: str, right: int) -> int | None:
    if operator in "/%" and right == 0:
        return None
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return int(left / right)
        case "%":
            return left % right
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<":
            return left << right
        case ">>":
            return left >> right
    return ~right


def _compare(left: Cell, operator: str, right: Cell) -> bool:
    """As measured: NULL differs from all, and text is never compared with a number."""
    if left is None or right is None:
        return operator in ("!=", "!~") and left is not right
    if operator in ("=~", "!~"):
        found = re.search(str(right), str(left), re.IGNORECASE) is not None
        return found == (operator == "=~")
    if isinstance(left, int) and isinstance(right, str):
        left = str(left)
    if isinstance(left, str) and isinstance(right, int):
        return False
    match operator:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right  # type: ignore[operator]
        case ">":
            return left > right  # type: ignore[operator]
        case "<=":
            return left <= right  # type: ignore[operator]
    return left >= right  # type: ignore[operator]
