"""The proxy's sockets: UDP, and TCP or TLS with a connection for each peer."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import sip
from cfgparse import Listen
from context import Peer, StartError

_SERVED = ("udp", "tcp", "tls", "bin")
_CONNECT_SECONDS = 3.0
OnConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Transports:
    """Opens the sockets and knows the connection to each peer."""

    def __init__(
        self, listens: list[Listen], received: Callable[[bytes, Peer], None],
        unsent: Callable[[bytes], None], tls: Any = None,
    ) -> None:  # fmt: skip
        self.listens, self._received, self._tls = listens, received, tls
        self._unsent = unsent
        self._log = logging.getLogger("opensips")
        self._udp: dict[int, asyncio.DatagramTransport] = {}
        self._servers: list[Any] = []
        self._connections: dict[tuple[str, str, int], asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for one in listens:
            if one.protocol not in _SERVED or (one.protocol == "tls" and tls is None):
                raise StartError(
                    f"ERROR:twin:start: this twin has no sockets of protocol {one.protocol};"
                    f" socket {one.protocol}:{one.address}:{one.port} cannot be served"
                )

    async def open(self) -> None:
        """Bind all; StartError when an address is not ours or taken."""
        for number, one in enumerate(self.listens):
            try:
                await self._bind(number, one)
            except OSError as err:
                kind = "udp" if one.protocol == "udp" else "tcp"
                cause = os.strerror(err.errno) if err.errno else str(err)
                raise StartError(
                    f"ERROR:core:{kind}_init_listener: bind({number}, 0x7f, 16) on {one.address}:"
                    f" {cause}\nERROR:core:trans_init_all_listeners: failed to init listener"
                    f" [{one.address}], proto {one.protocol}\n"
                    "ERROR:core:main: failed to init all SIP listeners, aborting"
                ) from None

    async def _bind(self, number: int, one: Listen) -> None:
        host = "0.0.0.0" if one.address == "*" else one.address
        if one.protocol == "udp":
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Datagrams(self._received, number), local_addr=(host, one.port)
            )
            self._udp[number] = transport
        elif one.protocol == "tcp":
            accept = self._accept("tcp", number)
            self._servers.append(await asyncio.start_server(accept, host, one.port))
        elif one.protocol == "bin":  # a cluster of one: who comes is not talked to
            self._servers.append(await asyncio.start_server(_turn_away, host, one.port))
        else:
            opened = await self._tls.listen(host, one.port, self._accept("tls", number))
            self._servers.append(opened)

    def close(self) -> None:
        for transport in self._udp.values():
            transport.close()
        for server in self._servers:
            server.close()
        for writer in self._connections.values():
            writer.close()

    def local(self, peer: Peer) -> Listen:
        """The socket of ours a message to this peer goes out by."""
        if peer.local >= 0 and self.listens[peer.local].protocol == peer.protocol:
            return self.listens[peer.local]
        same = (one for one in self.listens if one.protocol == peer.protocol)
        return next(same, self.listens[0])

    def can_reach(self, protocol: str) -> bool:
        return any(one.protocol == protocol for one in self.listens)

    def send(self, data: bytes, peer: Peer) -> None:
        """Send, over the connection there is or a new one; what cannot be sent is logged."""
        if peer.protocol == "udp":
            local = self.listens.index(self.local(peer))
            transport = self._udp.get(local)
            if transport and not transport.is_closing():
                transport.sendto(data, (peer.host, peer.port))
            return
        writer = self._connections.get((peer.protocol, peer.host, peer.port))
        if writer and not writer.is_closing():
            writer.write(data)
            return
        task = asyncio.get_running_loop().create_task(self._connect(data, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, data: bytes, peer: Peer) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                tls = peer.protocol == "tls"
                context = self._tls.client(peer.host, peer.port) if tls else None
                reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=context)
        except (OSError, TimeoutError) as err:
            self._log.error("ERROR:proto_%s: connect to %s:%d failed: %s", peer.protocol,
                            peer.host, peer.port, err)  # fmt: skip
            self._unsent(data)
            return
        writer.write(data)
        await self._serve(reader, writer, peer)

    def _accept(self, protocol: str, number: int) -> OnConnection:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            host, port = writer.get_extra_info("peername")[:2]
            await self._serve(reader, writer, Peer(host, port, protocol, number))

        return accepted

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        """Read messages off a connection until it ends or makes no sense."""
        key = (peer.protocol, peer.host, peer.port)
        self._connections[key] = writer
        buffer = bytearray()
        try:
            while data := await reader.read(65_535):
                if data == b"\r\n\r\n":
                    writer.write(b"\r\n")  # a ping gets its pong
                    continue
                buffer += data
                while (message := sip.cut(buffer)) is not None:
                    self._received(message, peer)
        except (OSError, sip.SipError) as err:
            self._log.warning("connection of %s:%d ended: %s", peer.host, peer.port, err)
        finally:
            if self._connections.get(key) is writer:
                del self._connections[key]
            with contextlib.suppress(OSError):
                writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Peer], None], number: int) -> None:
        self._received, self._number = received, number

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, Peer(addr[0], addr[1], "udp", self._number))


async def _turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def protocol_of(uri: str) -> str:
    """Over what a URI wants to be reached."""
    if uri.lstrip("< ").startswith("sips:"):
        return "tls"
    transport = sip.parameter(sip.Uri.parse(uri).parameters, "transport").lower()
    return transport or "udp"
