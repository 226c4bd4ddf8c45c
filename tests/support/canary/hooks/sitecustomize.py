"""What a Salt process starts and throws away, kept for who looks for secrets in it.

Python runs this in every process that has it on its path: the arguments and environment of each
program it starts are noted, and each file is copied just before it is removed.
"""

# Pathlib would be loaded by every process before its own modules are.
# ruff: noqa: PTH100, PTH115, PTH118, PTH123
import contextlib
import itertools
import json
import os
import sys

_KEEP = os.environ.get("CANARY_OBSERVED", "")
_NUMBERS = itertools.count()
_LARGEST = 4_000_000
_STARTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"}
_busy = False


def _note(kind, content):
    name = f"{_KEEP}/{kind}/{os.getpid()}-{next(_NUMBERS)}-{os.urandom(3).hex()}"
    with open(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)


def _started(arguments):
    told = [repr(one) if not isinstance(one, os._Environ) else "" for one in arguments]
    _note("started", json.dumps(told).encode())


def _removed(path, directory):
    if isinstance(directory, int) and directory >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fsdecode(path))
    path = os.path.abspath(os.fsdecode(path))
    if path.startswith(_KEEP):
        return
    about = os.lstat(path)
    if about.st_size == 0 or about.st_size > _LARGEST or (about.st_mode & 0o170000) != 0o100000:
        return
    with open(path, "rb") as file:
        content = file.read()
    head = {
        "path": path,
        "mode": oct(about.st_mode & 0o7777),
        "uid": about.st_uid,
        "gid": about.st_gid,
    }
    _note("removed", json.dumps(head).encode() + b"\n" + content)


def _hook(event, arguments):
    global _busy
    if event not in _STARTS and event not in ("os.remove", "os.rename"):
        return
    if _busy:
        return
    _busy = True
    try:
        with contextlib.suppress(OSError, ValueError, TypeError):
            if event == "os.remove":
                _removed(arguments[0], arguments[1])
            elif event == "os.rename":
                _removed(arguments[1], arguments[3])  # what is renamed over is gone as well
            else:
                _started(arguments)
    finally:
        _busy = False


if _KEEP:
    sys.addaudithook(_hook)
