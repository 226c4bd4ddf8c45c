"""The durable record of a run: JSON lines, on disk before anything is done, each chained to the
one before it by its SHA-256. What happened is the fold of its lines; values are never in it."""

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from guardian.errors import GuardianError

VERSION = 1
Entry = dict[str, Any]


def read(path: Path) -> list[Entry]:
    """The whole lines of a journal; a torn last line never happened.

    GuardianError when a line in the middle is damaged: such a record proves nothing.
    """
    return _scan(path)[0]


def _scan(path: Path) -> tuple[list[Entry], int, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise GuardianError(f"{path}: {error.strerror}") from None
    entries: list[Entry] = []
    previous, good = "", 0
    for number, line in enumerate(raw.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
        except ValueError:
            if good + len(line) == len(raw) and line.count(b'{"v":') < 2:
                break  # a power cut may leave the right length and the wrong bytes
            entry = None
        # A last line that parses but does not fit vouches against the one before it.
        if not _fits(entry, number, previous):
            raise GuardianError(
                f"{path}:{number}: damaged or of another version; the run cannot be resumed, "
                "`guardian plan` shows where the fleet stands"
            )
        previous, good = sha256(line).hexdigest(), good + len(line)
        entries.append(entry)
    return entries, good, previous


def _fits(entry: Any, number: int, previous: str) -> bool:
    if not isinstance(entry, dict):
        return False
    found = (entry.get("v"), entry.get("seq"), entry.get("prev"))
    return found == (VERSION, number, previous)


class Journal:
    """An open journal. `add` returns once the line is on disk."""

    def __init__(self, path: Path, run: str, clock: Callable[[], float]) -> None:
        self.path, self.run, self._clock = path, run, clock
        self._seq, self._previous, self._size = 0, "", 0
        self._adding = threading.Lock()
        self.entries: list[Entry] = []
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists():
            self.entries, self._size, self._previous = _scan(path)
            self._seq = len(self.entries)
            os.truncate(path, self._size)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        _sync_directory(path.parent)

    def add(self, kind: str, /, **fields: Any) -> Entry:
        """Append one entry and wait for the disk; GuardianError when the disk refuses it."""
        with self._adding:
            return self._add(kind, fields)

    def _add(self, kind: str, fields: Entry) -> Entry:
        entry = {
            "v": VERSION,
            "seq": self._seq + 1,
            "ts": round(self._clock(), 3),
            "prev": self._previous,
            "run": self.run,
            "type": kind,
            **fields,
        }
        line = json.dumps(entry, separators=(",", ":"), sort_keys=False).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            os.fdatasync(self._file)
        except OSError as error:
            self._unwrite()
            raise GuardianError(
                f"{self.path}: {error.strerror}; nothing more was started, make room and resume"
            ) from None
        if written != len(line):
            self._unwrite()
            raise GuardianError(f"{self.path}: disk full; nothing more was started, resume later")
        self._seq += 1
        self._size += len(line)
        self._previous = sha256(line).hexdigest()
        self.entries.append(entry)
        return entry

    def _unwrite(self) -> None:
        # A line behind half a one would damage the record: there may be room again for the next.
        with suppress(OSError):
            os.ftruncate(self._file, self._size)

    def close(self) -> None:
        os.close(self._file)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
