"""A sofia profile: its sockets, what arrives on them, and what is answered."""

import asyncio
import logging
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import dialplan
import digest
import media
import outbound
import sip
import xml_curl
from calls import HOLDING, Address, Call
from core import Core
from gateways import Gateways
from tls import Peer, Tls
from version import SINCE_1_11_1
from xmltree import params

log = logging.getLogger("sofia")
# What a rescan forgets when it is no longer named; everything else keeps the value it had.
FORGOTTEN = ("apply-inbound-acl", "apply-nat-acl", "apply-proxy-acl", "apply-register-acl",
             "auth-messages", "auth-subscriptions", "pass-callee-id")  # fmt: skip
MINIMUM_UP_SECONDS = 10
RESTART_SECONDS = 4.9
_PAUSED = (503, "Maximum Calls In Progress")
_RETRY_AFTER = "300"


class Profile(asyncio.DatagramProtocol):
    """A running profile. `settings` is what it believes, `bound` where its socket really is."""

    def __init__(self, core: Core, name: str, element: ET.Element) -> None:
        self.core, self.name = core, name
        self.settings = params(element.find("settings"))
        self.started = time.monotonic()
        self.gateways = Gateways(name)
        self.calls_in = self.failed_in = 0
        self._element = element
        self._transport: asyncio.DatagramTransport | None = None
        self._answered: dict[tuple[str, str, str], sip.Message] = {}
        self.bound = (self.settings.get("sip-ip", "127.0.0.1"), self._port())
        self._tls = Tls(self.settings, core.directories["certs_dir"], self._received)
        self._agent = self.settings.get("user-agent-string", "FreeSWITCH-twin")

    def _port(self) -> int:
        return int(self.settings.get("sip-port", "5060"))

    def contact(self, user: str, *, tls: bool = False) -> str:
        """What the profile tells others: after a rescan with a new sip-port this is a lie."""
        host = self.settings.get("ext-sip-ip") or self.settings.get("sip-ip", "127.0.0.1")
        port = self.settings.get("tls-sip-port", "5061") if tls else self._port()
        return f"sip:{user}@{host}:{port}"

    @property
    def url(self) -> str:
        return self.contact("mod_sofia")

    @property
    def tls_url(self) -> str:
        """Empty when the profile does not speak TLS."""
        return self.contact("mod_sofia", tls=True) if self.settings.get("tls") == "true" else ""

    @property
    def wss_url(self) -> str:
        bound = self.settings.get("wss-binding")
        return f"sips:mod_sofia@{bound};transport=wss" if bound else ""

    def _add_gateways(self, element: ET.Element) -> None:
        context = self.settings.get("context", "default")
        self.gateways.add_new(element, self.send, sip.Uri.parse(self.url), context)

    @property
    def seconds_up(self) -> int:
        return int(time.monotonic() - self.started)

    async def open(self) -> None:
        """Bind the sockets; OSError when the address is not ours or taken."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=self.bound
        )
        try:
            self._tls.open()
        except OSError:
            self.close()
            raise
        self._add_gateways(self._element)

    def reload_certificates(self) -> None:
        """Serve what lies in the directory that is set now, a rescanned one included."""
        self._tls.reload(self.settings)

    def close(self) -> None:
        self.gateways.stop()
        self._tls.close()
        if self._transport:
            self._transport.close()
            self._transport = None

    def rescan(self, element: ET.Element) -> None:
        """Take over what sofia takes over: params that say something and new gateways."""
        kept = {name: value for name, value in self.settings.items() if name not in FORGOTTEN}
        said = {name: value for name, value in params(element.find("settings")).items() if value}
        self.settings = kept | said
        self._add_gateways(element)

    def calls(self) -> list[Call]:
        return [call for call in self.core.calls.values() if call.profile == self.name]

    def send(self, data: bytes, address: Address) -> None:
        if isinstance(address, Peer):
            address.send(data)
        elif self._transport and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr)

    def _received(self, data: bytes, addr: Address) -> None:
        if not data.strip():
            return  # a keep-alive
        try:
            message = sip.parse(data)
        except sip.SipError as err:
            log.warning("%s: message from %s ignored: %s", self.name, addr[0], err)
            return
        try:
            if message.is_request:
                self._request(message, addr)
            else:
                self._response(message)
        except (sip.SipError, ValueError, IndexError) as err:
            log.warning("%s: message from %s ignored: %s", self.name, addr[0], err)

    def _response(self, message: sip.Message) -> None:
        _, method = message.cseq
        if message.status < 200:
            return
        if method == "REGISTER":
            for gateway in self.gateways.by_name.values():
                if gateway.call_id == message.call_id:
                    gateway.answered(message)
        elif method == "BYE":
            call = self.core.ending.pop((message.call_id, message.from_tag), None)
            if call:
                call.bye_answered()

    def _request(self, request: sip.Message, source: Address) -> None:
        sip.stamp_via(request, source)
        handler = getattr(self, f"_{request.method.lower()}", None)
        if handler is None:
            self._reply(request, source, 501, "Not Implemented")
        else:
            handler(request, source)

    def _reply(
        self, request: sip.Message, source: Address, status: int, reason: str, **more: str
    ) -> None:
        response = sip.respond(request, status, reason, to_tag=sip.new_tag())
        for name, value in more.items():
            response.add(name.replace("_", "-"), value)
        response.add("User-Agent", self._agent)
        if status == 503:
            response.add("Retry-After", _RETRY_AFTER)
        self.send(response.build(), sip.reply_address(request, source))

    def _options(self, request: sip.Message, source: Address) -> None:
        # As busy as an INVITE would find it; the rate limit alone does not show here.
        told = self.settings.get("sip-options-respond-503-on-busy") == "true" or not SINCE_1_11_1
        if told and self.core.busy():
            self._reply(request, source, *_PAUSED)
        else:
            self._reply(request, source, 200, "OK", Allow="INVITE, ACK, BYE, CANCEL, OPTIONS")

    def _register(self, request: sip.Message, source: Address) -> None:
        if self.core.busy():
            self._reply(request, source, *_PAUSED)
            return
        header = request.get("Authorization")
        directory = self.core.users
        if self.settings.get("accept-blind-reg") != "true" and not (
            header and digest.verify(header, "REGISTER", directory)
        ):
            realm = sip.Uri.parse(request.get("To")).host
            status = (403, "Forbidden") if header else (401, "Unauthorized")
            extra = {} if header else {"WWW_Authenticate": digest.challenge(realm)}
            self._reply(request, source, *status, **extra)
            if header and self.settings.get("log-auth-failures") == "true":
                log.warning("SIP auth failure (REGISTER) on sofia profile '%s' from ip %s",
                            self.name, source[0])  # fmt: skip
            return
        expires = int(
            request.get("Expires") or sip.parameter(request.get("Contact"), "expires") or 3600
        )
        user = str(sip.Uri.parse(request.get("To")).user)
        self.core.registrations[user] = (request.get("Contact"), time.time() + expires)
        self._reply(
            request, source, 200, "OK", Contact=request.get("Contact"), Expires=str(expires)
        )

    def _invite(self, request: sip.Message, source: Address) -> None:
        if request.to_tag:
            self._reinvite(request, source)
            return
        for call in self.calls():
            if call.invite.call_id == request.call_id and call.invite.branch == request.branch:
                call.repeat()
                return
        refused = self._refusal(request, source)
        if refused:
            status, reason, extra = refused
            self.failed_in += 1
            self._reply(request, source, status, reason, **extra)
            return
        stream = media.negotiated(request.body, self.settings.get("inbound-codec-prefs", ""))
        if stream is None:
            self.failed_in += 1
            reason = 'Q.850;cause=88;text="INCOMPATIBLE_DESTINATION"'
            self._reply(request, source, 488, "Not Acceptable Here", Reason=reason)
            return
        self.calls_in += 1
        number = sip.Uri.parse(request.uri).user
        tls = isinstance(source, Peer)
        contact = f"{self.contact(number, tls=tls)};transport={'tls' if tls else 'udp'}"
        context = self.settings.get("context", "default")
        call = Call(self.name, request, source, contact, self._agent, self.send, number, context,
                    self.core.next_rtp_port(), stream)  # fmt: skip
        self.core.add(call)
        call.provisional(100, "Trying")
        task = asyncio.ensure_future(self._run(call))
        self.core.tasks.add(task)
        task.add_done_callback(self.core.tasks.discard)

    def _refusal(
        self, request: sip.Message, source: Address
    ) -> tuple[int, str, dict[str, str]] | None:
        """Why a new INVITE is refused, None when it is welcome."""
        if self.core.busy() or self.core.over_rate():
            return (*_PAUSED, {})
        access = self.settings.get("apply-inbound-acl")
        trusted = bool(access) and self.core.acl.allows(source[0], access or "")
        if trusted:
            return None
        if self.settings.get("auth-calls") == "true":
            header = request.get("Proxy-Authorization")
            if header and digest.verify(header, "INVITE", self.core.users):
                return None
            if header:
                if self.settings.get("log-auth-failures") == "true":
                    log.warning("SIP auth failure (INVITE) on sofia profile '%s' from ip %s",
                                self.name, source[0])  # fmt: skip
                return 403, "Forbidden", {}
            realm = sip.Uri.parse(request.get("To")).host
            return (
                407,
                "Proxy Authentication Required",
                {"Proxy_Authenticate": digest.challenge(realm)},
            )
        return (403, "Forbidden", {}) if access else None

    async def _run(self, call: Call) -> None:
        """Walk through the dialplan's applications; the call ends when they do."""
        fields = {
            **self.core.variables,
            "destination_number": call.destination,
            "caller_id_number": call.caller,
            "network_addr": call.source[0],
        }
        section = await self._dialplan(call)
        if call.ended:
            return
        actions = dialplan.route(section, call.context, fields)
        if not actions:
            self._refuse(call, 404, "Not Found")
            return
        for action in actions:
            if call.ended:
                return
            if action.application == "socket":
                call.application = "socket"
                await outbound.hand_over(call, action.data, self.execute)
            elif await self.execute(call, action.application, action.data):
                return
        if not call.ended:
            await self._end(call)

    async def _dialplan(self, call: Call) -> ET.Element:
        """A web server's if one is bound to it and answers, else the one on disk."""
        asked = {"Caller-Destination-Number": call.destination, "Caller-Context": call.context,
                 "Caller-Caller-ID-Number": call.caller, "Unique-ID": call.uuid}  # fmt: skip
        found = await xml_curl.dialplan(self.core.bindings, asked)
        return self.core.tree.section("dialplan") if found is None else found

    async def execute(self, call: Call, application: str, data: str = "") -> bool:
        """Run one application; True when the dialplan is left with it."""
        call.application = application
        match application:
            case "answer":
                self._answer(call)
            case "ring_ready" | "pre_answer":
                call.provisional(180, "Ringing")
            case "respond" if not call.answered:
                status, _, reason = data.partition(" ")
                self._refuse(call, int(status), reason or "Refused")
                return True
            case "sleep":
                await asyncio.sleep(int(data or 0) / 1000)
            case "hangup" | "respond":
                await self._end(call)
                return True
            case holding if holding in HOLDING:
                self._answer(call)
                return True
        return False

    def _answer(self, call: Call) -> None:
        if not call.answered and not call.ended:
            call.answer(self._sdp(call))

    def _refuse(self, call: Call, status: int, reason: str) -> None:
        self.failed_in += 1
        self.core.remove(call)
        call.refuse(status, reason)

    async def _end(self, call: Call) -> None:
        if call.answered:
            await self.core.hang_up(call, reason='Q.850;cause=16;text="NORMAL_CLEARING"')
        else:
            self._refuse(call, 480, "Temporarily Unavailable")

    def _sdp(self, call: Call) -> bytes:
        address = self.settings.get("ext-rtp-ip") or self.settings.get("rtp-ip", "127.0.0.1")
        certs = Path(self.core.directories["certs_dir"])
        return call.stream.described(address, call.rtp_port, int(call.created), certs)

    def _of_dialog(self, request: sip.Message) -> Call | None:
        return self.core.dialogs.get((request.call_id, request.to_tag))

    def _reinvite(self, request: sip.Message, source: Address) -> None:
        call = self._of_dialog(request)
        if call is None:
            self._reply(request, source, 481, "Call Does Not Exist")
            return
        response = sip.respond(request, 200, "OK")
        response.add("Contact", f"<{call.contact}>")
        response.add("Content-Type", "application/sdp")
        response.body = self._sdp(call)
        self.send(response.build(), sip.reply_address(request, source))

    def _ack(self, request: sip.Message, source: Address) -> None:
        call = self._of_dialog(request)
        if call:
            call.acknowledged()

    def _bye(self, request: sip.Message, source: Address) -> None:
        call = self._of_dialog(request)
        if call is None:
            self._reply(request, source, 481, "Call Does Not Exist")
            return
        call.drop()
        self.core.remove(call)
        response = sip.respond(request, 200, "OK")
        self.send(response.build(), sip.reply_address(request, source))

    def _cancel(self, request: sip.Message, source: Address) -> None:
        for call in self.calls():
            if call.invite.call_id == request.call_id and not call.answered:
                self._reply(request, source, 200, "OK")
                self._refuse(call, 487, "Request Terminated")
                return
        self._reply(request, source, 481, "Call/Transaction Does Not Exist")
