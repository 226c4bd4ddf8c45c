"""What the running FreeSWITCH was last told: the tree it loaded, and which start of it that was.

A file on disk says what should run. Only this record, tied to the daemon's `core_uuid`, says what
does, so an action that a crash left undone shows up as a difference in the next run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def read(path: str, core_uuid: str) -> dict | None:
    """Return ``{"files": {path: bytes}, "system": {path: sha256}}``, None if of another start."""
    try:
        found = json.loads(Path(path).read_bytes())
        if found["core_uuid"] != core_uuid:
            return None
        return {
            "files": {name: text.encode() for name, text in found["files"].items()},
            "system": dict(found["system"]),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def encode(core_uuid: str, files: dict[str, bytes], system: dict[str, str]) -> bytes:
    """Return the record as bytes to be written 0600: the tree holds secrets."""
    texts = {name: content.decode("utf-8", "replace") for name, content in files.items()}
    note = {"core_uuid": core_uuid, "files": texts, "system": system}
    return json.dumps(note, sort_keys=True).encode()


def untouched_since(started: float, paths: list[str]) -> bool:
    """Tell whether nothing at or below ``paths`` changed after ``started`` (seconds, epoch)."""
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
