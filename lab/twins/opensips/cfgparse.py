"""An opensips.cfg as a structure, refused where `opensips -C` refuses it.

What only fails when the daemon starts (an undefined route, a missing driver) is not looked at
here; `check_start` in daemon.py does that, as the real one does it later too.
"""

import socket
from dataclasses import dataclass, field
from pathlib import Path

from catalogue import FUNCTIONS, GLOBALS, PARAMETERS
from cfglexer import ConfigError, Token, tokens, unquote

_ROUTES = ("route", "failure_route", "onreply_route", "branch_route", "error_route", "local_route",
           "startup_route")  # fmt: skip
_COMPARISONS = ("==", "!=", "=~", "!~", "<", ">", "<=", ">=")


@dataclass(frozen=True)
class Variable:
    """A pseudo-variable such as $shv(draining)."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function called with literal or variable arguments."""

    name: str
    arguments: tuple["str | int | Variable", ...]
    place: str


@dataclass(frozen=True)
class Compare:
    """left operator right."""

    left: "Value"
    operator: str
    right: "Value"


@dataclass(frozen=True)
class Logic:
    """`and` / `or` / `not` over conditions."""

    kind: str
    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Assign:
    """$name = value"""

    variable: Variable
    value: "Value"


@dataclass(frozen=True)
class If:
    """A condition with its two branches."""

    condition: "Value"
    then: tuple["Statement", ...]
    otherwise: tuple["Statement", ...]


@dataclass(frozen=True)
class Return:
    """return, or return(n)."""

    value: int


Value = str | int | Variable | Call | Compare | Logic
Statement = Call | Assign | If | Return


@dataclass
class Config:
    """A configuration; `routes` is {(kind, name): statements}, the main route has no name."""

    globals: dict[str, str] = field(default_factory=dict)
    sockets: list[tuple[str, str, int]] = field(default_factory=list)  # protocol, address, port
    modules: list[str] = field(default_factory=list)
    parameters: dict[str, dict[str, list[str | int]]] = field(default_factory=dict)
    routes: dict[tuple[str, str], tuple[Statement, ...]] = field(default_factory=dict)

    def parameter(self, module: str, name: str, default: "str | int") -> "str | int":
        """The last value set, else the default."""
        values = self.parameters.get(module, {}).get(name)
        return values[-1] if values else default


