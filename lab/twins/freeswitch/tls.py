"""TLS: what a profile serves, and SIP over its connections.

`agent.pem` speaks for SIP and is sent alone: what stands behind its first certificate is dropped,
intermediates come from `cafile.pem`. `wss.pem` speaks for WSS and is sent whole; the twin shakes
hands there and says no more. A bad agent.pem leaves SIP without a certificate, and every handshake
fails; a bad wss.pem keeps the whole profile from starting, and at a reload the old one stays.
"""

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import certificates
import sip

_MAX_BUFFER = 256 * 1024
_HANDSHAKE_SECONDS = 5.0


class Peer(NamedTuple):
    """The other end of a TLS connection: an address that takes messages."""

    host: str
    port: int
    transport: asyncio.Transport

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


Receive = Callable[[bytes, Peer], None]


class Tls:
    """The TLS sockets of one profile; `reload` reads the certificates for new connections."""

    def __init__(self, settings: dict[str, str], certs: str, receive: Receive) -> None:
        self._host = settings.get("sip-ip", "127.0.0.1")
        self._port = int(settings.get("tls-sip-port") or 5061)
        self._wss = settings.get("wss-binding", "")
        self._certs, self._receive = certs, receive
        self._contexts: dict[str, ssl.SSLContext | None] = {}  # None: no certificate
        self._listeners: list[socket.socket] = []
        self._open: set[asyncio.Transport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._read(settings)

    def _read(self, settings: dict[str, str]) -> None:
        directory = Path(settings.get("tls-cert-dir") or self._certs)
        if settings.get("tls") == "true":
            self._contexts["sip"] = _for_sip(directory)
        if self._wss:
            self._contexts["wss"] = _for_wss(directory)

    def reload(self, settings: dict[str, str]) -> None:
        """Serve new connections what is on disk now; those that are open keep what they have."""
        with contextlib.suppress(OSError):
            self._read(settings)

    def open(self) -> None:
        """Listen; OSError when an address is not ours or taken."""
        if "sip" in self._contexts:
            self._listen("sip", self._host, self._port)
        if "wss" in self._contexts:
            host, _, port = self._wss.rpartition(":")
            self._listen("wss", host or self._host, int(port))

    def _listen(self, kind: str, host: str, port: int) -> None:
        listener = socket.create_server((host, port))
        listener.setblocking(False)
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener, kind)

    def _accept(self, listener: socket.socket, kind: str) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # who called has gone
        task = asyncio.ensure_future(self._welcome(connection, kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, connection: socket.socket, kind: str) -> None:
        def protocol() -> asyncio.Protocol:
            return _Link(self._open, self._receive if kind == "sip" else None)

        context = self._contexts[kind]
        with contextlib.suppress(OSError):  # the handshake failed
            if context is None:
                await asyncio.to_thread(_refuse, connection)
            else:
                await asyncio.get_running_loop().connect_accepted_socket(
                    protocol, connection, ssl=context
                )

    def close(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()
        for transport in list(self._open):
            transport.close()


class _Link(asyncio.Protocol):
    """One connection; without a receiver what it says is dropped."""

    def __init__(self, open_ones: set[asyncio.Transport], receive: Receive | None) -> None:
        self._open, self._receive = open_ones, receive
        self._buffer = bytearray()
        self._peer: Peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._peer = Peer(*transport.get_extra_info("peername")[:2], transport)
        self._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._peer.transport)

    def data_received(self, data: bytes) -> None:
        if self._receive is None:
            return
        self._buffer += data
        try:
            while (message := sip.cut(self._buffer)) is not None:
                self._receive(message, self._peer)
        except sip.SipError:
            self._peer.transport.close()  # nobody knows where the next message begins
        if len(self._buffer) > _MAX_BUFFER:
            self._peer.transport.close()


def _refuse(connection: socket.socket) -> None:
    """Fail a handshake for want of a certificate, with the alert that asyncio does not send."""
    connection.settimeout(_HANDSHAKE_SECONDS)
    with connection:
        _context().wrap_socket(connection, server_side=True).close()


def _for_sip(directory: Path) -> ssl.SSLContext | None:
    """agent.pem, or a self-signed tls.pem in its place; None if it is bad."""
    agent, own, authorities = (directory / n for n in ("agent.pem", "tls.pem", "cafile.pem"))
    if not agent.exists():
        certificates.make(own)
    context = _context()
    with contextlib.suppress(ssl.SSLError):
        _load(context, certificates.leaf_and_key(agent if agent.exists() else own))
        if authorities.exists():
            context.load_verify_locations(authorities)  # OpenSSL finds the rest of the chain here
        return context
    return None


def _for_wss(directory: Path) -> ssl.SSLContext:
    """wss.pem with all its certificates; ssl.SSLError, an OSError, when it is bad."""
    file = directory / "wss.pem"
    certificates.make(file)
    context = _context()
    context.load_cert_chain(file)
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # ssl reads files only
        file.write(text)
        file.flush()
        context.load_cert_chain(file.name)
