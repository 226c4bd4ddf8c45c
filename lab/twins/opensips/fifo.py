"""mi_fifo: the management interface over a pipe; the answer, however long, goes to another one."""

import asyncio
import contextlib
import os
from pathlib import Path

from mi import Management


class Pipe:
    """Reads `:<name of the reply pipe>:<request>` lines; the client makes the reply pipe."""

    def __init__(self, management: Management, path: Path, replies: Path) -> None:
        self._management, self._path, self._replies = management, path, replies
        self._transport: asyncio.ReadTransport | None = None

    async def open(self, mode: int) -> None:
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path)
        self._path.chmod(mode)
        # Open for writing, too: the end of one client's writing is then not the end of the pipe.
        end = os.fdopen(os.open(self._path, os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, end)
        self._task = loop.create_task(self._serve(reader))

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            name, _, request = line.decode(errors="replace").removeprefix(":").partition(":")
            if not name or "/" in name:
                continue
            answer = self._management.encoded(request.encode())
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_write, self._replies / name, answer)

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        self._path.unlink(missing_ok=True)


def _write(path: Path, answer: bytes) -> None:
    with path.open("wb", buffering=0) as pipe:
        pipe.write(answer)
