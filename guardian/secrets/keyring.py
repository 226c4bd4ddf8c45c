"""The key that seals the cache: in the kernel's keyring, where no file and no swap has it.

Where the kernel refuses a keyring (a container whose filter has no keyctl), a file beside the
cache must do: on tmpfs, 0600, which leaves a copy of the directory readable to who takes it all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
from pathlib import Path

LENGTH = 32
_USER_KEYRING = -4
_SET_PERMISSIONS, _SEARCH, _READ = 5, 10, 11
# Whoever holds it: all; the same user: see, read, find. A service's own session keyring does not
# hold the user's, so without the second part a worker could not read what another stored.
_PERMISSIONS = 0x3F0B0000
_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl


def load(directory: Path, label: str) -> bytes:
    """Return the key of a cache directory, made by whoever comes first.

    Callers hold the directory's lock: two that made one each would not read each other's.
    """
    file = directory / "key"
    with contextlib.suppress(FileNotFoundError):
        content = file.read_bytes()
        if len(content) == LENGTH:
            return content
    return _from_kernel(f"guardian:{label}") or _from_file(file)


def _from_kernel(description: str) -> bytes | None:
    numbers = _CALLS.get(os.uname().machine)
    if numbers is None:
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    add_key, keyctl = numbers
    name = description.encode()
    found = call(keyctl, _SEARCH, _USER_KEYRING, b"user", name, 0)
    if found < 0:
        found = call(add_key, b"user", name, secrets.token_bytes(LENGTH), LENGTH, _USER_KEYRING)
        if found < 0 or call(keyctl, _SET_PERMISSIONS, found, _PERMISSIONS) < 0:
            return None
    buffer = ctypes.create_string_buffer(LENGTH)
    if call(keyctl, _READ, found, buffer, LENGTH) != LENGTH:
        return None
    return buffer.raw


def _from_file(file: Path) -> bytes:
    key = secrets.token_bytes(LENGTH)
    temporary = file.with_name(f".key-{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, key)
    finally:
        os.close(handle)
    temporary.replace(file)
    return key
