"""Service manager of the fsx tests: a supervisor a unit, which does what the unit file says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

__virtualname__ = "service"


def __virtual__():  # noqa: N807
    return __virtualname__


def _pid(name):
    try:
        pid = int((Path(__opts__["test.units"]) / f"{name}.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def start(name):
    units = Path(__opts__["test.units"])
    command = [sys.executable, __opts__["test.supervisor"], str(units), name]
    with (units / f"{name}.journal").open("ab") as journal:
        started = subprocess.Popen(command, stdout=journal, stderr=journal, start_new_session=True)
    (units / f"{name}.supervisor").write_text(str(started.pid))
    return True


def show(name):
    return {"MainPID": str(_pid(name))}


def reload(name):
    with (Path(__opts__["test.units"]) / "reloads").open("a") as file:
        file.write(f"{name}\n")
    os.kill(_pid(name), signal.SIGUSR1)
    return True
