"""A guardian that is killed with SIGKILL at a line of its journal, in a process of its own."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

MODES = ("before", "torn", "after")
STARTED = ("guardian.cli", "guardian.deploy", "guardian.fleet.master", "guardian.ui.progress")


class _Os:
    """The `os` that guardian.journal sees: it counts lines, and one of them is the last."""

    def __init__(self, line: int, mode: str) -> None:
        self._left, self._mode = line, mode

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, handle: int, data: bytes) -> int:
        self._left -= 1
        if self._left or self._mode == "after":
            return os.write(handle, data)
        if self._mode == "torn":
            os.write(handle, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    def fdatasync(self, handle: int) -> None:
        os.fdatasync(handle)
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: list[str], log: Path, kill: tuple[int, str] | None = None) -> int:
    """Run `guardian ARGUMENTS` in a new process; its exit code, or -9 when it was killed.

    The process is forked from this one, which has guardian's modules already: starting an
    interpreter hundreds of times would take longer than what is tested.
    """
    for name in STARTED:
        __import__(name)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for handle in (1, 2):
            os.dup2(output, handle)
        if kill is not None:
            from guardian import journal

            journal.os = _Os(*kill)  # type: ignore[assignment]
        from guardian.cli import main

        main(arguments, prog_name="guardian")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
