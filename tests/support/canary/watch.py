"""What runs on this machine while a region does: arguments and environments, read all the time."""

import contextlib
import threading
from pathlib import Path

from tests.support.canary.values import Canaries


class Programs:
    """Collects which canary was seen in which program's arguments or environment."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._told: dict[str, set[str]] = {"argv": set(), "environ": set()}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rounds = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def take(self, kind: str) -> set[str]:
        """Return what was seen since the last time."""
        found, self._told[kind] = self._told[kind], set()
        return found

    def _watch(self) -> None:
        seen: dict[str, tuple[bytes, bytes]] = {}
        while not self._ending.wait(0.005):
            alive = {}
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    both = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
                    alive[process.name] = both
                    if seen.get(process.name) != both:
                        self._look(process.name, *both)
            seen = alive
            self.rounds += 1

    def _look(self, pid: str, argv: bytes, environ: bytes) -> None:
        program = argv.split(b"\0")[0].decode(errors="replace")
        for kind, data in (("argv", argv), ("environ", environ)):
            for canary in self._canaries.found(data):
                self._told[kind].add(f"{program} of pid {pid}: {canary}")
