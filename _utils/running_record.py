"""What a running daemon was last told: the tree it loaded, and which start of it that was.

A file on disk says what should run. Only this record, tied to one life of the daemon, says what
does, so an action that a crash left undone shows up as a difference in the next run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

# What a file of another shape raises, up to numbers too large and lists nested too deep.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
              RecursionError)  # fmt: skip


def read(path: str, life: str) -> dict | None:
    """Return ``{"files": {path: bytes}, "system": {path: sha256}, "reloads": int}``.

    ``life`` names this start of the daemon; a record of another one, or one that cannot be read,
    is None.
    """
    try:
        found = json.loads(Path(path).read_bytes())
        if found["life"] != life:
            return None
        return {
            "files": {name: text.encode() for name, text in found["files"].items()},
            "system": dict(found["system"]),
            "reloads": int(found["reloads"]),
        }
    except UNREADABLE:
        return None


def encode(life: str, files: dict[str, bytes], system: dict[str, str], reloads: int = 0) -> bytes:
    """Return the record as bytes to be written 0600: the tree holds secrets.

    ``reloads`` counts what may only be done so often in one life.
    """
    texts = {name: content.decode("utf-8", "replace") for name, content in files.items()}
    note = {"life": life, "files": texts, "system": system, "reloads": reloads}
    return json.dumps(note, sort_keys=True).encode()


def untouched_since(started: float, paths: list[str]) -> bool:
    """Tell whether nothing at or below ``paths`` changed after ``started`` (seconds, epoch).

    A daemon that started later than every file changed has read what is on disk.
    """
    for path in paths:
        for name in [path, *_below(path)]:
            try:
                if os.lstat(name).st_ctime >= started:
                    return False
            except OSError:
                continue
    return True


def _below(path: str) -> list[str]:
    return [
        str(Path(directory) / name)
        for directory, subdirectories, names in os.walk(path)
        for name in [*subdirectories, *names]
    ]
