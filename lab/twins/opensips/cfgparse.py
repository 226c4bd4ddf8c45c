"""An opensips.cfg as a structure, refused where `opensips -C` refuses it and in its words.

The parser ends at the first thing that is wrong; the real one goes on and finds more. What only
fails when the daemon starts (an undefined route, a bad flag) is looked at by start.py.
"""

import logging
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pv
from catalogue import CORE, GLOBALS, MODULES, Function, Parameter
from cfglexer import ConfigError, Token, tokens, unquote
from pv import Variable
from release import release

ROUTES = {
    "route": "q", "failure_route": "f", "onreply_route": "o", "branch_route": "b",
    "error_route": "e", "local_route": "l", "startup_route": "s", "timer_route": "t",
    "event_route": "v",
}  # fmt: skip
_NAMED = ("failure_route", "branch_route", "timer_route", "event_route")
_COMPARISONS = ("==", "!=", "=~", "!~", "<", ">", "<=", ">=")
_ASSIGNMENTS = ("=", ":=", "+=", "-=", "/=", "*=", "%=", "&=", "|=", "^=")
_ARITHMETIC = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")
_DRIVERS = ("db_text", "db_sqlite", "db_mysql", "db_postgres")
_YES, _NO = ("yes", "true", "on", "enable"), ("no", "false", "off", "disable")
# Which module serves a protocol, and its port where a socket names none.
PROTOCOLS = {"udp": ("proto_udp", 5060), "tcp": ("proto_tcp", 5060),
             "tls": ("proto_tls", 5061), "ws": ("proto_ws", 80), "wss": ("proto_wss", 443),
             "bin": ("proto_bin", 5555)}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A function called with literals, variables, or None for what was left out."""

    name: str
    arguments: tuple["str | int | Variable | None", ...]
    place: str


@dataclass(frozen=True)
class Compare:
    """left operator right; a right of None is NULL."""

    left: Variable
    operator: str
    right: "str | int | Variable | Net | None"


@dataclass(frozen=True)
class Net:
    """An address or a network, written without quotes."""

    text: str


@dataclass(frozen=True)
class Logic:
    """`and` / `or` / `not` over conditions."""

    kind: str
    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Math:
    """left operator right, of numbers or of strings."""

    left: "Value"
    operator: str
    right: "Value"


@dataclass(frozen=True)
class Assign:
    """$name operator value; a value of None is NULL."""

    variable: Variable
    operator: str
    value: "Value"
    place: str


@dataclass(frozen=True)
class If:
    """A condition with its two branches."""

    condition: "Value"
    then: tuple["Statement", ...]
    otherwise: tuple["Statement", ...]


@dataclass(frozen=True)
class While:
    """while (condition) { … }"""

    condition: "Value"
    body: tuple["Statement", ...]


@dataclass(frozen=True)
class ForEach:
    """for ($variable in $list) { … }"""

    variable: Variable
    over: Variable
    body: tuple["Statement", ...]


@dataclass(frozen=True)
class Switch:
    """switch ($variable); the default has a value of None and comes last."""

    variable: Variable
    cases: tuple[tuple[str | int | None, tuple["Statement", ...]], ...]


@dataclass(frozen=True)
class Return:
    """return, or return(n)."""

    value: "int | Variable"


Value = str | int | Variable | Call | Compare | Logic | Math | Net | None
Statement = Call | Assign | If | Return | While | ForEach | Switch


@dataclass(frozen=True)
class Listen:
    """A `socket=`; `advertised` is what others are told, port 0 there means the same port."""

    protocol: str
    address: str
    port: int
    advertised: tuple[str, int] | None = None
    tag: str = ""


@dataclass
class Config:
    """A configuration; `routes` is {(kind, name): statements}, the main route has no name."""

    globals: dict[str, str] = field(default_factory=dict)
    listens: list[Listen] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    parameters: dict[str, dict[str, list[str | int]]] = field(default_factory=dict)
    routes: dict[tuple[str, str], tuple[Statement, ...]] = field(default_factory=dict)

    @property
    def sockets(self) -> list[tuple[str, str, int]]:
        """Protocol, address and port of each socket."""
        return [(one.protocol, one.address, one.port) for one in self.listens]

    def parameter(self, module: str, name: str, default: "str | int") -> "str | int":
        """The last value set, else the default."""
        values = self.parameters.get(module, {}).get(name)
        return values[-1] if values else default

    def function(self, name: str) -> Function | None:
        """A script function of the core or of a loaded module."""
        if name in CORE.functions:
            return CORE.functions[name]
        found = (MODULES[module].functions.get(name) for module in self.modules)
        return next((one for one in found if one), None)


class Parser:
    """Recursive descent over the tokens; ConfigError at the first thing OpenSIPS would refuse."""

    def __init__(self, file: Path) -> None:
        self._tokens = [token for token in tokens(file) if token.kind != "open"]
        self._at = 0
        self._kind = ""  # letter of the kind of route being read
        self._in = ("", "")  # kind and name of that route
        self._calls: list[tuple[tuple[str, str], Call, Function]] = []
        self._leads: dict[tuple[str, str], set[str]] = {}  # routes a route calls
        self._mpath = ""
        self.config = Config()

    def parse(self) -> Config:
        while self._here.kind != "end":
            self._top_level()
        self._check_arguments()
        self._check_sockets()
        self._check_needs()
        return self.config

    # tokens

    @property
    def _here(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._here
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _is(self, *texts: str) -> bool:
        return self._here.kind in ("word", "operator") and self._here.text in texts

    def _take(self, *texts: str) -> bool:
        """Take the token when it is one of these."""
        if self._is(*texts):
            self._next()
            return True
        return False

    def _expect(self, text: str, *reasons: str) -> Token:
        if not self._is(text):
            raise self._here.error("syntax error", *reasons)
        return self._next()

    def _expect_kind(self, kind: str, *reasons: str) -> Token:
        if self._here.kind != kind:
            raise self._here.error("syntax error", *reasons)
        return self._next()

    def _number(self, *reasons: str) -> int:
        """A number with or without a sign, hexadecimal with 0x and octal with 0 before it."""
        minus = self._is("-")
        self._take("-", "+")
        token = self._here
        if self._is(*_YES, *_NO):
            return int(self._next().text in _YES)
        try:
            value = _integer(token.text) if token.kind == "number" else None
        except ValueError:
            value = None
        if value is None:
            raise token.error("syntax error", *reasons)
        self._next()
        return -value if minus else value

    # everything outside of routes

    def _top_level(self) -> None:
        token = self._here
        if token.kind != "word":
            raise token.error("syntax error")
        if token.text in ROUTES:
            self._route()
        elif token.text == "loadmodule":
            self._load_module()
        elif token.text == "modparam":
            self._set_parameter()
        elif token.text in GLOBALS:
            self._global()
        else:
            raise token.error("syntax error", "")

    def _load_module(self) -> None:
        self._next()
        token = self._expect_kind("string", "string expected")
        path = unquote(token.text)
        name = path.rsplit("/", 1)[-1].removesuffix(".so")
        known = name in MODULES and (path.endswith(".so") or name in ("proto_udp", "proto_tcp"))
        known = known and (not self._mpath or Path(self._mpath).is_dir())
        if not known or name in self.config.modules:
            before = f"ERROR:core:load_module: module '{path}' not found in '{self._mpath}'"
            if name in self.config.modules:
                before = "ERROR:core:load_module: failed to load module"
            raise token.error(f"failed to load module {path}", before=before)
        self.config.modules.append(name)

    def _set_parameter(self) -> None:
        self._next()
        self._expect("(", "Invalid arguments")
        module = self._expect_kind("string", "Invalid arguments")
        self._expect(",", "Invalid arguments")
        name = self._expect_kind("string", "Invalid arguments")
        self._expect(",", "Invalid arguments")
        text = self._here.kind == "string"
        value: str | int = self._folded() if text else self._number("Invalid arguments")
        closing = self._expect(")", "Invalid arguments")
        module_name, parameter = unquote(module.text), unquote(name.text)
        wanted = MODULES.get(module_name)
        kind = wanted.parameters.get(parameter) if wanted else None
        if module_name not in self.config.modules:
            cause = f"no module matching {module_name} found"
        elif kind is None:
            cause = f"parameter <{parameter}> not found in module <{module_name}>"
        elif kind not in ("both", "str" if isinstance(value, str) else "int"):
            cause = f"type mismatch for parameter <{parameter}> in module <{module_name}>"
        elif parameter == "shvset" and "=" not in str(value):
            told = f"ERROR:cfgutils:param_set_xvar: unable to set shv parameter [{value}]"
            raise self._unset(closing, module_name, parameter, told)
        else:
            here = self.config.parameters.setdefault(module_name, {})
            here.setdefault(parameter, []).append(value)
            return
        told = f"ERROR:core:set_mod_param_regex: {cause}"
        raise self._unset(closing, module_name, parameter, told)

    def _unset(self, at: Token, module: str, parameter: str, told: str) -> ConfigError:
        cause = f"Parameter <{parameter}> not found in module <{module}> - can't set"
        return at.error(cause, before=told)

    def _folded(self) -> str:
        """Strings side by side are one."""
        text = unquote(self._expect_kind("string").text)
        while self._here.kind == "string":
            text += unquote(self._next().text)
        return text

    def _global(self) -> None:
        name = self._next().text
        self._expect("=")
        if name in ("socket", "listen"):
            self._socket()
            return
        if name == "alias":
            self.config.aliases.append(self._alias())
            return
        value = self._global_value(GLOBALS[name])
        self.config.globals[name] = value
        if name == "mpath":
            self._mpath = value

    def _global_value(self, kind: str) -> str:
        if kind == "s":
            return unquote(self._expect_kind("string", "string value expected").text)
        if kind == "b" and self._is(*_YES, *_NO):
            return "yes" if self._next().text in _YES else "no"
        if kind in "bn":
            expected = "boolean value expected" if kind == "b" else "number expected"
            number = self._number(expected)
            return str(number) if kind == "n" else "yes" if number else "no"
        token = self._here
        if token.kind not in ("word", "string", "number", "address"):
            raise token.error("syntax error")
        return unquote(self._next().text) if token.kind == "string" else self._host()

    def _host(self) -> str:
        """An address, an IPv6 address in brackets, a name in quotes or not, or an asterisk."""
        token = self._here
        if token.kind in ("address", "number"):
            return self._next().text
        if token.kind == "string":
            return unquote(self._next().text)
        if self._take("*"):
            return "*"
        if self._take("["):
            text = ""
            while not self._is("]"):
                if self._here.kind not in ("word", "number", "operator", "address"):
                    raise self._here.error("syntax error")
                text += self._next().text
            self._next()
            return text
        text = self._expect_kind("word").text
        while self._is(".", "-"):
            text += self._next().text
            text += self._expect_kind("word", "invalid hostname (use quotes if hostname"
                                      " has config keywords)").text  # fmt: skip
        return text

    def _port(self) -> int:
        """`:port`, 0 when there is none."""
        if not self._take(":"):
            return 0
        if self._take("any"):
            return 0
        return self._number("port number expected")

    def _protocol(self) -> str:
        expected = "ip address or hostname expected (use quotes if the hostname includes config"
        if self._here.kind == "number":
            self._next()
            raise self._here.error("syntax error", "protocol expected")
        token = self._expect_kind("word", f"{expected} keywords)")
        if token.text not in (*PROTOCOLS, "bins", "hep_udp", "hep_tcp", "smpp", "msrp", "sctp"):
            raise token.error(f"cannot handle protocol <{token.text}>")
        return token.text

    def _socket(self) -> None:
        protocol = self._protocol()
        self._expect(":")
        address, port = self._host(), self._port()
        advertised, tag = None, ""
        while True:
            if self._is("as", "AS"):
                token = self._next()
                if self._here.text in (*ROUTES, *GLOBALS, "loadmodule", "modparam"):
                    raise token.error("syntax error", "")
                advertised = self._host(), self._port()
            elif self._take("use_workers", "USE_WORKERS"):
                self._number()
            elif self._take("tag", "TAG"):
                tag = self._expect_kind("word").text
            elif self._take("use_auto_scaling_profile", "USE_AUTO_SCALING_PROFILE"):
                self._expect_kind("word")
            elif not self._take("anycast", "ANYCAST", "frag", "FRAG", "reuse_port", "REUSE_PORT"):
                break
        _, default = PROTOCOLS.get(protocol, ("", 5060))
        self.config.listens.append(Listen(protocol, address, port or default, advertised, tag))

    def _alias(self) -> str:
        if self._is("any", *PROTOCOLS):
            self._next()
            self._expect(":")
        host = self._host()
        self._port()
        return host

    # checks over the whole

    def _reached(self) -> set[tuple[str, str]]:
        """The routes `-C` looks into: those nobody calls wait for the start."""
        todo = [key for key in self.config.routes if key[0] != "route" or not key[1]]
        found = set(todo)
        while todo:
            led = {("route", name) for name in self._leads.get(todo.pop(), ())} - found
            found |= led
            todo += led
        return found

    def _check_arguments(self) -> None:
        reached = self._reached()
        for key, call, function in self._calls:
            if key not in reached:
                continue
            for number, given in enumerate(call.arguments, start=1):
                told = self._wrong(function.parameters[number - 1], given, number)
                if told:
                    raise ConfigError(
                        f"{told}\n"
                        f"ERROR:core:check_actions: check failed for function <{call.name}>,"
                        f" {call.place}\nERROR:core:main: bad function call in config file"
                    )

    def _wrong(
        self, parameter: Parameter, given: "str | int | Variable | None", number: int
    ) -> str:
        """What the real one says of an argument, empty when it is right."""
        if wrong := mismatch(parameter, given):
            return f"ERROR:core:check_cmd: Param [{number}] expected to be {wrong}"
        if isinstance(given, str) and parameter.expanded:
            try:
                pv.parse_format(given, self.config.modules)
            except ValueError as err:
                told = f"Failed to parse formatted string in param [{number}]"
                return f"{err}\nERROR:core:check_cmd: {told}"
        return ""

    def _check_sockets(self) -> None:
        if release() >= 36:
            self._leave_out_unresolved()
        for one in self.config.listens:
            module, _ = PROTOCOLS.get(one.protocol, ("", 0))
            if module not in self.config.modules:
                raise ConfigError(
                    "ERROR:core:fix_all_socket_lists: listeners found for protocol"
                    f" {one.protocol}, but no module can handle it\n"
                    "ERROR:core:main: failed to initialize list addresses"
                )
            outside = one.advertised[0] if one.advertised else ""
            for name, told in (
                (one.address, ""),
                (outside, "advertised name "),
            ):
                if name and name != "*" and not _resolves(name):
                    raise ConfigError(
                        f"ERROR:core:fix_socket_list: could not resolve {told}{name}\n"
                        "ERROR:core:main: failed to initialize list addresses"
                    )

    def _leave_out_unresolved(self) -> None:
        """From 3.6 on a socket whose name has no address is an error in the log only."""
        for one in [*self.config.listens]:
            if one.address != "*" and not _resolves(one.address):
                logging.getLogger("core").error("could not resolve %s", one.address)
                self.config.listens.remove(one)

    def _check_needs(self) -> None:
        loaded = set(self.config.modules)
        for module in self.config.modules:
            needs = list(MODULES[module].needs)
            if self.config.parameter(module, "db_url", ""):
                needs.append("sql")
            for needed in needs:
                if needed not in loaded and not (needed == "sql" and loaded & set(_DRIVERS)):
                    what = f"module {needed}, but it was not loaded!"
                    if needed == "sql":
                        what = "an sqldb module, but none was loaded!"
                    raise ConfigError(
                        f"WARNING:core:solve_module_dependencies: module {module} depends on"
                        f" {what}\n"
                        "ERROR:core:main: failed to solve module dependencies"
                    )

    # routes

    def _route(self) -> None:
        kind = self._next().text
        name = ""
        if kind in _NAMED or self._is("["):
            self._expect("[")
            name = self._route_name()
            if kind == "timer_route":
                self._expect(",")
                self._number()
            self._expect("]")
        self._kind, self._in = ROUTES[kind], (kind, name)
        self._expect("{", f"invalid {' ' if kind == 'route' else ''}{kind}"
                     f"{' ' if kind == 'route' else ''} statement")  # fmt: skip
        body = self._block(loop=False)
        if not body:  # an empty route is one statement too few
            raise self._tokens[self._at - 1].error("syntax error")
        if (kind, name) in self.config.routes:
            if not name:
                raise self._tokens[self._at - 1].error("overwriting default request routing table")
            raise ConfigError(
                f"ERROR:core:get_script_route_idx: Script route <{name}> is redefined\n"
                "ERROR:core:parse_opensips_cfg: bad config file (0 errors)"
            )
        self.config.routes[kind, name] = body

    def _route_name(self) -> str:
        token = self._here
        if token.kind not in ("word", "number", "string"):
            raise token.error("syntax error")
        text = self._next().text
        return unquote(text) if token.kind == "string" else text

    def _block(self, *, loop: bool) -> tuple[Statement, ...]:
        """Statements up to the closing brace; the opening one is taken already."""
        statements: list[Statement] = []
        while not self._is("}"):
            statements += self._statement(loop=loop)
        self._next()
        return tuple(statements)

    def _body(self, *, loop: bool) -> tuple[Statement, ...]:
        """What follows a condition: one statement or a block of them."""
        return self._block(loop=loop) if self._take("{") else self._statement(loop=loop)

    def _statement(self, *, loop: bool) -> tuple[Statement, ...]:
        token = self._here
        if self._take(";"):
            return (Call("", (), f"{token.file}:{token.line}"),)
        if self._take("if"):
            return (self._if(loop=loop),)
        if self._take("while"):
            self._expect("(")
            condition = self._or()
            self._expect(")")
            return (While(condition, self._body(loop=True)),)
        if self._take("for"):
            return (self._for(),)
        if self._take("switch"):
            return (self._switch(),)
        if self._is("break") and not loop:
            raise token.error("syntax error")
        if self._take("break"):
            self._expect(";")
            return (Call("break", (), f"{token.file}:{token.line}"),)
        if token.kind == "variable":
            statement: Statement = self._assign()
            self._expect(";")
            return (statement,)
        statement = self._command()
        self._expect(";", "bad command: missing ';'?")
        return (statement,)

    def _if(self, *, loop: bool) -> If:
        self._expect("(")
        condition = self._or()
        self._expect(")")
        then = self._body(loop=loop)
        otherwise = self._body(loop=loop) if self._take("else") else ()
        return If(condition, then, otherwise)

    def _for(self) -> ForEach:
        self._expect("(")
        variable = self._variable()
        self._expect("in")
        over = self._variable()
        self._expect(")")
        return ForEach(variable, over, self._body(loop=True))

    def _switch(self) -> Switch:
        self._expect("(")
        variable = self._variable()
        self._expect(")")
        self._expect("{")
        cases: list[tuple[str | int | None, tuple[Statement, ...]]] = []
        while not self._is("}"):
            value: str | int | None = None
            if not self._take("default"):
                self._expect("case")
                text = self._here.kind == "string"
                value = unquote(self._next().text) if text else self._number()
            self._expect(":")
            body: list[Statement] = []
            while not self._is("}", "case", "default"):
                body += self._statement(loop=True)
            cases.append((value, tuple(body)))
        self._next()
        return Switch(variable, tuple(cases))

    def _assign(self) -> Assign:
        variable = self._variable()
        if not self._is(*_ASSIGNMENTS):
            raise self._here.error("syntax error")
        token = self._next()
        value: Value = None
        if not (token.text in ("=", ":=") and self._take("NULL", "null")):
            value = self._math()
        if not pv.writable(variable, self.config.modules):
            raise self._here.error("invalid left operand in assignment")
        if variable.transformations:
            raise self._here.error("transformations not accepted in left side of assignment")
        return Assign(variable, token.text, value, f"{token.file}:{token.line}")

    def _variable(self) -> Variable:
        token = self._expect_kind("variable")
        try:
            return pv.parse(token.text, self.config.modules)
        except ValueError as err:
            raise token.error("unknown script variable", before=str(err)) from None

    # expressions

    def _or(self) -> Value:
        parts = [self._and()]
        while self._take("||", "or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Logic("or", tuple(parts))

    def _and(self) -> Value:
        parts = [self._not()]
        while self._take("&&", "and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Logic("and", tuple(parts))

    def _not(self) -> Value:
        if self._take("!", "not"):
            return Logic("not", (self._not(),))
        if self._take("("):
            inner = self._or()
            self._expect(")")
            return inner
        if self._take("["):
            value = self._math()
            self._expect("]")
            return value
        if self._here.kind == "variable":
            return self._comparison(self._variable())
        if self._here.kind == "number" or self._is("-", "+", *_YES, *_NO):
            return self._number()
        return self._command()

    def _comparison(self, left: Variable) -> Value:
        if self._is(*_COMPARISONS):
            operator = self._next().text
            return Compare(left, operator, self._compared(operator))
        if self._is(*_ASSIGNMENTS):  # an assignment is a condition too: true when it worked
            self._at -= 1
            assign = self._assign()
            return Logic("assign", (assign,))  # type: ignore[arg-type]
        return left

    def _compared(self, operator: str) -> "str | int | Variable | Net | None":
        token = self._here
        if token.kind == "string":
            return unquote(self._next().text)
        if token.kind == "variable":
            return self._variable()
        if operator in ("==", "!="):
            if self._take("NULL", "null"):
                return None
            if token.kind in ("net", "address"):
                return Net(self._next().text)
        if operator in ("=~", "!~"):
            raise token.error("syntax error")
        return self._number()

    def _math(self) -> Value:
        value = self._operand()
        while self._is(*_ARITHMETIC):
            operator = self._next().text
            value = Math(value, operator, self._operand())
            if operator in ("*", "/", "%") and isinstance(value.left, Math):
                inner = value.left
                if inner.operator in ("+", "-"):  # the stronger operator binds its neighbours
                    value = Math(inner.left, inner.operator,
                                 Math(inner.right, operator, value.right))  # fmt: skip
        return value

    def _operand(self) -> Value:
        if self._take("("):
            value = self._math()
            self._expect(")")
            return value
        if self._take("~"):
            return Math(0, "~", self._operand())
        if self._here.kind == "string":
            return unquote(self._next().text)
        if self._here.kind == "variable":
            variable = self._variable()
            return self._comparison(variable) if self._is(*_COMPARISONS) else variable
        if self._here.kind == "number" or self._is("-", "+"):
            return self._number()
        return self._command()

    # commands

    def _command(self) -> Call | Return:  # type: ignore[return]
        token = self._expect_kind("word")
        place = f"{token.file}:{token.line}"
        if token.text in ("exit", "drop"):
            if self._take("("):
                self._expect(")")
            return Call(token.text, (), place)
        if token.text == "return":
            return Return(self._returned())
        if token.text == "route":
            return self._route_call(place)
        if token.text in ("xlog", "log", "xdbg"):
            return self._log(token.text, place)
        if not self._is("("):
            told = f"bare word <{token.text}> found, command calls need '()'"
            raise self._here.error("syntax error", told)
        return self._call(token)

    def _returned(self) -> "int | Variable":
        bracket = self._take("(")
        if self._here.kind == "variable":
            value: int | Variable = self._variable()
        elif self._here.kind == "number" or self._is("-", "+"):
            value = self._number()
        else:
            value = 1
        if bracket:
            self._expect(")")
        return value

    def _route_call(self, place: str) -> Call:
        self._expect("(", "missing '(' or ')' ?")
        first: str | Variable = (
            self._variable() if self._here.kind == "variable" else self._route_name()
        )
        arguments: list[str | int | Variable | None] = [first]
        while self._take(","):
            arguments.append(None if self._take("NULL", "null") else self._argument("route"))
        self._expect(")")
        if isinstance(first, str):
            self._leads.setdefault(self._in, set()).add(first)
        return Call("route", tuple(arguments), place)

    def _log(self, name: str, place: str) -> Call:
        self._expect("(")
        arguments: list[str | int | Variable | None] = []
        if name == "log" and self._here.kind == "number":
            arguments.append(self._number())
            self._expect(",")
        arguments.append(self._folded())
        if name == "xlog" and self._take(","):
            arguments.append(self._folded())
        self._expect(")")
        return Call(name, tuple(arguments), place)

    def _call(self, token: Token) -> Call:
        self._next()
        arguments: list[str | int | Variable | None] = []
        if not self._is(")"):
            arguments.append(None if self._is(",") else self._argument(token.text))
            while self._take(","):
                arguments.append(None if self._is(",", ")") else self._argument(token.text))
        if not self._is(")"):
            told = f"bad arguments for command <{token.text}>"
            raise self._here.error("syntax error", told)
        closing = self._next()
        function = self._checked(token, closing, arguments)
        call = Call(token.text, tuple(arguments), f"{closing.file}:{closing.line}")
        self._calls.append((self._in, call, function))
        return call

    def _argument(self, command: str) -> str | int | Variable:
        token = self._here
        if token.kind == "string":
            return unquote(self._next().text)
        if token.kind == "variable":
            return self._variable()
        if token.kind == "number" or self._is("-", "+"):
            return self._number()
        raise token.error("syntax error", f"bad arguments for command <{command}>")

    def _checked(
        self, token: Token, closing: Token, given: list[str | int | Variable | None]
    ) -> Function:
        name = token.text
        function = self.config.function(name)
        if function is None:
            raise closing.error(f"unknown command <{name}>, missing loadmodule?")
        if function.routes != "*" and self._kind not in function.routes:
            raise closing.error(f"Command <{name}> cannot be used in the block")
        parameters = function.parameters
        if len(given) > len(parameters):
            raise closing.error(f"too many parameters for command <{name}>")
        needed = [at for at, parameter in enumerate(parameters) if not parameter.optional]
        if needed and len(given) <= needed[-1]:
            raise closing.error(f"too few parameters for command <{name}>")
        if any(given[at] is None for at in needed):
            raise closing.error(f"mandatory parameter omitted for command <{name}>")
        return function


def mismatch(parameter: Parameter, given: "str | int | Variable | None") -> str:
    """What a literal should have been, empty when it is right."""
    if given is None or isinstance(given, Variable):
        return ""
    if parameter.kinds == "v":
        return "a variable"
    if isinstance(given, int):
        return "" if "i" in parameter.kinds else "a string or variable"
    # A string with a variable in it may be meant for a number; that shows at start only.
    return "" if "s" in parameter.kinds or "r" in parameter.kinds else "an integer or variable"


def _integer(text: str) -> int:
    """A number as the lexer of the real one reads it: a leading zero means octal."""
    if text.startswith("0x"):
        return int(text, 16)
    return int(text, 8) if len(text) > 1 and text.startswith("0") else int(text)


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def parse(file: Path) -> Config:
    """Parse a configuration; ConfigError with OpenSIPS's own words."""
    return Parser(file).parse()
