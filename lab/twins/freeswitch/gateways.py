"""Gateways of a profile: what sofia knows of a carrier, and registering with it."""

import asyncio
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field

import digest
import sip
from xmltree import params

_DELETION_SECONDS = 1.0  # killgw marks; the profile's thread deletes at its next turn
_RETRY_SECONDS = 30.0


@dataclass
class Gateway:
    """One gateway as it was when sofia first read it; later edits do not reach it."""

    name: str
    profile: str
    settings: dict[str, str]
    contact: sip.Uri  # the profile's own
    context: str  # of the profile
    state: str = "NOREG"
    retry_at: float = 0.0
    marked: bool = False  # for deletion
    created: float = field(default_factory=time.time)
    _task: asyncio.Task[None] | None = None
    _answers: asyncio.Queue[sip.Message] = field(default_factory=asyncio.Queue)
    call_id: str = field(default_factory=sip.new_branch)

    @property
    def user(self) -> str:
        return self.settings.get("username", "FreeSWITCH")

    @property
    def realm(self) -> str:
        return self.settings.get("realm") or self.settings.get("proxy") or self.name

    @property
    def proxy(self) -> str:
        return self.settings.get("proxy") or self.realm

    @property
    def address(self) -> str:
        return f"sip:{self.user}@{self.realm}"

    @property
    def status(self) -> str:
        return "DOWN" if self.state in ("FAILED", "FAIL_WAIT", "TRYING") else "UP"

    @property
    def registers(self) -> bool:
        return self.settings.get("register", "true") == "true"

    def start(self, send: Callable[[bytes, tuple[str, int]], None]) -> None:
        if self.registers:
            self.state = "TRYING"
            self._task = asyncio.ensure_future(self._keep_registered(send))

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    def answered(self, response: sip.Message) -> None:
        self._answers.put_nowait(response)

    async def _keep_registered(self, send: Callable[[bytes, tuple[str, int]], None]) -> None:
        expires = int(self.settings.get("expire-seconds") or 3600)
        cseq = 0
        while True:
            authorization, status = "", 0
            for _ in range(2):
                cseq += 1
                request = self._register(cseq, expires, authorization)
                response = await self._exchange(send, request)
                status = response.status if response else 0
                if response and status in (401, 407):
                    header = response.get("WWW-Authenticate") or response.get("Proxy-Authenticate")
                    authorization = digest.answer(
                        header,
                        self.user,
                        self.settings.get("password", ""),
                        "REGISTER",
                        request.uri,
                    )
                    continue
                break
            self.state = "REGED" if status == 200 else "FAIL_WAIT"
            wait = expires / 2 if status == 200 else _RETRY_SECONDS
            self.retry_at = time.time() + wait
            await asyncio.sleep(wait)

    async def _exchange(
        self, send: Callable[[bytes, tuple[str, int]], None], request: sip.Message
    ) -> sip.Message | None:
        hop = sip.Uri.parse(f"sip:{self.proxy.removeprefix('sip:')}").address
        for wait in (0.5, 1.0, 2.0):
            send(request.build(), hop)
            try:
                while True:
                    response = await asyncio.wait_for(self._answers.get(), wait)
                    if response.status >= 200 and response.cseq == request.cseq:
                        return response
            except TimeoutError:
                continue
        return None

    def _register(self, cseq: int, expires: int, authorization: str) -> sip.Message:
        contact = self.contact
        domain = self.proxy.removeprefix("sip:")
        request = sip.Message(method="REGISTER", uri=f"sip:{domain}")
        via = f"SIP/2.0/UDP {contact.host}:{contact.port};rport;branch={sip.new_branch()}"
        request.add("Via", via)
        request.add("Max-Forwards", "70")
        request.add("From", f"<sip:{self.user}@{self.realm}>;tag={sip.new_tag()}")
        request.add("To", f"<sip:{self.user}@{self.realm}>")
        request.add("Call-ID", self.call_id)
        request.add("CSeq", f"{cseq} REGISTER")
        request.add("Contact", f"<sip:gw+{self.name}@{contact.host}:{contact.port}>")
        request.add("Expires", str(expires))
        if authorization:
            request.add("Authorization", authorization)
        return request


class Gateways:
    """A profile's gateways by name."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.by_name: dict[str, Gateway] = {}

    def add_new(
        self,
        element: ET.Element,
        send: Callable[[bytes, tuple[str, int]], None],
        contact: sip.Uri,
        context: str,
    ) -> None:
        """Start gateways not known yet; a changed one keeps its old settings (the rescan trap)."""
        for entry in element.findall("./gateways/gateway"):
            name = entry.get("name", "")
            known = self.by_name.get(name)
            if known is None or known.marked:  # measured: a marked one makes room at once
                gateway = Gateway(name, self.profile, params(entry), contact, context)
                self.by_name[name] = gateway
                gateway.start(send)

    def kill(self, name: str) -> bool:
        """Mark a gateway for deletion; it is gone within a second."""
        gateway = self.by_name.get(name)
        if gateway is None or gateway.marked:
            return False
        gateway.marked = True
        gateway.stop()
        asyncio.get_running_loop().call_later(_DELETION_SECONDS, self._delete, gateway)
        return True

    def _delete(self, gateway: Gateway) -> None:
        if self.by_name.get(gateway.name) is gateway:
            del self.by_name[gateway.name]

    def stop(self) -> None:
        for gateway in self.by_name.values():
            gateway.stop()
        self.by_name.clear()
