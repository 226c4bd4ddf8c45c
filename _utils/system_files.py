"""Files outside a daemon's tree that only its start reads: unit drop-ins, defaults.

An entry is ``{"path", "content": bytes, "mode", …}``; ``root`` stands before every path, empty on
a real node.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def read(root: str, path: str) -> bytes | None:
    """Return a file's content, None if it cannot be read."""
    try:
        return Path(root + path).read_bytes()
    except OSError:
        return None


def digests(root: str, paths: list[str]) -> dict[str, str]:
    """Return path -> SHA-256 of those that are there."""
    contents = {path: read(root, path) for path in paths}
    return {path: sha256(content) for path, content in contents.items() if content is not None}


def differing(root: str, entries: list[dict]) -> list[dict]:
    """Return the entries whose content or mode is not what is on disk."""
    return [entry for entry in entries if _now(root, entry["path"]) != _wanted(entry)]


def snapshot(root: str, entries: list[dict]) -> dict[str, dict | None]:
    """Return path -> the entry that puts the present file back, None where there is no file."""
    return {entry["path"]: _now(root, entry["path"]) for entry in entries}


def sha256(content: bytes) -> str:
    """Return the digest under which a content is remembered."""
    return hashlib.sha256(content).hexdigest()


def _now(root: str, path: str) -> dict | None:
    content = read(root, path)
    if content is None:
        return None
    mode = Path(root + path).stat().st_mode & 0o777
    return {"path": path, "content": content, "mode": mode}


def _wanted(entry: dict) -> dict:
    return {key: entry[key] for key in ("path", "content", "mode")}
