"""A destination behind a proxy that is called over TLS, and may call back over that connection."""

import contextlib
import hashlib
import socket
import ssl
import threading
from pathlib import Path

from tests.support.answerer import Answerer
from tests.support.phone import sip


class SecureAnswerer(Answerer):
    """An `Answerer` over TLS; ``shown`` are the SHA-256 of who connected, in order.

    ``own`` is its certificate with its key; ``authority`` must have issued that of who connects.
    """

    def __init__(self, own: Path, authority: str, port: int, address: str = "127.0.0.1") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(own)
        self._context.load_verify_locations(cadata=authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.shown: list[str] = []
        self._links: list[ssl.SSLSocket] = []
        super().__init__(port, address=address)

    def _bind(self, port: int) -> socket.socket:
        return socket.create_server((self.address, port))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.forget()
        self._thread.join(5)

    def forget(self) -> None:
        """End every connection: the next request comes over a new one."""
        links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=[plain], daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            link = self._context.wrap_socket(plain, server_side=True)
            self._links.append(link)
            shown = link.getpeercert(binary_form=True) or b""
            self.shown.append(hashlib.sha256(shown).hexdigest())
            buffer = bytearray()
            while data := link.recv(65_535):
                buffer += data
                while whole := sip.cut(buffer):
                    message = sip.parse(whole)
                    if message.is_request:
                        self._answer(message, link)

    def _answer(self, request: sip.Message, link: ssl.SSLSocket) -> None:
        with self.heard:
            self.requests.append(request)
            self.heard.notify_all()
        for response in self._responses(request):
            link.sendall(response.build())

    @property
    def contact(self) -> str:
        return f"<sip:answerer@{self.address}:{self.port};transport=tls>"
