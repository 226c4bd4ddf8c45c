"""Service manager of the functional tests: one daemon, no systemd."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

__virtualname__ = "service"


def __virtual__():  # noqa: N807
    return __virtualname__


def _log(verb):
    with (Path(__opts__["root_dir"]) / "service.log").open("a") as log:
        log.write(f"{verb}\n")


def _pid():
    try:
        pid = int(Path(__opts__["test.pidfile"]).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _socket(name, opened):
    """A socket unit, which is a file here."""
    _log(f"{'start' if opened else 'stop'}-{name}")
    path = Path(__opts__["root_dir"]) / name
    path.touch() if opened else path.unlink(missing_ok=True)
    return True


def status(name):
    if name.endswith(".socket"):
        return (Path(__opts__["root_dir"]) / name).exists()
    return _pid() is not None


def start(name):
    if name.endswith(".socket"):
        return _socket(name, opened=True)
    _log("start")
    root = Path(__opts__["root_dir"])
    if (root / "unstartable").exists():
        return False
    with (root / "daemon.out").open("ab") as out:
        subprocess.Popen(__opts__["test.daemon"], stdout=out, stderr=out, start_new_session=True)
    return True


def stop(name):
    if name.endswith(".socket"):
        return _socket(name, opened=False)
    _log("stop")
    pid = _pid()
    if pid is None:
        return True
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):  # one that is not ours needs no reaping
            os.waitpid(pid, os.WNOHANG)
        if _pid() is None:
            return True
        time.sleep(0.05)
    return False


def reload(name):
    _log("reload")
    pid = _pid()
    if pid is None or (Path(__opts__["root_dir"]) / "unreloadable").exists():
        return False
    os.kill(pid, signal.SIGHUP)
    return True


def restart(name):
    return stop(name) and start(name)


def enabled(name):
    return not (Path(__opts__["root_dir"]) / "disabled").exists()


def enable(name):
    (Path(__opts__["root_dir"]) / "disabled").unlink(missing_ok=True)
    return True


def unmask(name, runtime=False):
    return True


def mask(name, runtime=False):
    return True


def systemctl_reload():
    _log("daemon-reload")
    return True
