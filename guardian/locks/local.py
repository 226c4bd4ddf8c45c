"""One deployer a directory: flock, which the kernel frees however the holder dies."""

import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guardian.errors import LOCKED, GuardianError


@contextmanager
def held(directory: Path, workspace: str, what: str, remedy: str = "") -> Iterator[None]:
    """Hold the directory while the block runs; GuardianError (exit 21) names who holds it.

    ``remedy`` says what to do when it is held, where it is no workspace.
    """
    shown = f"`guardian status {workspace}` shows it, `guardian stop {workspace}` ends it"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _take(handle):
            raise GuardianError(
                f"{workspace} is locked by {_holder(handle)}; " + (remedy or shown),
                LOCKED,
            )
        owner = {
            "what": what,
            "pid": os.getpid(),
            "by": who(),
            "since": time.strftime("%H:%M:%SZ", time.gmtime()),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
        # Emptied, never unlinked: a waiter could hold the old inode while another takes the new.
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    # `holder` takes the lock for an instant to see whether it is free; that must not lose a deploy.
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def next_fence(directory: Path) -> int:
    """A number that grows with every life of its lock; whoever holds it counts alone."""
    path = directory / "fence"
    try:
        last = int(path.read_bytes())
    except (OSError, ValueError):
        last = 0
    temporary = path.with_suffix(".new")
    temporary.write_text(str(last + 1), encoding="ascii")
    temporary.replace(path)
    return last + 1


def holder(directory: Path) -> str | None:
    """Who holds the directory now, in words, or None."""
    try:
        handle = os.open(directory / "lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle)
    finally:
        os.close(handle)
    return None


def who() -> str:
    """user@host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _holder(handle: int) -> str:
    # The winner may not have written yet; it does so at once, so a short wait is enough.
    for _ in range(50):
        try:
            owner = json.loads(os.pread(handle, 4096, 0))
            return "{by} since {since} ({what}, pid {pid})".format(**owner)
        except (ValueError, KeyError):
            time.sleep(0.01)
    return "a process that has not said who it is"
