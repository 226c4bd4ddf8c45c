"""Reading and writing the script's variables for one run."""

import ipaddress
import re
import time
from collections.abc import Callable

import pv
import sip
from context import Cell, Context
from engine import Engine
from pv import Format, Variable

_SHOWN_NULL = "<null>"


def _user(text: str) -> Cell:
    return sip.Uri.parse(text).user.split(":")[0] or None


def _uri(text: str) -> str:
    return text.split("<", 1)[1].split(">")[0] if "<" in text else text.split(";")[0]


_PLAIN: dict[str, Callable[[Context], Cell]] = {
    "ru": lambda c: c.request.uri,
    "rU": lambda c: _user(c.request.uri),
    "rd": lambda c: sip.Uri.parse(c.request.uri).host,
    "rp": lambda c: sip.Uri.parse(c.request.uri).port,
    "ou": lambda c: c.original_uri or c.request.uri,
    "oU": lambda c: _user(c.original_uri or c.request.uri),
    "du": lambda c: c.destination or None,
    "dd": lambda c: sip.Uri.parse(c.destination).host if c.destination else None,
    "dp": lambda c: sip.Uri.parse(c.destination).port if c.destination else None,
    "si": lambda c: c.source.host,
    "src_ip": lambda c: c.source.host,
    "sp": lambda c: c.source.port,
    "rm": lambda c: c.reply.cseq[1] if c.reply else c.request.method,
    "ci": lambda c: c.request.call_id,
    "cs": lambda c: c.request.cseq[0],
    "fu": lambda c: _uri(c.request.get("From")),
    "fU": lambda c: _user(c.request.get("From")),
    "fd": lambda c: sip.Uri.parse(c.request.get("From")).host,
    "ft": lambda c: c.request.from_tag or None,
    "tu": lambda c: _uri(c.request.get("To")),
    "tU": lambda c: _user(c.request.get("To")),
    "td": lambda c: sip.Uri.parse(c.request.get("To")).host,
    "tt": lambda c: c.request.to_tag or None,
    "ua": lambda c: c.request.get("User-Agent") or None,
    "ct": lambda c: c.request.get("Contact") or None,
    "rs": lambda c: c.status or None,
    "rr": lambda c: c.reply.reason if c.reply else None,
    "T_reply_code": lambda c: c.status,
    "ml": lambda c: len(c.request.build()),
    "cT": lambda c: c.request.get("Content-Type") or None,
    "rb": lambda c: c.request.body.decode(errors="replace") or None,
    "oP": lambda c: c.source.protocol,
    "pr": lambda c: c.source.protocol,
    "au": lambda c: c.user or _credential(c, "username"),
    "ar": lambda c: c.realm or _credential(c, "realm"),
    "Ts": lambda c: int(time.time()),
    "TS": lambda c: int(time.time()),
}
_KEYED = ("avp", "var", "shv", "hdr", "param", "dlg_val", "rc", "retcode", "DLG_status",
          "socket_in",
          "cluster.sh_tag", "route")  # fmt: skip


def can_read(variable: Variable) -> bool:
    """Whether this twin knows what the variable and its transformations stand for."""
    named = variable.name in _PLAIN or variable.name in _KEYED
    return named and all(pv.can_transform(name) for name, _ in variable.transformations)


def can_write(variable: Variable) -> bool:
    return variable.name in ("avp", "var", "shv", "dlg_val", "ru", "rU", "rd", "rp", "du")


