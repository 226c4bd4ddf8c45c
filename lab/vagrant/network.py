"""A bridge `lxcbr0` in a namespace of its own, and the way into it.

The bridge is 10.77.0.254: 10.77.0.1, where the lab's hub is, belongs to the Vagrant master, which
serves the voice packages itself. Debian's packages come through the lab's caching proxy.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lab import network
from lab.names import CACHE, MIRROR_PORT, PREFIX_LENGTH, REPOSITORY, LabError, Names
from lab.shell import run
from lab.vagrant.box import GATEWAY

BRIDGE = "lxcbr0"
_START_SECONDS = 10.0
_END_SECONDS = 10.0
# LXC looks for its bridge in /sys, which shows the namespace it was mounted in: mount it again, and
# keep the control groups that hang below the old one. `ip netns exec` would lose them.
_ENTER = """
cgroups=$1; shift
mount --rbind /sys/fs/cgroup "$cgroups"
umount --lazy /sys
mount -t sysfs sysfs /sys
mount --rbind "$cgroups" /sys/fs/cgroup
umount --lazy "$cgroups"
exec "$@"
"""


def create(names: Names) -> None:
    """Make the namespace with the bridge in it."""
    run(["ip", "netns", "add", names.hub])
    batch = [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"addr add {GATEWAY}/{PREFIX_LENGTH} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    run(["ip", "-netns", names.hub, "-batch", "-"], stdin="\n".join(batch) + "\n")


def inside(names: Names, *words: str) -> list[str]:
    """The command line that runs `words` in the namespace, with the /sys that belongs to it."""
    cgroups = names.directory / "cgroups"
    cgroups.mkdir(exist_ok=True)
    return [
        "nsenter", f"--net={network.NAMESPACES / names.hub}",
        "unshare", "--mount", "--propagation=private",
        "sh", "-ec", _ENTER, "sh", str(cgroups), *words,
    ]  # fmt: skip


def start_proxy(names: Names) -> None:
    """Start the caching package proxy on the bridge; LabError when it does not listen in time.

    lab.mirror.stop ends it: it listens in the namespace but lives outside.
    """
    log = names.directory / "proxy.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["ip", "netns", "exec", names.hub, sys.executable, "-m", "lab.vagrant.network",
             f"/proc/{os.getpid()}/ns/net", str(CACHE / "mirror")],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=REPOSITORY,
            start_new_session=True,
        )  # fmt: skip
    (names.directory / "mirror.pid").write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _START_SECONDS
    while "ready" not in log.read_text(errors="replace").splitlines():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise LabError(f"the package proxy did not start: see {log}")
        time.sleep(0.05)


def remove(names: Names) -> None:
    """End what runs in the namespace and remove it; LabError if something will not end."""
    deadline = time.monotonic() + _END_SECONDS
    while network.exists(names.hub):
        pids = run(["ip", "netns", "pids", names.hub], check=False).stdout.split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if not pids:
            network.remove(names.hub)
        elif time.monotonic() > deadline:
            raise LabError(f"{names.hub}: processes {', '.join(pids)} do not end")
        else:
            time.sleep(0.05)


def _listen(home_namespace: str, cache: str) -> None:
    """Open the socket on the bridge, then serve it from the machine's own network."""
    listening = socket.create_server((GATEWAY, MIRROR_PORT), backlog=64)
    listening.set_inheritable(True)
    os.execvp(
        "nsenter",
        ["nsenter", f"--net={home_namespace}", sys.executable, "-m", "lab.mirror", "serve",
         str(listening.fileno()), cache, str(Path(cache) / "none")],
    )  # fmt: skip


if __name__ == "__main__":
    _listen(*sys.argv[1:])