class Parser:
    """Recursive descent over the tokens; ConfigError at the first thing OpenSIPS would refuse."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tokens = list(tokens(file))
        self._at = 0
        self.config = Config()

    def parse(self) -> Config:
        while (token := self._skip_newlines()) is not None:
            self._top_level(token)
        if ("route", "") not in self.config.routes:
            raise ConfigError("ERROR:core:main: no main routing logic in the script")
        self._resolve_sockets()
        return self.config

    def _skip_newlines(self) -> Token | None:
        while self._at < len(self._tokens) and self._tokens[self._at].kind == "newline":
            self._at += 1
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> Token:
        token = self._skip_newlines()
        if token is None:
            last = self._tokens[-1] if self._tokens else Token("", "", str(self._file), 1, 1)
            raise last.error("syntax error")
        self._at += 1
        return token

    def _peek(self) -> str:
        token = self._skip_newlines()
        return token.text if token else ""

    def _expect(self, text: str, reason: str = "syntax error") -> Token:
        token = self._next()
        if token.text != text:
            raise token.error(reason)
        return token

    def _top_level(self, token: Token) -> None:
        if token.text == "loadmodule":
            self._load_module()
        elif token.text == "modparam":
            self._set_parameter()
        elif token.text in _ROUTES:
            self._route()
        elif token.kind == "word":
            self._global()
        else:
            raise token.error("syntax error")

    def _load_module(self) -> None:
        self._at += 1
        token = self._next()
        name = unquote(token.text).rsplit("/", 1)[-1].removesuffix(".so")
        if token.kind != "string" or name not in _known_modules():
            raise token.error(f"failed to load module {name}.so")
        self.config.modules.append(name)

    def _set_parameter(self) -> None:
        self._at += 1
        self._expect("(")
        module, comma, name = self._next(), self._next(), self._next()
        self._expect(",")
        value = self._next()
        self._expect(")")
        if comma.text != "," or module.kind != "string" or name.kind != "string":
            raise module.error("Invalid arguments")
        module_name, parameter = unquote(module.text), unquote(name.text)
        wanted = PARAMETERS.get(module_name, {}).get(parameter)
        given = "str" if value.kind == "string" else "int" if value.kind == "number" else ""
        if module_name not in self.config.modules or wanted is None or given != wanted:
            raise name.error(
                f"Parameter <{parameter}> not found in module <{module_name}> - can't set"
            )
        parsed: str | int = unquote(value.text) if given == "str" else _integer(value.text)
        self.config.parameters.setdefault(module_name, {}).setdefault(parameter, []).append(parsed)

    def _global(self) -> None:
        name = self._next()
        assign = self._tokens[self._at] if self._at < len(self._tokens) else name
        if assign.text != "=":
            raise name.error("syntax error")
        if name.text not in GLOBALS:
            raise assign.error("unknown config variable")
        self._at += 1
        words: list[str] = []
        while self._at < len(self._tokens) and self._tokens[self._at].kind != "newline":
            words.append(self._tokens[self._at].text)
            self._at += 1
        if not words:
            raise assign.error("syntax error")
        if name.text == "socket":
            self._socket(name, "".join(words))
        else:
            text = words[0]
            self.config.globals[name.text] = unquote(text) if text[0] in "\"'" else " ".join(words)

    def _socket(self, token: Token, text: str) -> None:
        protocol, _, rest = text.partition(":")
        address, _, port = rest.split("as")[0].partition(":")
        if protocol not in ("udp", "tcp", "tls", "bin", "ws", "wss") or not address:
            raise token.error("protocol expected")
        if port and not port.isdecimal():
            raise token.error("port number expected")
        self.config.sockets.append((protocol, address, int(port or 5060)))

    def _resolve_sockets(self) -> None:
        if "proto_udp" not in self.config.modules:
            raise ConfigError("ERROR:core:main: no transport protocol loaded")
        for _, address, port in self.config.sockets:
            try:
                socket.getaddrinfo(address, port, socket.AF_INET)
            except OSError:
                raise ConfigError(
                    f"ERROR:core:fix_socket_list: could not resolve {address}"
                ) from None

    def _route(self) -> None:
        kind = self._next()
        name = ""
        if self._peek() == "[":
            self._next()
            name = self._next().text.strip('"')
            self._expect("]")
        if (kind.text, name) in self.config.routes:
            raise ConfigError(
                f"ERROR:core:get_script_route_idx: Script route <{name or '0'}> is redefined"
            )
        self.config.routes[kind.text, name] = self._block()

    def _block(self) -> tuple[Statement, ...]:
        self._expect("{", "invalid  route  statement")
        statements: list[Statement] = []
        while self._peek() != "}":
            statements += self._statement()
        self._next()
        return tuple(statements)

    def _statement(self) -> tuple[Statement, ...]:
        token = self._next()
        if token.text == "{":
            self._at -= 1
            return self._block()
        if token.text == "if":
            return (self._if(),)
        if token.kind == "variable":
            self._expect("=")
            statement: Statement = Assign(_variable(token), self._value())
        elif token.text in ("exit", "drop"):
            if self._peek() == "(":
                self._next()
                self._expect(")")
            statement = Call(token.text, (), token.place)
        elif token.text == "return":
            statement = Return(self._return_value())
        elif token.kind == "word":
            statement = self._call(token)
        else:
            raise token.error("syntax error")
        self._expect(";", "bad command: missing ';'?")
        return (statement,)

    def _return_value(self) -> int:
        if self._peek() != "(":
            return 1
        self._next()
        sign = -1 if self._peek() == "-" else 1
        if sign < 0:
            self._next()
        value = _integer(self._next().text)
        self._expect(")")
        return sign * value

    def _if(self) -> If:
        self._expect("(")
        condition = self._or()
        self._expect(")")
        then = self._statement()
        otherwise: tuple[Statement, ...] = ()
        if self._peek() == "else":
            self._next()
            otherwise = self._statement()
        return If(condition, then, otherwise)

    def _or(self) -> Value:
        parts = [self._and()]
        while self._peek() in ("||", "or"):
            self._next()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Logic("or", tuple(parts))

    def _and(self) -> Value:
        parts = [self._not()]
        while self._peek() in ("&&", "and"):
            self._next()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Logic("and", tuple(parts))

    def _not(self) -> Value:
        if self._peek() in ("!", "not"):
            self._next()
            return Logic("not", (self._not(),))
        if self._peek() == "(":
            self._next()
            inner = self._or()
            self._expect(")")
            return inner
        left = self._value()
        if self._peek() in _COMPARISONS:
            return Compare(left, self._next().text, self._value())
        return left

    def _value(self) -> Value:
        token = self._next()
        match token.kind:
            case "string":
                return unquote(token.text)
            case "number":
                return int(token.text)
            case "variable":
                return _variable(token)
            case "word" if self._peek() == "(":
                return self._call(token)
            case "word":
                return token.text
        raise token.error("syntax error")

    def _call(self, token: Token) -> Call:
        self._expect("(", "syntax error")
        arguments: list[str | int | Variable] = []
        while self._peek() != ")":
            value = self._value()
            if not isinstance(value, str | int | Variable):
                raise token.error(f"bad arguments for command <{token.text}>")
            arguments.append(value)
            if self._peek() == ",":
                self._next()
            elif self._peek() != ")":
                raise self._next().error(f"bad arguments for command <{token.text}>")
        closing = self._next()
        self._check_call(token, closing, len(arguments))
        return Call(token.text, tuple(arguments), f"{token.file}:{token.line}")

    def _check_call(self, token: Token, closing: Token, count: int) -> None:
        known = FUNCTIONS.get(token.text)
        if known is None or (known[0] and known[0] not in self.config.modules):
            raise closing.error(f"unknown command <{token.text}>, missing loadmodule?")
        _, fewest, most = known
        if count < fewest:
            raise closing.error(f"too few parameters for command <{token.text}>")
        if count > most:
            raise closing.error(f"too many parameters for command <{token.text}>")


def _integer(text: str) -> int:
    """A number as the lexer of the real one reads it: a leading zero means octal."""
    return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)


def _variable(token: Token) -> Variable:
    return Variable(token.text.removeprefix("$").removeprefix("(").removesuffix(")")
                    if token.text.startswith("$(") else token.text[1:])  # fmt: skip


def _known_modules() -> set[str]:
    return {module for module, _, _ in FUNCTIONS.values() if module} | set(PARAMETERS)


def parse(file: Path) -> Config:
    """Parse a configuration; ConfigError with OpenSIPS's own words."""
    return Parser(file).parse()
