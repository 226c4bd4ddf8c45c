"""usrloc, registrar and nathelper: who is where, kept in memory."""

import ipaddress
import re
import time
from dataclasses import dataclass, field

import sip
from context import Context
from engine import Engine
from values import Reference

_TOO_MANY = -2
_PRIVATE = tuple(
    ipaddress.ip_network(one)
    for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8")
)


@dataclass
class Contact:
    """Where a user may be reached until `end`."""

    uri: str
    end: float
    received: str = ""  # where its packets really come from
    flags: set[str] = field(default_factory=set)
    quality: float = -1.0

    def shown(self, now: float) -> str:
        """The contact as a Contact header's value."""
        text = f"<{self.uri}>;expires={round(self.end - now)}"
        text += f";q={self.quality:g}" if self.quality >= 0 else ""
        return text + (f';received="{self.received}"' if self.received else "")


class Registrar:
    """save and lookup over {user@domain: contacts}."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        parameter = engine.config.parameter
        self._least = int(parameter("registrar", "min_expires", 60))
        self._default = int(parameter("registrar", "default_expires", 3600))
        self._most = int(parameter("registrar", "max_expires", 0))
        self._contacts = int(parameter("registrar", "max_contacts", 0))
        self._by_domain = bool(parameter("usrloc", "use_domain", 0))
        self._received = _inner(str(parameter("registrar", "received_avp", "")))
        self._records: dict[str, list[Contact]] = {}

    def _key(self, uri: str) -> str:
        parsed = sip.Uri.parse(uri)
        return f"{parsed.user}@{parsed.host}" if self._by_domain else parsed.user

    def _alive(self, key: str) -> list[Contact]:
        now = time.monotonic()
        alive = [one for one in self._records.get(key, []) if one.end > now]
        self._records[key] = alive
        return alive

    def do_save(
        self, context: Context, table: str, flags: str | None = None, aor: str | None = None,
        owner: str | None = None,
    ) -> int:  # fmt: skip
        """Take the contacts over and answer; -2 when there would be too many."""
        key = self._key(aor or context.request.get("To"))
        given = context.request.get_all("Contact")
        limit = re.search(r"max-contacts=(\d+)", flags or "")
        most = int(limit[1]) if limit else self._contacts
        kept = self._alive(key)
        if given == ["*"]:
            kept = []
        for value in given if given != ["*"] else []:
            kept = self._with(context, kept, value)
        if most and len(kept) > most:
            context.reply_headers += "P-Registrar-Error: Too many registered contacts\r\n"
            self._answer(context, key, 503, "Service Unavailable")
            return _TOO_MANY
        self._records[key] = kept
        self._answer(context, key, 200, "OK")
        return 1

    def _with(self, context: Context, kept: list[Contact], value: str) -> list[Contact]:
        """The contacts with this one added, renewed or, at 0 seconds, gone."""
        uri = value.split("<", 1)[1].split(">")[0] if "<" in value else value.split(";")[0]
        text = sip.parameter(value, "expires") or context.request.get("Expires")
        seconds = int(text) if text.isdecimal() else self._default
        kept = [one for one in kept if one.uri != uri]
        if seconds == 0:
            return kept
        seconds = max(seconds, self._least)
        seconds = min(seconds, self._most) if self._most else seconds
        received = str((context.avps.get(self._received) or [""])[0])
        quality = sip.parameter(value, "q")
        end = time.monotonic() + seconds
        flags = set(context.branch_flags)
        return [*kept, Contact(uri, end, received, flags, float(quality) if quality else -1.0)]

    def _answer(self, context: Context, key: str, status: int, reason: str) -> None:
        now = time.monotonic()
        shown = ", ".join(one.shown(now) for one in self._alive(key))
        if shown:
            context.reply_headers = f"Contact: {shown}\r\n{context.reply_headers}"
        self._engine.features["core"].do_send_reply(context, status, reason)

    def do_lookup(
        self, context: Context, table: str, flags: str | None = None, aor: str | None = None
    ) -> int:
        """-1 for a user who is not registered."""
        alive = self._alive(self._key(aor or context.request.uri))
        if not alive:
            return -1
        best = max(alive, key=lambda one: one.quality)
        context.original_uri = context.original_uri or context.request.uri
        context.request.uri = best.uri
        context.destination = best.received
        context.branch_flags |= best.flags
        return 1

    def do_is_ip_registered(
        self, context: Context, table: str, aor: str | None, address: Reference, port: object = None
    ) -> int:
        """1 when a contact of the user, or where its packets come from, is at this address."""
        wanted = str(address.get())
        for one in self._alive(self._key(aor or context.request.get("To"))):
            if wanted == sip.Uri.parse(one.received or one.uri).host:
                return 1
        return -1


class NatHelper:
    """Tests and repairs of what stands behind NAT."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._received = _inner(str(engine.config.parameter("nathelper", "received_avp", "")))

    def do_nat_uac_test(self, context: Context, flags: str) -> int:
        contact = context.request.get("Contact")
        host, port = sip.Uri.parse(contact).address if contact.strip("* ") else ("", 0)
        via = context.request.get_all("Via")[0].split(None, 1)[1].split(";")[0]
        via_host, _, via_port = via.partition(":")
        differs = via_host != context.source.host
        tests = {
            "private-contact": _private(host),
            "diff-ip-src-via": differs,
            "private-via": _private(via_host),
            "diff-port-src-via": int(via_port or 5060) != context.source.port,
            "diff-ip-src-contact": bool(host) and host != context.source.host,
            "diff-port-src-contact": bool(host) and port != context.source.port,
        }
        return 1 if any(tests.get(flag.strip(), False) for flag in flags.split(",")) else -1

    def do_fix_nated_register(self, context: Context) -> int:
        context.avps[self._received] = [_source(context)]
        return 1

    def do_fix_nated_contact(self, context: Context, parameters: str | None = None) -> int:
        message = context.reply or context.request
        value = message.get("Contact")
        if not value:
            return -1
        uri = sip.Uri.parse(value)
        source = context.source
        if context.reply and context.transaction:
            source = context.transaction.branch.destination
        user = f"{uri.user}@" if uri.user else ""
        fixed = f"<sip:{user}{source.host}:{source.port}{uri.parameters}{parameters or ''}>"
        message.set("Contact", fixed)
        return 1


def _source(context: Context) -> str:
    source = context.source
    over = "" if source.protocol == "udp" else f";transport={source.protocol}"
    return f"sip:{source.host}:{source.port}{over}"


def _inner(variable: str) -> str:
    """x of $avp(x)."""
    return variable.partition("(")[2].rstrip(")")


def _private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE)