class Values:
    """The variables of one run; `parameters` are those of the route being run."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context
        self._own: dict[str, Cell] = {}
        self.parameters: list[Cell] = []
        self.result = 1  # $rc

    def expand(self, parts: Format) -> str:
        """A string with its variables filled in; what is not there shows as <null>."""
        texts = (self.read(part) if isinstance(part, Variable) else part for part in parts)
        return "".join(_SHOWN_NULL if text is None else str(text) for text in texts)

    def read(self, variable: Variable) -> Cell:
        try:
            value = self._plain(variable)
        except (ValueError, IndexError):
            value = None
        for name, arguments in variable.transformations:
            value = pv.transform(value, name, arguments)
        return value

    def _plain(self, variable: Variable) -> Cell:
        context, inner = self._context, variable.inner
        if reader := _PLAIN.get(variable.name):
            return reader(context)
        match variable.name:
            case "shv":
                return self._engine.shared.get(inner, 0)
            case "var":
                return self._own.get(inner)
            case "avp":
                return self._indexed(context.avps.get(inner, []), variable.index)
            case "hdr":
                message = context.reply or context.request
                named = [v for k, v in message.headers if k.lower() == inner.lower()]
                return self._indexed([*named], variable.index)
            case "param":
                return self.parameters[int(inner) - 1]
            case "rc" | "retcode":
                return self.result
            case "socket_in":
                return self._socket(inner)
        return self._engine.dialog_value(context, variable.name, inner)

    def _socket(self, part: str) -> Cell:
        one = self._engine.transports.local(self._context.source)
        shown = {"proto": one.protocol, "ip": one.address, "port": one.port, "tag": one.tag}
        return shown.get(part, f"{one.protocol}:{one.address}:{one.port}")

    @staticmethod
    def _indexed(values: list[Cell], index: str) -> Cell:
        if index == "*":
            return ", ".join(str(value) for value in values) if values else None
        return values[int(index or 0)] if values else None

    def write(self, variable: Variable, value: Cell, *, replace: bool = False) -> None:
        """Set a variable; NULL deletes it, and `:=` throws away an avp's other values."""
        context, inner = self._context, variable.inner
        if variable.name == "shv":
            self._engine.shared[inner] = 0 if value is None else value
        elif variable.name == "var":
            self._own[inner] = value
        elif variable.name == "avp":
            kept = [] if replace else context.avps.get(inner, [])
            if value is not None:
                context.avps[inner] = [value, *kept]
            elif kept[1:]:
                context.avps[inner] = kept[1:]
            else:
                context.avps.pop(inner, None)
        elif variable.name == "du":
            context.destination = "" if value is None else str(value)
        elif variable.name == "dlg_val":
            self._engine.set_dialog_value(context, inner, "" if value is None else str(value))
        else:
            self._set_uri(variable.name, "" if value is None else str(value))

    def _set_uri(self, name: str, value: str) -> None:
        request = self._context.request
        self._context.original_uri = self._context.original_uri or request.uri
        if name == "ru":
            request.uri = value
            return
        uri = sip.Uri.parse(request.uri)
        explicit = re.search(rf"{re.escape(uri.host)}:\d", request.uri) is not None
        port = f":{uri.port}" if explicit else ""
        user, host = f"{uri.user}@" if uri.user else "", uri.host
        if name == "rU":
            user = f"{value}@" if value else ""
        elif name == "rd":
            host, port = value, ""
        else:
            port = f":{value}" if value else ""
        request.uri = f"sip:{user}{host}{port}{uri.parameters}"


class Reference:
    """A variable handed to a function that writes it."""

    def __init__(self, values: Values, variable: Variable) -> None:
        self._values, self._variable = values, variable

    def get(self) -> Cell:
        return self._values.read(self._variable)

    def set(self, value: Cell) -> None:
        self._values.write(self._variable, value, replace=True)


def in_net(value: Cell, net: str) -> bool:
    """Whether an address is the one written, or within the network."""
    try:
        return ipaddress.ip_address(str(value)) in ipaddress.ip_network(net, strict=False)
    except ValueError:
        return False


def _credential(context: Context, name: str) -> Cell:
    for header in ("Authorization", "Proxy-Authorization"):
        if found := re.search(rf'\b{name}="([^"]*)"', context.request.get(header)):
            return found[1]
    return None
