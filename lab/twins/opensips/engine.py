"""The running proxy: its sockets, its modules' state, and the script over each message."""

import asyncio
import ipaddress
import logging
import re
import time
from collections import Counter
from typing import Any, Protocol

import sip
from cfgparse import Config, Listen
from context import Cell, Context, Peer, StartError, starting
from dbtext import Database
from dispatcher import Destination, Dispatcher
from transactions import Transaction, Transactions, reply_peer
from transports import Transports, protocol_of

__all__ = ["Context", "Engine", "Peer", "StartError"]
_PING_FROM = "sip:dispatcher@localhost"


class Runs(Protocol):
    """What the engine needs of the script."""

    def run(self, context: Context, kind: str = "route", name: str = "") -> None: ...


class Engine:
    """State shared by script, timers and MI; `features` are the modules' own parts by name."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log = logging.getLogger("opensips")
        self.started = time.time()
        self.shared: dict[str, str | int] = {}
        self.dialogs: dict[str, str] = {}  # Call-ID -> caller's tag
        self.counters: Counter[str] = Counter()
        self.server = config.globals.get("server_header", "Server: OpenSIPS").split(": ", 1)[-1]
        self.databases: dict[str, Database] = {}
        self.dispatcher: Dispatcher | None = None
        self.addresses: list[dict[str, str]] = []
        self.features: dict[str, Any] = {}
        self.script: Runs
        self.candidates: dict[str, list[str]] = {}  # by the INVITE's branch, until t_relay
        self.transactions = Transactions(
            self.send,
            self.via,
            float(config.parameter("tm", "fr_timeout", 5)),
            float(config.parameter("tm", "fr_inv_timeout", 120)),
            self._run_failure_route,
            self._run_reply_route,
            self._final,
        )
        self.transactions.translate_503 = (
            config.globals.get("disable_503_translation", "no") != "yes"
        )
        self._load_modules()
        if not config.listens:
            raise StartError("ERROR:core:main: no socket to listen on")
        self.transports = Transports(
            config.listens, self.received, self._unsent, self.features.get("tls_mgm")
        )

    @property
    def own(self) -> tuple[str, int]:
        """The first UDP socket, else the first of all."""
        sockets = self.config.listens
        first = next((one for one in sockets if one.protocol == "udp"), sockets[0])
        return first.address, first.port

    def is_own(self, host: str, port: int = 0) -> bool:
        """Whether an address is one of the proxy's, advertised ones and aliases included."""
        for one in self.config.listens:
            names = [(one.address, one.port)]
            if one.advertised:
                names.append((one.advertised[0], one.advertised[1] or one.port))
            if any(host == name and port in (0, number) for name, number in names):
                return True
        return host in self.config.aliases

    def _load_modules(self) -> None:
        """What the modules read when they start; TableError and StartError stop the daemon."""
        config = self.config
        for text in config.parameters.get("cfgutils", {}).get("shvset", []):
            name, _, value = str(text).partition("=")
            kind, _, given = value.partition(":")
            self.shared[name] = int(given) if kind == "i" else given
        if "permissions" in config.modules and config.parameter("permissions", "db_url", ""):
            with starting("permissions"):
                self.reload_addresses()
        if "dispatcher" in config.modules:
            codes = str(config.parameter("dispatcher", "options_reply_codes", ""))
            with starting("dispatcher"):
                self.dispatcher = Dispatcher(
                    self._database("dispatcher"),
                    str(config.parameter("dispatcher", "table_name", "dispatcher")),
                    int(config.parameter("dispatcher", "ds_probing_threshhold", 3)),
                    {int(code) for code in codes.split(",") if code.strip()},
                    persistent=bool(config.parameter("dispatcher", "persistent_state", 1)),
                )
        import owners  # its classes take an Engine, so it cannot be read before this one

        owners.load(self)

    def _database(self, module: str) -> Database:
        url = str(self.config.parameter(module, "db_url", ""))
        if not url:
            told = "missing modparam: 'db_url'"
            if module == "load_balancer":
                told = "DB URL is not defined!"
            raise StartError(f"ERROR:{module}:mod_init: {told}")
        return self.databases.setdefault(url, Database(url))

    def reload_addresses(self) -> None:
        """Read the address table again (as cached)."""
        database = self._database("permissions")
        table = str(self.config.parameter("permissions", "address_table", "address"))
        database.check_version(table, "address")
        self.addresses = list(database.rows(table))

    async def open(self) -> None:
        """Bind the sockets and start pinging; OSError when an address is not ours or taken."""
        await self.transports.open()
        loop = asyncio.get_running_loop()
        interval = int(self.config.parameter("dispatcher", "ds_ping_interval", 0))
        if self.dispatcher and interval:
            loop.call_later(interval, self._ping, interval)
        self.script.run(Context(sip.Message(method="STARTUP"), Peer("", 0)), "startup_route")

    def close(self) -> None:
        self.transports.close()

    # messages

    def send(self, data: bytes, peer: Peer) -> None:
        self.transports.send(data, peer)

    def name_of(self, one: Listen) -> str:
        """How a socket calls itself to others."""
        host, port = one.advertised or (one.address, 0)
        return f"{host}:{port or one.port}"

    def via(self, to: Peer) -> str:
        """The Via of a request that goes there."""
        local = self.name_of(self.transports.local(to))
        return f"SIP/2.0/{to.protocol.upper()} {local};branch={sip.new_branch()}"

    def reply(self, request: sip.Message, source: Peer, response: sip.Message) -> None:
        """A stateless reply."""
        self.send(response.build(), reply_peer(request, source))

    def received(self, data: bytes, peer: Peer) -> None:
        """Take a message; one that makes no sense is counted and dropped."""
        if not data.strip():
            return
        try:
            message = sip.parse(data)
            if message.is_request:
                self.counters["core:rcv_requests"] += 1
                self._request(message, peer)
            else:
                self.counters["core:rcv_replies"] += 1
                self._response(message)
        except (ValueError, IndexError) as err:
            self.counters["core:bad_msg_hdr"] += 1
            self.log.warning("message from %s ignored: %s", peer.host, err)

    def _unsent(self, data: bytes) -> None:
        message = sip.parse(data)
        if message.is_request:
            self.transactions.unsent(message)

    def _request(self, request: sip.Message, source: Peer) -> None:
        sip.stamp_via(request, (source.host, source.port))
        self.script.run(Context(request, source))

    def _response(self, response: sip.Message) -> None:
        if self.transactions.response(response):
            return
        # A 2xx that comes again goes upstream again: its ACK is end to end.
        vias = response.get_all("Via")[1:]
        if vias and 200 <= response.status < 300 and response.cseq[1] == "INVITE":
            response.replace_list("Via", vias)
            self.send(response.build(), reply_peer(response, _via_peer(vias[0])))

    def target(self, context: Context) -> Peer | None:
        """Where a request goes: $du, else its URI; None when that is no way to send it."""
        uri = context.destination or context.request.uri
        try:
            host, port = sip.Uri.parse(uri).address
            ipaddress.ip_address(host)  # the lab has no DNS to ask
            protocol = protocol_of(uri)
        except ValueError:
            return None
        if protocol == "tls" and not re.search(rf"{re.escape(host)}:\d", uri):
            port = 5061
        local = context.source.local if context.source.protocol == protocol else -1
        return Peer(host, port, protocol, local)

    def relay(self, context: Context) -> bool:
        """t_relay; False when there is no way to send it."""
        request, source = context.request, context.source
        if request.method == "CANCEL":
            found = self.transactions.find(request)
            if found is None:
                return False
            self.transactions.cancel(found, request, source)
            return True
        to = self.target(context)
        if to is None:
            return False
        if not self.transports.can_reach(to.protocol):
            self.log.error("ERROR:tm:update_uac_dst: no socket for %s", to.protocol)
            if request.method != "ACK":
                self.features["core"].do_send_reply(context, 500, "Server error occurred (7/TM)")
            return True  # as measured: the answer is given, so the script need not
        if request.method == "ACK":
            out = request.copy()
            out.insert("Via", self.via(to))
            self.send(out.build(), to)
            return True
        self._forward(context, to)
        return True

    def _forward(self, context: Context, to: Peer) -> None:
        request = context.request
        transaction = context.transaction or self.transactions.find(request)
        if transaction and context.transaction is None:
            self.transactions.repeat(transaction)  # a retransmission
            return
        if transaction is None:
            transaction = self.transactions.create(request.copy(), context.source)
            context.transaction = transaction
        if not transaction.branches:
            transaction.failure_route = context.failure_route
            transaction.candidates = self.candidates.pop(request.branch, transaction.candidates)
            if request.method == "INVITE":
                trying = sip.respond(request, 100, "Giving it a try")
                self.transactions.reply(transaction, trying)
        transaction.context, transaction.avps = context, context.avps
        context.relayed = True
        self.counters["tm:UAS_transactions"] += 1
        self.counters["core:fwd_requests"] += 1
        out = request.copy()
        if context.branch_route:
            branch = Context(out, context.source, transaction, avps=context.avps)
            branch.flags, branch.branch_flags = context.flags, context.branch_flags
            self.script.run(branch, "branch_route", context.branch_route)
        if context.record_route:
            self._record_route(out, context.source, to)
        self.transactions.forward(transaction, out, to)

    def _record_route(self, request: sip.Message, source: Peer, to: Peer) -> None:
        """One line for the proxy, two where it comes in and goes out by different protocols."""
        inward, outward = self.transports.local(source), self.transports.local(to)
        tag = f";lr;ftag={request.from_tag}"
        if inward is outward:
            request.insert("Record-Route", f"<sip:{self.name_of(inward)}{_over(inward)}{tag}>")
            return
        for one in (inward, outward):
            line = f"<sip:{self.name_of(one)}{_over(one)};r2=on{tag}>"
            request.insert("Record-Route", line)

    def remember_candidates(self, context: Context, uris: list[str]) -> None:
        """Keep the destinations a failure route may still try."""
        if context.transaction:
            context.transaction.candidates = uris
        else:
            self.candidates[context.request.branch] = uris

    # routes a transaction has asked for

    def _again(self, transaction: Transaction, status: int) -> Context:
        """A run of a later route of the transaction, with what the first one left."""
        request = transaction.branch.request.copy()
        request.replace_list("Via", request.get_all("Via")[1:])
        first = transaction.context
        own = sum(self._is_own_route(one) for one in request.get_all("Record-Route"))
        before = len(transaction.request.get_all("Record-Route"))
        routes = request.get_all("Record-Route")
        added = min(own, len(routes) - before)
        if added > 0:
            request.replace_list("Record-Route", routes[added:])
        context = Context(request, transaction.source, transaction, status)
        context.avps = transaction.avps
        if first:
            context.flags, context.branch_flags = first.flags, first.branch_flags
            context.record_route, context.is_dialog = first.record_route, first.is_dialog
            context.profiles, context.values = first.profiles, first.values
            context.user, context.realm = first.user, first.realm
            context.reply_route, context.branch_route = first.reply_route, first.branch_route
            context.original_uri = first.original_uri or transaction.request.uri
        return context

    def _is_own_route(self, route: str) -> bool:
        return self.is_own(*sip.Uri.parse(route).address)

    def _run_failure_route(self, transaction: Transaction, status: int) -> None:
        name, transaction.failure_route = transaction.failure_route, ""
        self.script.run(self._again(transaction, status), "failure_route", name)

    def _run_reply_route(self, transaction: Transaction, reply: sip.Message) -> None:
        name = transaction.context.reply_route if transaction.context else ""
        if name:
            context = self._again(transaction, reply.status)
            context.reply = reply
            self.script.run(context, "onreply_route", name)

    def _final(self, transaction: Transaction, response: sip.Message) -> None:
        """Keep the dialog count: a 2xx to INVITE opens one, an answered BYE closes it."""
        self.counters[f"tm:{response.status // 100}xx_transactions"] += 1
        call_id = transaction.request.call_id
        dialog = self.features.get("dialog")
        if accounting := self.features.get("acc"):
            accounting.final(transaction, response)
        if transaction.method == "INVITE" and response.status < 300:
            if transaction.context and transaction.context.is_dialog:
                self.dialogs[call_id] = transaction.request.from_tag
        elif transaction.method == "BYE" or (
            transaction.method == "INVITE" and not transaction.request.to_tag
        ):
            self.dialogs.pop(call_id, None)
            if dialog:
                dialog.ended(call_id)

    def dialog_value(self, context: Context, name: str, inner: str) -> Cell:
        """$dlg_val(inner), $DLG_status."""
        dialog = self.features.get("dialog")
        return dialog.read(context, name, inner) if dialog else None

    def set_dialog_value(self, context: Context, name: str, value: str) -> None:
        if dialog := self.features.get("dialog"):
            dialog.store(context, name, value)

    def trusted(self, group: int, address: str) -> bool:
        """Whether the address table has this source in a group (0 there means any group)."""
        return any(
            int(row["grp"]) in (0, group) and in_network(address, row["ip"], int(row["mask"]))
            for row in self.addresses
        )

    # pings

    def _ping(self, interval: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(interval, self._ping, interval)
        if self.dispatcher:
            everyone = self.config.parameter("dispatcher", "ds_probing_mode", 0) == 1
            self.dispatcher.ping_all(self._ping_one, everyone=everyone)

    def _ping_one(self, destination: Destination) -> None:
        method = str(self.config.parameter("dispatcher", "ds_ping_method", "OPTIONS"))
        sender = str(self.config.parameter("dispatcher", "ds_ping_from", _PING_FROM))
        request = sip.Message(method=method, uri=destination.uri)
        request.add("From", f"<{sender}>;tag={sip.new_tag()}")
        request.add("To", f"<{destination.uri}>")
        request.add("Call-ID", sip.new_branch())
        request.add("CSeq", f"10 {method}")
        request.add("Max-Forwards", "70")
        to = Peer(*destination.address, protocol_of(destination.uri))
        if not self.transports.can_reach(to.protocol):
            self.log.error("ERROR:tm:t_uac: no socket for %s", destination.uri)
            return
        request.insert("Via", self.via(to))
        ping = _Ping(self, destination)
        self.transactions.forward_own(request, to, ping.answered)


class _Ping:
    """Takes one ping's answer to its destination."""

    def __init__(self, engine: Engine, destination: Destination) -> None:
        self._engine, self._destination = engine, destination

    def answered(self, status: int) -> None:
        if self._engine.dispatcher:
            self._engine.dispatcher.probed(self._destination, status)


def _over(one: Listen) -> str:
    return "" if one.protocol == "udp" else f";transport={one.protocol}"


def _via_peer(via: str) -> Peer:
    version, sent_by = via.split(None, 1)
    host, _, port = sent_by.split(";")[0].partition(":")
    received = sip.parameter(via, "received") or host
    number = sip.parameter(via, "rport") or port
    protocol = version.rpartition("/")[2].lower()
    return Peer(received, int(number) if number.isdecimal() else 5060, protocol)


def in_network(address: str, network: str, mask: int) -> bool:
    """Whether an address is in network/mask; False for what is no address."""
    try:
        inside = ipaddress.ip_network(f"{network}/{mask}", strict=False)
        return ipaddress.ip_address(address) in inside
    except ValueError:
        return False
