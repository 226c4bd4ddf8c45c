"""Who calls a node: SIPp over UDP and TLS, a browser that opens a WebSocket; and who answers."""

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.contract.freeswitch.fs_worker import Channel

SCENARIO = Path(__file__).with_name("sipp") / "call.xml"
HOLD_MS = 300
_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def call(directory: Path, caller: str, target: tuple[str, int]) -> str:
    """Have SIPp call over UDP; return what went wrong, "" when the call completed."""
    done = subprocess.run(_sipp(directory, caller, target, "UDP"), **_QUIET, cwd=directory)
    return _wrong(directory, done.returncode)


def call_over_tls(
    directory: Path, caller: str, target: tuple[str, int], context: ssl.SSLContext, name: str
) -> str:
    """Have SIPp call over TLS; return what went wrong, "" when the call completed.

    Debian builds SIPp without TLS, so it speaks over TCP to a relay that adds it; the server must
    prove that it is ``name``.
    """

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            *target, ssl=context, server_hostname=name, local_addr=(caller, 0)
        )
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    async def place() -> int:
        server = await asyncio.start_server(relay, caller, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            command = _sipp(directory, caller, target, "TLS", "-rsa", f"{caller}:{port}")
            process = await asyncio.create_subprocess_exec(*command, **_QUIET, cwd=directory)
            return await process.wait()

    return _wrong(directory, asyncio.run(place()))


_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _sipp(directory: Path, caller: str, target: tuple[str, int], via: str, *more: str) -> list[str]:
    (directory / "sipp.errors").unlink(missing_ok=True)
    return [
        "sipp", f"{target[0]}:{target[1]}", "-sf", str(SCENARIO), "-key", "via", via,
        "-t", "u1" if via == "UDP" else "t1", "-i", caller, "-mi", caller, "-s", "1000",
        "-m", "1", "-d", str(HOLD_MS), "-timeout", "20", "-timeout_error", "-nostdin",
        "-trace_err", "-error_file", str(directory / "sipp.errors"), *more,
    ]  # fmt: skip


def _wrong(directory: Path, code: int) -> str:
    if code == 0:
        return ""
    errors = directory / "sipp.errors"
    return f"sipp ended with {code}: {errors.read_text() if errors.exists() else 'no word'}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def trusting(chain: Path) -> ssl.SSLContext:
    """Return a client that accepts the certificates of a file, be they no roots."""
    context = ssl.create_default_context(cafile=str(chain))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def upgrade(target: tuple[str, int], context: ssl.SSLContext, name: str) -> str:
    """Open a WebSocket for SIP over TLS; return the protocol the server agreed to."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "GET / HTTP/1.1", f"Host: {name}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Protocol: sip", "Sec-WebSocket-Version: 13",
    )  # fmt: skip
    with (
        socket.create_connection(target, 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as link,
    ):
        link.sendall("\r\n".join((*lines, "", "")).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = link.recv(4096)
            assert more, f"closed after {answer!r}"
            answer += more
    first, *rest = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert first.split()[1] == "101", first
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    accepted = hashlib.sha1((key + _WEBSOCKET).encode(), usedforsecurity=False).digest()
    assert headers["sec-websocket-accept"] == base64.b64encode(accepted).decode()
    return headers["sec-websocket-protocol"]


@contextlib.contextmanager
def workers(ports: list[int]) -> Iterator[None]:
    """Have a worker on each port that answers a call with an echo, as those of an fsx node do."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            server = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_serve, args=[server], daemon=True).start()
        yield


def _serve(server: socket.socket) -> None:
    with contextlib.suppress(OSError, EOFError):
        while True:
            link, _ = server.accept()
            channel = Channel(link)
            channel.ask("connect")
            for application in ("answer", "echo"):
                channel.execute(application)
            channel.is_closed()
            channel.close()
