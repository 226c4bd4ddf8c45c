"""The running proxy: its socket, its modules' state, and the script over each request."""

import asyncio
import ipaddress
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import sip
from cfgparse import Config
from dbtext import Database
from dispatcher import Destination, Dispatcher
from transactions import Address, Transaction, Transactions

_PING_FROM = "sip:dispatcher@localhost"


@dataclass
class Context:
    """One run: the message at hand and what the script has set on the way."""

    request: sip.Message
    source: Address
    transaction: Transaction | None = None
    status: int = 0  # the failed reply's, in a failure route
    destination: str = ""  # $du
    failure_route: str = ""
    is_dialog: bool = False
    reply_headers: str = ""


class Runs(Protocol):
    """What the engine needs of the script."""

    def run(self, context: Context, kind: str = "route", name: str = "") -> None: ...


class StartError(Exception):
    """Why the daemon cannot start although `-C` had nothing against its configuration."""


class Engine(asyncio.DatagramProtocol):
    """State shared by script, timers and MI."""

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
        self.own: Address = self._own_address()
        self.script: Runs
        self._transport: asyncio.DatagramTransport | None = None
        self._requests: Counter[str] = Counter()
        self._window = 0
        self._candidates: dict[str, list[str]] = {}  # by the INVITE's branch, until t_relay
        self.transactions = Transactions(
            self.send,
            self.own,
            float(config.parameter("tm", "fr_timeout", 5)),
            float(config.parameter("tm", "fr_inv_timeout", 120)),
            self._run_failure_route,
            self._final,
        )
        self.transactions.translate_503 = config.globals.get(
            "disable_503_translation", "no"
        ) not in ("yes", "1", "true")
        self._load_modules()

    def _own_address(self) -> Address:
        for protocol, address, port in self.config.sockets:
            if protocol == "udp":
                return address, port
        raise StartError("ERROR:core:main: no udp socket to listen on")

    def _load_modules(self) -> None:
        """What the modules read when they start; TableError and StartError stop the daemon."""
        config = self.config
        for text in config.parameters.get("cfgutils", {}).get("shvset", []):
            name, _, value = str(text).partition("=")
            kind, _, given = value.partition(":")
            self.shared[name] = int(given) if kind == "i" else given
        if "permissions" in config.modules and config.parameter("permissions", "db_url", ""):
            self.reload_addresses()
        if "dispatcher" in config.modules:
            codes = str(config.parameter("dispatcher", "options_reply_codes", ""))
            self.dispatcher = Dispatcher(
                self._database("dispatcher"),
                str(config.parameter("dispatcher", "table_name", "dispatcher")),
                int(config.parameter("dispatcher", "ds_probing_threshhold", 3)),
                {int(code) for code in codes.split(",") if code.strip().isdecimal()},
            )

    def _database(self, module: str) -> Database:
        url = str(self.config.parameter(module, "db_url", ""))
        if not url:
            raise StartError(f"ERROR:{module}:mod_init: missing modparam: 'db_url'")
        if "db_text" not in self.config.modules:
            raise StartError("ERROR:core:main: failed to solve module dependencies")
        return self.databases.setdefault(url, Database(url))

    def reload_addresses(self) -> None:
        """Read the address table again (as cached)."""
        database = self._database("permissions")
        database.check_version("address")
        self.addresses = list(database.rows("address"))

    async def open(self) -> None:
        """Bind the socket and start pinging; OSError when the address is not ours or taken."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.own)
        interval = int(self.config.parameter("dispatcher", "ds_ping_interval", 0))
        if self.dispatcher and interval:
            loop.call_later(interval, self._ping, interval)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def send(self, data: bytes, address: Address) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def reply(self, request: sip.Message, source: Address, response: sip.Message) -> None:
        """A stateless reply."""
        self.send(response.build(), sip.reply_address(request, source))

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not data.strip():
            return
        try:
            message = sip.parse(data)
            if message.is_request:
                self.counters["core:rcv_requests"] += 1
                self._request(message, addr)
            else:
                self.counters["core:rcv_replies"] += 1
                self._response(message)
        except (ValueError, IndexError) as err:
            self.counters["core:bad_msg_hdr"] += 1
            self.log.warning("message from %s ignored: %s", addr[0], err)

    def _request(self, request: sip.Message, source: Address) -> None:
        sip.stamp_via(request, source)
        self.script.run(Context(request, source))

    def _response(self, response: sip.Message) -> None:
        if self.transactions.response(response):
            return
        # A 2xx that comes again goes upstream again: its ACK is end to end.
        vias = response.get_all("Via")[1:]
        if vias and 200 <= response.status < 300 and response.cseq[1] == "INVITE":
            response.replace_list("Via", vias)
            self.send(response.build(), sip.reply_address(response, _via_address(vias[0])))

    def relay(self, context: Context) -> bool:
        """t_relay: to $du, else to the request URI; False when there is no way to send it."""
        request, source = context.request, context.source
        if request.method == "CANCEL":
            found = self.transactions.find(request)
            if found is None:
                return False
            self.transactions.cancel(found, request, source)
            return True
        try:
            to = sip.Uri.parse(context.destination or request.uri).address
            ipaddress.ip_address(to[0])
        except ValueError:
            return False
        if request.method == "ACK":
            out = request.copy()
            via = f"SIP/2.0/UDP {self.own[0]}:{self.own[1]};branch={sip.new_branch()}"
            out.insert("Via", via)
            self.send(out.build(), to)
            return True
        self._forward(context, to)
        return True

    def _forward(self, context: Context, to: Address) -> None:
        request = context.request
        transaction = context.transaction or self.transactions.find(request)
        if transaction and context.transaction is None:
            self.transactions.repeat(transaction)  # a retransmission
            return
        if transaction is None:
            transaction = self.transactions.create(request.copy(), context.source)
            transaction.failure_route = context.failure_route
            transaction.is_dialog = context.is_dialog
            transaction.candidates = self._candidates.pop(request.branch, [])
            context.transaction = transaction
            if request.method == "INVITE":
                trying = sip.respond(request, 100, "Giving it a try")
                self.transactions.reply(transaction, trying)
        self.counters["tm:UAS_transactions"] += 1
        self.counters["core:fwd_requests"] += 1
        self.transactions.forward(transaction, request, to)

    def remember_candidates(self, context: Context, uris: list[str]) -> None:
        """Keep the destinations a failure route may still try."""
        if context.transaction:
            context.transaction.candidates = uris
        else:
            self._candidates[context.request.branch] = uris

    def _run_failure_route(self, transaction: Transaction, status: int) -> None:
        name, transaction.failure_route = transaction.failure_route, ""
        request = transaction.branch.request.copy()
        request.replace_list("Via", request.get_all("Via")[1:])
        context = Context(request, transaction.source, transaction, status)
        self.script.run(context, "failure_route", name)

    def _final(self, transaction: Transaction, response: sip.Message) -> None:
        """Keep the dialog count: a 2xx to INVITE opens one, an answered BYE closes it."""
        self.counters[f"tm:{response.status // 100}xx_transactions"] += 1
        if transaction.method == "INVITE" and transaction.is_dialog and response.status < 300:
            self.dialogs[transaction.request.call_id] = transaction.request.from_tag
        elif transaction.method == "BYE":
            self.dialogs.pop(transaction.request.call_id, None)

    def trusted(self, group: int, address: str) -> bool:
        """Whether the address table has this source in a group (0 there means any group)."""
        return any(
            int(row["grp"]) in (0, group) and in_network(address, row["ip"], int(row["mask"]))
            for row in self.addresses
        )

    def under_pike_limit(self, address: str) -> bool:
        unit = int(self.config.parameter("pike", "sampling_time_unit", 2))
        limit = int(self.config.parameter("pike", "reqs_density_per_unit", 30))
        window = int(time.monotonic() / unit)
        if window != self._window:
            self._window = window
            self._requests.clear()
        self._requests[address] += 1
        return self._requests[address] <= limit

    def _ping(self, interval: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(interval, self._ping, interval)
        if self.dispatcher:
            everyone = self.config.parameter("dispatcher", "ds_probing_mode", 0) == 1
            self.dispatcher.ping_all(self._ping_one, everyone=everyone)

    def _ping_one(self, destination: Destination) -> None:
        method = str(self.config.parameter("dispatcher", "ds_ping_method", "OPTIONS"))
        request = sip.Message(method=method, uri=destination.uri)
        sender = str(self.config.parameter("dispatcher", "ds_ping_from", _PING_FROM))
        request.add("From", f"<{sender}>;tag={sip.new_tag()}")
        request.add("To", f"<{destination.uri}>")
        request.add("Call-ID", sip.new_branch())
        request.add("CSeq", f"10 {method}")
        request.add("Max-Forwards", "70")
        request.add("Via", f"SIP/2.0/UDP {self.own[0]}:{self.own[1]};branch={sip.new_branch()}")
        ping = _Ping(self, destination)
        self.transactions.forward_own(request, destination.address, ping.answered)


class _Ping:
    """Takes one ping's answer to its destination."""

    def __init__(self, engine: Engine, destination: Destination) -> None:
        self._engine, self._destination = engine, destination

    def answered(self, status: int) -> None:
        if self._engine.dispatcher:
            self._engine.dispatcher.probed(self._destination, status)


def _via_address(via: str) -> Address:
    host, _, port = via.split(None, 1)[1].split(";")[0].partition(":")
    received = sip.parameter(via, "received") or host
    rport = sip.parameter(via, "rport")
    number = rport or port
    return received, int(number) if number.isdecimal() else 5060


def in_network(address: str, network: str, mask: int) -> bool:
    """Whether an address is in network/mask; False for what is no address."""
    try:
        inside = ipaddress.ip_network(f"{network}/{mask}", strict=False)
        return ipaddress.ip_address(address) in inside
    except ValueError:
        return False
