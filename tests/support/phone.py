"""A caller in a few lines: one socket, UDP or TLS, no threads; with the twins' SIP messages."""

import hashlib
import re
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "lab" / "twins" / "common"))

import sip


@dataclass
class Dialog:
    """An answered call as the caller knows it."""

    call_id: str
    local: str
    remote: str
    target: str
    cseq: int
    answer: sip.Message


class Phone:
    """Calls from its own loopback port; what it is sent unasked waits in `inbox`."""

    transport = "UDP"
    address = "127.0.0.1"

    def __init__(
        self,
        server: tuple[str, int],
        *,
        through_proxy: bool = False,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.server, self._through_proxy, self.address = server, through_proxy, address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self.port = self._socket.getsockname()[1]
        self.inbox: list[sip.Message] = []

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Phone":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: sip.Message) -> None:
        self._socket.sendto(message.build(), self.server)

    def raw(self, data: bytes) -> None:
        self._socket.sendto(data, self.server)

    def receive(self, seconds: float) -> sip.Message | None:
        """The next message, None when none came; requests other than ACK are answered 200."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            data, source = self._socket.recvfrom(65_535)
        except TimeoutError:
            return None
        message = sip.parse(data)
        if message.is_request and message.method != "ACK":
            self._socket.sendto(sip.respond(message, 200, "OK").build(), source)
        return message

    def wait(self, wanted, seconds: float = 10.0) -> sip.Message | None:
        """The first message that `wanted` accepts; all others are kept in `inbox`."""
        for kept in self.inbox:
            if wanted(kept):
                self.inbox.remove(kept)
                return kept
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if message is None:
                return None
            if wanted(message):
                return message
            self.inbox.append(message)
        return None

    def request(self, method: str, user: str = "1000", **headers: str) -> sip.Message:
        """A request outside of any dialog."""
        host, port = self.server
        message = sip.Message(method=method, uri=f"sip:{user}@{host}:{port}")
        sent_by = f"{self.address}:{self.port};rport;branch={sip.new_branch()}"
        message.add("Via", f"SIP/2.0/{self.transport} {sent_by}")
        message.add("Max-Forwards", "70")
        message.add("From", f"<sip:caller@{self.address}:{self.port}>;tag={sip.new_tag()}")
        message.add("To", f"<sip:{user}@{host}>")
        message.add("Call-ID", sip.new_branch())
        message.add("CSeq", f"1 {method}")
        over = "" if self.transport == "UDP" else f";transport={self.transport.lower()}"
        message.add("Contact", f"<sip:caller@{self.address}:{self.port}{over}>")
        for name, value in headers.items():
            message.set(name.replace("_", "-"), value)
        if method == "INVITE":
            message.add("Content-Type", "application/sdp")
            message.body = self._offer()
        return message

    def _offer(self) -> bytes:
        return (
            b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            b"m=audio 49170 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
        )

    def transact(self, request: sip.Message, seconds: float = 4.0) -> sip.Message | None:
        """Send and return the final response, None for silence; refusals are acknowledged."""
        deadline = time.monotonic() + seconds
        resend = 0.5
        while (left := deadline - time.monotonic()) > 0:
            self.send(request)
            final = self._final(request, min(left, resend))
            if final is not None:
                if request.method == "INVITE" and final.status >= 300:
                    self.send(self._ack(request, final))
                return final
            resend *= 2
        return None

    def _final(self, request: sip.Message, seconds: float) -> sip.Message | None:
        return self.wait(
            lambda m: m.status >= 200 and m.call_id == request.call_id and m.cseq == request.cseq,
            seconds,
        )

    def _ack(self, request: sip.Message, final: sip.Message) -> sip.Message:
        ack = sip.Message(method="ACK", uri=request.uri)
        for name in ("Via", "Max-Forwards", "From", "Call-ID"):
            ack.add(name, request.get(name))
        ack.add("To", final.get("To"))
        ack.add("CSeq", f"{request.cseq[0]} ACK")
        return ack

    def options(self, seconds: float = 4.0) -> sip.Message | None:
        return self.transact(self.request("OPTIONS"), seconds)

    def invite(self, user: str = "1000", **headers: str) -> sip.Message | None:
        """Try a call and return its final response; an answered one is hung up at once."""
        request = self.request("INVITE", user, **headers)
        final = self.transact(request)
        if final is not None and final.status == 200:
            self.hang_up(self.dialog(request, final))
        return final

    def register(self, user: str, password: str, domain: str = "") -> list[int]:
        """Register with digest; the statuses of the first and the authorised request."""
        first = self._registration(user, domain)
        challenge = self.transact(first)
        assert challenge is not None
        second = self._registration(user, domain)
        second.set("Call-ID", first.call_id)
        second.set("CSeq", "2 REGISTER")
        asked = dict(re.findall(r'(\w+)="?([^",]+)', challenge.get("WWW-Authenticate")))
        a1 = _md5(f"{user}:{asked['realm']}:{password}")
        a2 = _md5(f"REGISTER:{second.uri}")
        response = _md5(f"{a1}:{asked['nonce']}:00000001:c:auth:{a2}")
        second.add(
            "Authorization",
            f'Digest username="{user}", realm="{asked["realm"]}", nonce="{asked["nonce"]}", '
            f'uri="{second.uri}", qop=auth, nc=00000001, cnonce="c", response="{response}"',
        )
        final = self.transact(second)
        return [challenge.status, final.status if final else 0]

    def _registration(self, user: str, domain: str) -> sip.Message:
        request = self.request("REGISTER", user)
        if domain:
            request.set("To", f"<sip:{user}@{domain}>")
        request.uri = f"sip:{self.server[0]}:{self.server[1]}"
        request.set("From", f"<sip:{user}@{self.server[0]}>;tag={sip.new_tag()}")
        return request

    def call(self, user: str = "1000", **headers: str) -> Dialog:
        """Hold a call; AssertionError when it is not answered."""
        request = self.request("INVITE", user, **headers)
        final = self.transact(request)
        assert final is not None, "no answer"
        assert final.status == 200, (final.status, final.reason)
        return self.dialog(request, final)

    def dialog(self, request: sip.Message, final: sip.Message) -> Dialog:
        target = str(sip.Uri.parse(final.get("Contact")))
        dialog = Dialog(request.call_id, request.get("From"), final.get("To"), target, 1, final)
        self.send(self.within(dialog, "ACK"))
        return dialog

    def within(self, dialog: Dialog, method: str) -> sip.Message:
        """A request of the dialog; sent to the daemon's socket whatever Contact says."""
        if method != "ACK":
            dialog.cseq += 1
        message = self.request(method)
        message.uri = dialog.target
        for name, value in (("From", dialog.local), ("To", dialog.remote),
                            ("Call-ID", dialog.call_id),
                            ("CSeq", f"{dialog.cseq} {method}")):  # fmt: skip
            message.set(name, value)
        if self._through_proxy:
            for route in reversed(dialog.answer.get_all("Record-Route")):
                message.add("Route", route)
        return message

    def reinvite(self, dialog: Dialog) -> int:
        """Renew the session; the status of the answer, 0 for silence."""
        request = self.within(dialog, "INVITE")
        final = self.transact(request)
        if final is not None and final.status == 200:
            self.send(self.within(dialog, "ACK"))
        return final.status if final else 0

    def hang_up(self, dialog: Dialog) -> int:
        final = self.transact(self.within(dialog, "BYE"))
        return final.status if final else 0

    def bye(self, dialog: Dialog, seconds: float = 5.0) -> sip.Message | None:
        """The BYE the daemon sent for the call, None when it sent none."""
        return self.wait(lambda m: m.method == "BYE" and m.call_id == dialog.call_id, seconds)


class TlsPhone(Phone):
    """Calls over one TLS connection, whatever its certificate; `peer` is that, as DER."""

    transport = "TLS"

    def __init__(self, server: tuple[str, int], seconds: float = 5.0) -> None:
        self.server, self._through_proxy = server, False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(server, seconds)
        try:
            self._socket = context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise
        self.port = self._socket.getsockname()[1]
        self.peer = self._socket.getpeercert(binary_form=True)
        self.inbox = []
        self._buffer = bytearray()

    def send(self, message: sip.Message) -> None:
        self.raw(message.build())

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, seconds: float) -> sip.Message | None:
        """The next message, None when none came; requests other than ACK are answered 200."""
        deadline = time.monotonic() + seconds
        while (whole := sip.cut(self._buffer)) is None:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(65_535)
            except TimeoutError:
                return None
            if not data:
                raise ConnectionResetError("the connection was closed")
            self._buffer += data
        message = sip.parse(whole)
        if message.is_request and message.method != "ACK":
            self.send(sip.respond(message, 200, "OK"))
        return message


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
