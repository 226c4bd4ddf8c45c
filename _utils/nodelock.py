"""One lock a node: whoever changes a daemon or its configuration holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from salt.exceptions import CommandExecutionError

PATH = "/var/lib/voice/lock"
POLL = 0.05


class NodeBusyError(CommandExecutionError):
    """Somebody else holds the lock and did not let go within the deadline."""


@contextlib.contextmanager
def hold(who: str, timeout: float = 60.0, path: str = PATH, needed: bool = True) -> Iterator[None]:
    """Hold the node's lock as ``who`` for the length of a ``with`` block.

    A thread that already holds it passes straight through, so a state may hold the lock around
    module functions that take it themselves. ``timeout`` is in seconds; whoever only predicts
    says that it is not ``needed``.

    Raises ``NodeBusyError`` naming the holder, or ``CommandExecutionError`` naming the file if
    the lock cannot be opened.
    """
    if not needed:
        yield
        return
    held = _registry()
    me = (os.getpid(), threading.get_ident(), path)
    if me in held:
        held[me] += 1
        try:
            yield
        finally:
            held[me] -= 1
        return

    descriptor = _acquire(who, timeout, path)
    held[me] = 1
    try:
        yield
    finally:
        del held[me]
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def holder(path: str = PATH) -> dict | None:
    """Return ``{"who", "pid", "since"}`` of the present holder, or None; never waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _registry() -> dict:
    """Return the process-wide count of holds.

    Salt executes this file once for each loader, so a module global would forget what the
    process already holds and a state would wait for itself.
    """
    return sys.__dict__.setdefault("_voice_node_locks", {})


def _acquire(who: str, timeout: float, path: str) -> int:
    try:
        Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as err:
        raise CommandExecutionError(f"{path}: {err.strerror}; run as root") from None
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                other = _read_holder(descriptor)
                os.close(descriptor)
                raise NodeBusyError(
                    f"{path}: held by {other['who']} (pid {other['pid']}) since "
                    f"{other['since']}; waited {timeout:g} s, try again when it is done"
                ) from None
            time.sleep(POLL)
    note = {
        "who": who,
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with contextlib.suppress(OSError):  # the note is for people; a full disk must not stop us
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)
    return descriptor


def _read_holder(descriptor: int) -> dict:
    note = {"who": "somebody", "pid": "?", "since": "?"}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        if isinstance(found, dict):
            note.update({key: found[key] for key in note if key in found})
    return note
