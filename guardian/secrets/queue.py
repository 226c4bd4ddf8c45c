"""What processes wait for at this moment, so that whoever asks AWS asks for all of them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from guardian.secrets import place
from guardian.secrets.wants import Want


class Ticket:
    """A process's wants, readable by who has the turn; it is gone once they are answered."""

    def __init__(self, directory: Path, wants: Sequence[Want]) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._file = directory / f"{os.getpid()}-{time.monotonic_ns()}"
        place.write(self._file, json.dumps([[one.name, one.prefix] for one in wants]).encode())

    def answered(self) -> bool:
        """Return whether somebody has answered it."""
        return not self._file.exists()

    def close(self) -> None:
        """Withdraw it."""
        self._file.unlink(missing_ok=True)


def waiting(directory: Path) -> Iterator[tuple[Path, list[Want]]]:
    """Yield every ticket and what it wants."""
    for file in sorted(directory.iterdir()):
        if file.name.startswith("."):
            continue
        with contextlib.suppress(FileNotFoundError):
            rows = json.loads(file.read_bytes())
            wants = []
            for name, prefix in rows:
                one = Want.named(name)
                wants.append(Want(one.source, one.region, one.assume, prefix))
            yield file, wants
