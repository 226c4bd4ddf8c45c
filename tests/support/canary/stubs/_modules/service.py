"""Service manager of a host without systemd: voice daemons are real, all else is said to run."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

__virtualname__ = "service"
DAEMONS = {
    "freeswitch": "/usr/bin/freeswitch -nc -nf $DAEMON_OPTS",
    "opensips": "/usr/sbin/opensips -F -P /run/opensips/opensips.pid -f /etc/opensips/opensips.cfg"
    " -m $S_MEMORY -M $P_MEMORY",
}
PIDFILES = {
    "freeswitch": "/run/freeswitch/freeswitch.pid",
    "opensips": "/run/opensips/opensips.pid",
}


def __virtual__():  # noqa: N807
    return __virtualname__


def _pid(name):
    try:
        pid = int(Path(PIDFILES[name]).read_text())
        os.kill(pid, 0)
    except (KeyError, OSError, ValueError):
        return None
    return pid


def status(name, *_):
    return name not in DAEMONS or _pid(name) is not None


def start(name):
    if name not in DAEMONS or Path("/run/unstartable").exists():
        return name not in DAEMONS
    line = f". /etc/default/{name}; exec setpriv --reuid {name} --regid {name} --clear-groups"
    with Path(f"/var/log/{name}.console").open("ab") as out:
        subprocess.Popen(
            ["/bin/sh", "-c", f"umask 007; set -a; DAEMON_OPTS=; {line} {DAEMONS[name]}"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    return True


def stop(name):
    pid = _pid(name)
    if pid is None:
        return True
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):  # one that is not ours needs no reaping
            os.waitpid(pid, os.WNOHANG)
        if _pid(name) is None:
            return True
        time.sleep(0.05)
    return False


def restart(name):
    return stop(name) and start(name)


def reload(name):
    return True


def available(name):
    return True


def missing(name):
    return False


def enabled(name, **_):
    return True


def disabled(name, **_):
    return False


def enable(name, **_):
    return True


def mask(name, runtime=False):
    return True


def unmask(name, runtime=False):
    return True


def masked(name, runtime=False):
    return False


def show(name):
    return {"MainPID": str(_pid(name) or 0), "ActiveState": "active"}


def systemctl_reload():
    return True
