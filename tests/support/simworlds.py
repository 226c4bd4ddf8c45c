"""The process that simulated regions live in: a unix socket, worlds by name, time made quick."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support import simserver
from tests.support.loading import REPOSITORY
from tests.support.simulator import MasterAwayError, World, region

SPEED = 100.0  # seconds of a world in one of ours


_FACTS = {"salt": "3008.3", "user": "root", "cache_free": 1 << 40, "release": "", "roots": []}


class _Living:
    """A world whose clock runs, and who listens to its bus."""

    def __init__(self, world: World) -> None:
        self.world, self._begun, self._origin = world, time.monotonic(), world.now
        self.listeners: dict[asyncio.StreamWriter, set[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return self._origin + (time.monotonic() - self._begun) * SPEED

    def catch_up(self) -> None:
        for event in self.world.advance(self.now()):
            line = json.dumps(event).encode() + b"\n"
            for writer, jids in self.listeners.items():
                if event["jid"] in jids and not writer.is_closing():
                    writer.write(line)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self.world.due()) is not None:
            wait = max(0.0, (due - self.now()) / SPEED)
            self._timer = asyncio.get_running_loop().call_later(wait, self.catch_up)

    def answer(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> Any:
        number, operation = request.pop("id"), request.pop("op")
        self.catch_up()
        try:
            result: Any = None
            if operation in ("publish", "lookup"):
                self.listeners[writer].add(request["jid"])
                result = getattr(self.world, operation)(**request)
            elif operation == "fleet":
                result = self.world.fleet()
            elif operation in ("minions", "truth"):
                result = getattr(self.world, operation)()
            elif operation == "facts":
                result = dict(_FACTS, time=time.time())
            elif operation == "attempt":  # the runner says that another attempt begins
                self.world.attempt += 1
            elif operation not in ("renew", "release"):
                raise ValueError(f"no operation {operation}")
            return {"id": number, "ok": True, "result": result}
        except (MasterAwayError, ValueError) as error:
            return {"id": number, "ok": False, "error": str(error)}
        finally:
            self.catch_up()


def serve(path: str) -> None:
    """Serve until the process is ended."""
    worlds: dict[str, _Living] = {}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = json.loads(await reader.readline())
        if "make" in hello:
            worlds[hello["world"]] = _Living(region(hello["make"]))
        living = worlds[hello["world"]]
        living.listeners[writer] = set()
        writer.write(b'{"event": "ready", "version": 1, "salt": "3008.3"}\n')
        with suppress(ConnectionError):
            while line := await reader.readline():
                answer = living.answer(writer, json.loads(line))
                writer.write(json.dumps(answer).encode() + b"\n")
        living.listeners.pop(writer, None)
        if hello.get("forget"):
            worlds.pop(hello["world"], None)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(talk, path, limit=1 << 24)
        print("ready", flush=True)
        await server.serve_forever()

    asyncio.run(run())


class Region:
    """A simulated region seen from the runner: what guardian.yaml needs, and the truth."""

    def __init__(self, path: Path, name: str, spec: dict[str, Any]) -> None:
        import socket

        self._path, self.name = path, name
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(str(path))
        self._file = self._link.makefile("rw")
        self._tell({"world": name, "make": spec, "forget": True})
        self._file.readline()

    def command(self) -> list[str]:
        """The prefix that makes guardian's agent this region's."""
        return [sys.executable, "-I", "-S", simserver.__file__, str(self._path), self.name]

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("truth")
        return found

    def next_attempt(self) -> None:
        self._ask("attempt")

    def close(self) -> None:
        self._file.close()
        self._link.close()

    def _ask(self, operation: str) -> Any:
        self._tell({"id": 1, "op": operation})
        return json.loads(self._file.readline())["result"]

    def _tell(self, message: dict[str, Any]) -> None:
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()


@contextmanager
def server(directory: Path) -> Iterator[Path]:
    """The process, for the time of a block; its socket."""
    path = directory / "worlds"
    command = [sys.executable, "-m", "tests.support.simserver", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield path
        finally:
            process.kill()
