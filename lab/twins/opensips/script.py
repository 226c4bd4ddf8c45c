"""The routing script: runs a parsed configuration's routes over one message."""

import re

import sip
from cfgparse import Assign, Call, Compare, Config, If, Logic, Return, Statement, Value, Variable
from dispatcher import ACTIVE, LETTERS
from engine import Context, Engine


class ScriptExit(Exception):  # noqa: N818 (not an error)
    """exit or drop."""


class RouteReturn(Exception):  # noqa: N818 (not an error)
    """return(n) carries n."""


class Script:
    """Interprets `config`; `run` never raises for what a message holds."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        self._variables: dict[str, Value | None] = {}

    def run(self, context: Context, kind: str = "route", name: str = "") -> None:
        """Run one route to its end."""
        self._variables = {}
        try:
            self._block(context, self.config.routes[kind, name])
        except (ScriptExit, RouteReturn):
            return

    def _block(self, context: Context, statements: tuple[Statement, ...]) -> None:
        for statement in statements:
            match statement:
                case If(condition, then, otherwise):
                    self._block(context, then if self._true(context, condition) else otherwise)
                case Assign(variable, value):
                    self._assign(context, variable.name, self._evaluate(context, value))
                case Return(value):
                    raise RouteReturn(value)
                case Call():
                    self._call(context, statement)

    def _true(self, context: Context, value: Value) -> bool:
        match value:
            case Logic("or", parts):
                return any(self._true(context, part) for part in parts)
            case Logic("and", parts):
                return all(self._true(context, part) for part in parts)
            case Logic("not", parts):
                return not self._true(context, parts[0])
            case Compare(left, operator, right):
                return _compare(
                    self._evaluate(context, left), operator, self._evaluate(context, right)
                )
            case Call():
                return self._call(context, value) > 0
        result = self._evaluate(context, value)
        return bool(result) and result != "0"

    def _evaluate(self, context: Context, value: Value) -> str | int:
        match value:
            case Variable(name):
                return self._read(context, name)
            case Call():
                return self._call(context, value)
            case str() | int():
                return value
        return int(self._true(context, value))

    def _read(self, context: Context, name: str) -> str | int:
        request = context.request
        if name.startswith("shv("):
            return self.engine.shared.get(name[4:-1], 0)
        if name.startswith(("var(", "avp(")):
            stored = self._variables.get(name)
            return stored if isinstance(stored, str | int) else ""
        if name.startswith("hdr("):
            return request.get(name[4:-1])
        match name:
            case "ru":
                return request.uri
            case "rU":
                return sip.Uri.parse(request.uri).user
            case "rd":
                return sip.Uri.parse(request.uri).host
            case "du":
                return context.destination
            case "si":
                return context.source[0]
            case "sp":
                return context.source[1]
            case "rm":
                return request.method
            case "ci":
                return request.call_id
            case "fU":
                return sip.Uri.parse(request.get("From")).user
            case "tU":
                return sip.Uri.parse(request.get("To")).user
            case "ua":
                return request.get("User-Agent")
            case "rs":
                return context.status
        return ""

    def _assign(self, context: Context, name: str, value: str | int) -> None:
        if name.startswith("shv("):
            self.engine.shared[name[4:-1]] = value
        elif name == "du":
            context.destination = str(value)
        elif name == "ru":
            context.request.uri = str(value)
        else:
            self._variables[name] = value

    def _call(self, context: Context, call: Call) -> int:
        """Run a function: positive is true, as in OpenSIPS."""
        arguments = [
            self._read(context, argument.name) if isinstance(argument, Variable) else argument
            for argument in call.arguments
        ]
        if call.name in ("exit", "drop"):
            raise ScriptExit
        if call.name == "route":
            return self._route(context, str(arguments[0]))
        handler = getattr(self, f"do_{call.name}")
        result: int = handler(context, *arguments)
        return result

    def _route(self, context: Context, name: str) -> int:
        try:
            self._block(context, self.config.routes["route", name])
        except RouteReturn as returned:
            return int(returned.args[0])
        return 1

    # core, sipmsgops, signaling, maxfwd, options

    def do_xlog(self, context: Context, *text: str | int) -> int:
        self.engine.log.info("%s", text[-1])
        return 1

    def do_force_rport(self, context: Context) -> int:
        return 1  # replies follow the source wherever rport is asked for

    def do_is_myself(self, context: Context, host: str, port: int = 0) -> int:
        return 1 if host == self.engine.own[0] else -1

    def do_setflag(self, context: Context, name: str) -> int:
        return 1

    def do_append_to_reply(self, context: Context, text: str) -> int:
        context.reply_headers += text
        return 1

    def do_append_hf(self, context: Context, text: str, after: str = "") -> int:
        name, _, value = text.strip().partition(":")
        context.request.add(name, value.strip())
        return 1

    def do_remove_hf(self, context: Context, name: str, kind: str = "") -> int:
        context.request.remove(name)
        return 1

    def do_has_totag(self, context: Context) -> int:
        return 1 if context.request.to_tag else -1

    def do_is_method(self, context: Context, methods: str) -> int:
        return 1 if context.request.method in methods.split("|") else -1

    def do_mf_process_maxfwd_header(self, context: Context, limit: int) -> int:
        text = context.request.get("Max-Forwards")
        left = int(text) if text.isdecimal() else int(limit) + 1
        if left == 0:
            return -1
        context.request.set("Max-Forwards", str(min(left - 1, 255)))
        return 1

    def do_send_reply(self, context: Context, status: str | int, reason: str) -> int:
        response = sip.respond(context.request, int(status), reason, to_tag=sip.new_tag())
        for line in context.reply_headers.splitlines():
            name, _, value = line.partition(":")
            response.add(name, value.strip())
        response.add("Server", self.engine.server)
        if context.transaction and not context.transaction.done:
            self.engine.transactions.reply(context.transaction, response)
        else:
            self.engine.reply(context.request, context.source, response)
        return 1

    do_sl_send_reply = do_send_reply

    def do_options_reply(self, context: Context) -> int:
        if sip.Uri.parse(context.request.uri).user:
            return -1
        return self.do_send_reply(context, 200, "OK")

    # rr

    def do_record_route(self, context: Context, parameters: str = "") -> int:
        host, port = self.engine.own
        tag = context.request.from_tag
        context.request.insert("Record-Route", f"<sip:{host}:{port};lr;ftag={tag}>")
        return 1

    def do_loose_route(self, context: Context) -> int:
        routes = context.request.get_all("Route")
        if not routes:
            return -1
        if sip.Uri.parse(routes[0]).address == self.engine.own:
            routes = routes[1:]
            context.request.replace_list("Route", routes)
        context.destination = str(sip.Uri.parse(routes[0])) if routes else ""
        return 1

    # tm, dialog

    def do_t_check_trans(self, context: Context) -> int:
        found = self.engine.transactions.find(context.request)
        if found is None:
            return -1
        method = context.request.method
        if method == "ACK" and found.last_reply and found.last_reply.status >= 300:
            raise ScriptExit  # ends here: it acknowledges our own hop's answer
        if method not in ("ACK", "CANCEL"):
            self.engine.transactions.repeat(found)
            raise ScriptExit
        return 1

    def do_t_newtran(self, context: Context) -> int:
        if context.transaction is None:
            context.transaction = self.engine.transactions.create(context.request, context.source)
        return 1

    def do_t_reply(self, context: Context, status: int, reason: str) -> int:
        return self.do_send_reply(context, status, reason)

    def do_t_on_failure(self, context: Context, name: str) -> int:
        context.failure_route = name
        if context.transaction:
            context.transaction.failure_route = name
        return 1

    def do_t_on_reply(self, context: Context, name: str) -> int:
        return 1  # no reply route of the twin's scripts changes a reply

    def do_t_was_cancelled(self, context: Context) -> int:
        return 1 if context.transaction and context.transaction.cancelled else -1

    def do_t_check_status(self, context: Context, pattern: str) -> int:
        return 1 if re.search(pattern, str(context.status)) else -1

    def do_t_local_replied(self, context: Context, which: str) -> int:
        return 1 if context.transaction and context.transaction.local else -1

    def do_create_dialog(self, context: Context, flags: str = "") -> int:
        context.is_dialog = True
        return 1

    def do_t_relay(self, context: Context, *flags: str | int) -> int:
        return 1 if self.engine.relay(context) else -1

    # permissions, dispatcher, pike

    def do_check_source_address(self, context: Context, group: int, *_: str | int) -> int:
        return 1 if self.engine.trusted(int(group), context.source[0]) else -1

    def do_check_address(
        self, context: Context, group: int, address: str, port: int, protocol: str, *_: str
    ) -> int:
        return 1 if self.engine.trusted(int(group), str(address)) else -1

    def do_ds_select_dst(
        self, context: Context, number: int, algorithm: int, flags: str = "", *_: str | int
    ) -> int:
        dispatcher = self.engine.dispatcher
        if dispatcher is None:
            return -1
        chosen = dispatcher.choose(int(number), int(algorithm), context.request.call_id)
        if not chosen:
            return -1
        context.destination = chosen[0].uri
        rest = [destination.uri for destination in chosen[1:]] if "f" in flags else []
        self.engine.remember_candidates(context, rest)
        return 1

    def do_ds_next_dst(self, context: Context, partition: str = "") -> int:
        dispatcher, transaction = self.engine.dispatcher, context.transaction
        while transaction and dispatcher and transaction.candidates:
            uri = transaction.candidates.pop(0)
            known = [d for found in dispatcher.sets.values() for d in found if d.uri == uri]
            if any(d.state == ACTIVE for d in known):
                context.destination = uri
                return 1
        return -1

    def do_ds_mark_dst(self, context: Context, state: str = "i", partition: str = "") -> int:
        transaction, dispatcher = context.transaction, self.engine.dispatcher
        if transaction and transaction.branches and dispatcher:
            dispatcher.mark(transaction.branch.destination, LETTERS.get(state, ACTIVE))
        return 1

    def do_pike_check_req(self, context: Context, log: str = "") -> int:
        return 1 if self.engine.under_pike_limit(context.source[0]) else -1


def _compare(left: str | int, operator: str, right: str | int) -> bool:
    if operator in ("=~", "!~"):
        found = re.search(str(right), str(left)) is not None
        return found == (operator == "=~")
    if isinstance(left, int) != isinstance(right, int):
        left, right = str(left), str(right)
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
