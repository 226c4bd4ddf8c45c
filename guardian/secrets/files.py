"""A secret in a file of the master."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from guardian.secrets.failures import NOT_FOUND, UNFIT, SecretError
from guardian.secrets.wants import Answer

_LIMIT = 64 * 1024


def read(path: str, granted: Callable[[str], object]) -> Answer:
    """Return a file's text, or the SecretError that says why not.

    ``granted`` raises when a path is not this node's to have. It is asked for where the path really
    leads, so that a symbolic link gives away nothing that is not granted as well.
    """
    try:
        return _read(path, granted)
    except SecretError as problem:
        return problem


def _read(path: str, granted: Callable[[str], object]) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise SecretError(NOT_FOUND, "not found on the master") from None
    except OSError as problem:
        raise SecretError(UNFIT, f"cannot be read: {os.strerror(problem.errno or 0)}") from None
    try:
        # What was opened is asked, not what the path leads to by now.
        real = str(Path(f"/proc/self/fd/{handle}").readlink())
        if real != path:
            granted(real)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(UNFIT, "is no plain file")
        content = os.read(handle, _LIMIT + 1)
    finally:
        os.close(handle)
    if len(content) > _LIMIT:
        raise SecretError(UNFIT, f"is longer than {_LIMIT} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SecretError(UNFIT, "is binary") from None
