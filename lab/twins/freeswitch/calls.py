"""One inbound call: its dialog, its answer, its end."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import sip
from media import Stream
from tls import Peer

T1, T2, GIVE_UP = 0.5, 4.0, 32.0
# Applications that last as long as the call.
HOLDING = {"echo", "park", "playback", "endless_playback", "conference", "delay_echo"}
Address = tuple[str, int] | Peer
Send = Callable[[bytes, Address], None]


@dataclass
class Call:
    """A channel with the SIP dialog it came from; it stays on the connection it came by."""

    profile: str
    invite: sip.Message
    source: Address
    contact: str
    agent: str
    send: Send
    destination: str
    context: str
    rtp_port: int
    stream: Stream
    created: float = field(default_factory=time.time)
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    tag: str = field(default_factory=sip.new_tag)
    application: str = ""  # of the dialplan, the one that runs
    answered: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _cseq: int = 1
    _final: sip.Message | None = None
    _timer: asyncio.Task[None] | None = None
    _bye_answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.invite.call_id, self.tag, self.invite.from_tag

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    @property
    def caller(self) -> str:
        return sip.Uri.parse(self.invite.get("From")).user

    @property
    def caller_address(self) -> str:
        uri = sip.Uri.parse(self.invite.get("From"))
        return f"{uri.user}@{uri.host}" + (f":{uri.port}" if uri.port != 5060 else "")

    def provisional(self, status: int, reason: str) -> None:
        tag = self.tag if status > 100 else ""
        self._respond(sip.respond(self.invite, status, reason, to_tag=tag))

    def answer(self, sdp: bytes) -> None:
        """Send 200 with the session description until it is acknowledged."""
        response = sip.respond(self.invite, 200, "OK", to_tag=self.tag)
        response.add("Contact", f"<{self.contact}>")
        response.add("User-Agent", self.agent)
        response.add("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER")
        response.add("Content-Type", "application/sdp")
        response.body = sdp
        self.answered, self._final = True, response
        self._timer = asyncio.ensure_future(self._until_acknowledged(response))

    def refuse(self, status: int, reason: str) -> None:
        """End a call that was never answered."""
        self.over.set()
        self._final = sip.respond(self.invite, status, reason, to_tag=self.tag)
        self._respond(self._final)

    def repeat(self) -> None:
        """Answer a retransmitted INVITE with what was last said."""
        self._respond(self._final or sip.respond(self.invite, 100, "Trying"))

    def acknowledged(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def _until_acknowledged(self, response: sip.Message) -> None:
        wait, waited = T1, 0.0
        while waited < GIVE_UP:
            self._respond(response)
            await asyncio.sleep(wait)
            waited += wait
            wait = min(wait * 2, T2)

    def _respond(self, response: sip.Message) -> None:
        self.send(response.build(), sip.reply_address(self.invite, self.source))

    def in_dialog(self, method: str, reason: str = "") -> tuple[sip.Message, Address]:
        """A request of ours within the dialog, and the first hop it goes to."""
        self._cseq += 1
        routes = self.invite.get_all("Record-Route")
        target = sip.Uri.parse(self.invite.get("Contact") or self.invite.get("From"))
        request = sip.Message(method=method, uri=str(target))
        own = sip.Uri.parse(self.contact)
        transport = "TLS" if isinstance(self.source, Peer) else "UDP"
        sent_by = f"{own.host}:{own.port};rport;branch={sip.new_branch()}"
        request.add("Via", f"SIP/2.0/{transport} {sent_by}")
        request.add("Max-Forwards", "70")
        for route in routes:
            request.add("Route", route)
        request.add("From", f"{self.invite.get('To')};tag={self.tag}")
        request.add("To", self.invite.get("From"))
        request.add("Call-ID", self.invite.call_id)
        request.add("CSeq", f"{self._cseq} {method}")
        if reason:
            request.add("Reason", reason)
        if isinstance(self.source, Peer):
            return request, self.source
        hop = sip.Uri.parse(routes[0]) if routes else target
        return request, hop.address

    async def hang_up(self, reason: str) -> None:
        """Send BYE until it is answered or 32 s have passed."""
        self.over.set()
        self.acknowledged()
        request, hop = self.in_dialog("BYE", reason)
        wait, waited = T1, 0.0
        while waited < GIVE_UP and not self._bye_answered.is_set():
            self.send(request.build(), hop)
            try:
                await asyncio.wait_for(self._bye_answered.wait(), wait)
            except TimeoutError:
                waited += wait
                wait = min(wait * 2, T2)

    def bye_answered(self) -> None:
        self._bye_answered.set()

    def drop(self) -> None:
        """Forget the call without a word."""
        self.over.set()
        self.acknowledged()
