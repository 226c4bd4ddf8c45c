"""A destination behind a proxy: answers what it is told to, and remembers what it was asked."""

import contextlib
import socket
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "lab" / "twins" / "common"))

import sip

SILENT = 0


class Answerer:
    """Answers INVITE with `status` (`SILENT`: not at all), everything else with 200."""

    transport = "UDP"

    def __init__(self, port: int, status: int = 200, address: str = "127.0.0.1") -> None:
        self.status, self.address = status, address
        self.options = 200  # the answer to a ping
        self.sdp = b""  # what an accepted INVITE is answered with
        self.requests: list[sip.Message] = []
        self.answers: list[sip.Message] = []  # to what it asked itself
        self._asked = 100  # its last CSeq
        self.heard = threading.Condition()
        self._caller: tuple[str, int] = ("", 0)  # who asked last
        self.port = port
        self._socket = self._bind(port)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _bind(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((self.address, port))
        return made

    @property
    def contact(self) -> str:
        return f"<sip:answerer@{self.address}:{self.port}>"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(b"end", (self.address, self.port))
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, source = self._socket.recvfrom(65_535)
            if data == b"end":
                return
            request = sip.parse(data)
            if not request.is_request:
                self._note(self.answers, request)
                continue
            self._caller = source
            self._note(self.requests, request)
            for response in self._responses(request):
                self._socket.sendto(response.build(), source)

    def _note(self, among: list[sip.Message], message: sip.Message) -> None:
        with self.heard:
            among.append(message)
            self.heard.notify_all()

    def _responses(self, request: sip.Message) -> list[sip.Message]:
        if request.method == "ACK":
            return []
        if request.method != "INVITE":
            status = self.options if request.method == "OPTIONS" else 200
            return [sip.respond(request, status, "OK", to_tag=request.to_tag or "answerer")]
        if self.status == SILENT:
            return []
        final = sip.respond(request, self.status, "As Told", to_tag=f"tag{self.port}")
        if self.status == 180:
            return [final]
        final.add("Contact", self.contact)
        if self.sdp and self.status == 200:
            final.add("Content-Type", "application/sdp")
            final.body = self.sdp
        return [final]

    def finish(self, status: int) -> None:
        """Answer the INVITE that rings."""
        request = self.wait_for("INVITE")
        final = sip.respond(request, status, "As Told", to_tag=f"tag{self.port}")
        self._socket.sendto(final.build(), self._caller)

    def ask(self, call_id: str, method: str) -> sip.Message:
        """Send a request within a call that it has, the way the call came; returned as sent."""
        invite = next(r for r in self.requests if r.call_id == call_id and not r.to_tag)
        self._asked += 1
        request = sip.Message(method=method, uri=str(sip.Uri.parse(invite.get("Contact"))))
        sent_by = f"{self.address}:{self.port};rport;branch={sip.new_branch()}"
        request.add("Via", f"SIP/2.0/{self.transport} {sent_by}")
        request.add("Max-Forwards", "70")
        request.add("From", f"{invite.get('To')};tag=tag{self.port}")
        request.add("To", invite.get("From"))
        request.add("Call-ID", call_id)
        request.add("CSeq", f"{self._asked} {method}")
        request.add("Contact", self.contact)
        for route in invite.get_all("Record-Route"):
            request.add("Route", route)
        self._send(request)
        return request

    def _send(self, request: sip.Message) -> None:
        self._socket.sendto(request.build(), self._caller)

    def answered(self, request: sip.Message, seconds: float = 5.0) -> int:
        """The status of the final answer to what it asked, 0 for silence."""

        def final() -> int:
            return next(
                (
                    answer.status
                    for answer in self.answers
                    if (answer.call_id, answer.cseq) == (request.call_id, request.cseq)
                    and answer.status >= 200
                ),
                0,
            )

        with self.heard:
            self.heard.wait_for(lambda: final() > 0, seconds)
        return final()

    def methods(self) -> list[str]:
        """What came, without the proxy's own pings."""
        return [request.method for request in self.requests if request.method != "OPTIONS"]

    def wait_for(self, method: str, seconds: float = 5.0) -> sip.Message:
        """The first request of a method, waiting for it; AssertionError if it does not come."""

        def found() -> sip.Message | None:
            return next((r for r in self.requests if r.method == method), None)

        with self.heard:
            assert self.heard.wait_for(lambda: found() is not None, seconds), f"no {method} came"
        message = found()
        assert message is not None
        return message
