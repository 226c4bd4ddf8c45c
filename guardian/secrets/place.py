"""The directory of the cache: in memory, ours alone, or refused."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from guardian.secrets.failures import BUSY, SecretError

IN_MEMORY = ("tmpfs", "ramfs")
_POLL = (0.002, 0.02)
_checked: dict[tuple[str, int, int], None] = {}


def prepare(directory: Path) -> tuple[int, int]:
    """Make the cache directory, or check the one there is; return what identifies it.

    Raises ValueError with a remedy when it is on a disk, or somebody else can reach into it.
    """
    status = _status(directory)
    seen = (str(directory), status.st_dev, status.st_ino)
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{directory}: is no directory; name another as cache of aws_secrets")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(
            f"{directory}: must be of user {os.geteuid()} with mode 0700, is of"
            f" {status.st_uid} with {stat.S_IMODE(status.st_mode):04o}; remove it"
        )
    if seen not in _checked:
        kind = file_system(status.st_dev)
        if kind not in IN_MEMORY:
            raise ValueError(
                f"{directory}: lies on {kind or 'a file system unknown'}, secrets are cached in"
                " memory only; name a directory on tmpfs, such as /run/guardian/secrets"
            )
        for part in ("items", "forgotten", "users", "wanted"):
            (directory / part).mkdir(mode=0o700, exist_ok=True)
        _checked[seen] = None
    return status.st_dev, status.st_ino


def file_system(device: int) -> str:
    """Return the type of the file system with this device number, empty when it is not mounted."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0]
    return ""


def write(file: Path, content: bytes) -> None:
    """Put a whole file in place, so that a reader sees it or the one before."""
    temporary = file.with_name(f".{file.name}-{os.getpid()}-{time.monotonic_ns()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(
    file: Path, deadline: float, served: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold a lock that the kernel frees however its holder dies; False once ``served`` is true.

    Raises SecretError (busy) when neither came before ``deadline`` (of the monotonic clock).
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    pause = _POLL[0]
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if served():
                    yield False
                    return
                if time.monotonic() >= deadline:
                    raise SecretError(BUSY, "no answer in time: others wait for AWS") from None
                time.sleep(pause)
                pause = min(pause * 1.5, _POLL[1])
            else:
                yield True
                return
    finally:
        os.close(handle)


def _status(directory: Path) -> os.stat_result:
    try:
        with contextlib.suppress(FileNotFoundError):
            return directory.lstat()
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        return directory.lstat()
    except OSError as problem:
        raise ValueError(f"{directory}: {os.strerror(problem.errno or 0)}") from None
