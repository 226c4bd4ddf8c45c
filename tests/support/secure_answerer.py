"""A destination behind a proxy that is called over TLS, and may call back over that connection."""

import contextlib
import hashlib
import select
import socket
import ssl
import threading
from pathlib import Path

from tests.support.answerer import Answerer
from tests.support.phone import sip

_NOTICED_SECONDS = 5.0


class SecureAnswerer(Answerer):
    """An `Answerer` over TLS; ``shown`` are the SHA-256 of who connected, in order.

    ``own`` is its certificate with its key; ``authority`` must have issued that of who connects.
    """

    transport = "TLS"

    def __init__(self, own: Path, authority: str, port: int, address: str = "127.0.0.1") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own)
        self._context.load_verify_locations(cadata=authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.shown: list[str] = []
        self._links: list[tuple[ssl.SSLSocket, threading.Thread]] = []
        self._writing = threading.Lock()
        self._came_by: dict[str, ssl.SSLSocket] = {}  # of each call, the connection
        super().__init__(port, address=address)

    def _bind(self, port: int) -> socket.socket:
        return socket.create_server((self.address, port))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.forget()
        self._thread.join(5)

    def forget(self) -> None:
        """End every connection, the far side having noticed: the next request opens a new one."""
        links, self._links = self._links, []
        for link, _ in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_WR)
        for link, talking in links:
            talking.join(_NOTICED_SECONDS)
            link.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=[plain], daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):  # also one that `forget` has closed
            link = self._context.wrap_socket(plain, server_side=True)
            self._links.append((link, threading.current_thread()))
            shown = link.getpeercert(binary_form=True) or b""
            self.shown.append(hashlib.sha256(shown).hexdigest())
            buffer = bytearray()
            while data := self._read(link):
                buffer += data
                while whole := sip.cut(buffer):
                    self._take(sip.parse(whole), link)

    def _read(self, link: ssl.SSLSocket) -> bytes:
        """What has come; OpenSSL must not read and write at once on one connection."""
        while True:
            if not link.pending():
                select.select([link], [], [])
            with self._writing:
                link.settimeout(0.05)
                try:
                    return link.recv(65_535)
                except TimeoutError:  # not a whole record yet, or none of SIP's
                    continue

    def _write(self, message: sip.Message, link: ssl.SSLSocket) -> None:
        with self._writing:
            link.settimeout(_NOTICED_SECONDS)
            link.sendall(message.build())

    def _take(self, message: sip.Message, link: ssl.SSLSocket) -> None:
        if not message.is_request:
            self._note(self.answers, message)
            return
        self._came_by.setdefault(message.call_id, link)
        self._note(self.requests, message)
        for response in self._responses(message):
            self._write(response, link)

    def _send(self, request: sip.Message) -> None:
        self._write(request, self._came_by[request.call_id])

    @property
    def contact(self) -> str:
        return f"<sip:answerer@{self.address}:{self.port};transport=tls>"
