"""Runs of a workspace: a directory each, named so that names sort by time."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardian import journal
from guardian.errors import HALTED, INTERRUPTED, GuardianError
from guardian.journal import Entry


@dataclass(frozen=True)
class Run:
    """One run's directory and the whole lines of its journal."""

    name: str
    path: Path
    entries: list[Entry]

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def end(self) -> Entry | None:
        """Its last `end`, unless it was resumed after that."""
        last = self.entries[-1] if self.entries else None
        return last if last and last["type"] == "end" else None

    @property
    def finished(self) -> bool:
        return self.end is not None and self.end["code"] not in (HALTED, INTERRUPTED)

    def first(self, kind: str) -> Entry | None:
        return next((entry for entry in self.entries if entry["type"] == kind), None)


def create(directory: Path, clock: Callable[[], float] = time.time) -> Path:
    """A new run's directory."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock()))
    for number in range(100):
        path = directory / (stamp if not number else f"{stamp}-{number:02d}")
        try:
            path.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise GuardianError(f"{path}: {error.strerror}; nothing was started") from None
        return path
    raise GuardianError(f"{directory}: a hundred runs in one second; nothing was started")


def every(directory: Path) -> list[Run]:
    """All runs, oldest first; one that cannot be read is refused where it is used."""
    return list(newest_first(directory))[::-1]


def newest_first(directory: Path) -> Iterator[Run]:
    """All runs from the newest back, each read when it is its turn."""
    for path in sorted((one.parent for one in directory.glob("*/journal.jsonl")), reverse=True):
        yield Run(path.name, path, journal.read(path / "journal.jsonl"))


def latest(directory: Path) -> Run | None:
    """The newest run that has written at least one whole line."""
    return next((run for run in newest_first(directory) if run.entries), None)


def request_stop(path: Path, by: str) -> None:
    """Ask the deploy that writes in this directory to stop."""
    temporary = path / f".stop.{os.getpid()}"
    temporary.write_text(json.dumps({"by": by}), encoding="utf-8")
    temporary.replace(path / "stop")


def stop_requested(path: Path) -> str | None:
    """Why a deploy was asked to stop, or None."""
    try:
        asked: dict[str, Any] = json.loads((path / "stop").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        asked = {}
    return f"stopped by {asked.get('by', 'somebody')}"
