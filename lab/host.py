"""One disposable Debian host: systemd as PID 1 in systemd-nspawn on an overlay of the base root."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import cgroup, network
from lab.names import LabError, Names
from lab.shell import run

_BOOT_SECONDS = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The kernel keeps these for itself; a host gets a file of its own to write instead, so that
# sysctl states can be applied and read back. It proves the state, not the kernel.
_EMULATED_SYSCTL = (
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/rmem_default",
    "net/core/wmem_default",
    "net/core/netdev_max_backlog",
    "net/core/somaxconn",
    "vm/swappiness",
    "vm/overcommit_memory",
    "kernel/sched_rt_runtime_us",
    "kernel/core_pattern",
    "kernel/panic",
)
_EMULATE = """
mkdir -p /run/fakesys
for key in "$@"; do
    [ -e "/proc/sys/$key" ] || continue
    copy="/run/fakesys/$(echo "$key" | tr / .)"
    cat "/proc/sys/$key" > "$copy" && mount --bind "$copy" "/proc/sys/$key"
done
"""
_ENTER_GROUP = (
    'for group in $GROUPS_OF_HOST; do mkdir -p "$group"; echo $BASHPID > "$group/cgroup.procs";'
    " done; unset GROUPS_OF_HOST; "
    'exec "$@"'
)


@dataclass
class Host:
    """A host of a lab; `prepare`, write into `root`, `boot`, `run`, `kill`."""

    names: Names
    name: str
    address: str
    binds: dict[str, Path] = field(default_factory=dict)  # path inside -> path outside, read-only

    @property
    def directory(self) -> Path:
        return self.names.directory / "hosts" / self.name

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def machine(self) -> str:
        return self.names.thing(self.name)

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    def prepare(self, base: Path) -> None:
        """Lay a writable overlay over the base root and wire the host to the hub."""
        for part in ("root", "upper", "work"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(self.root):
            layers = (
                f"lowerdir={base},upperdir={self.directory}/upper,workdir={self.directory}/work"
            )
            run(["mount", "-t", "overlay", self.machine, "-o", layers, self.root])
        network.connect(self.names, self.name, self.address)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")

    def boot(self) -> None:
        """Start PID 1 and return when it takes commands; LabError with the console's last lines."""
        if self.init_pid() is not None:
            return
        groups = " ".join(str(h / self.machine) for h in cgroup.hierarchies())
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot",
            f"--directory={self.root}", f"--machine={self.machine}", f"--hostname={self.name}",
            f"--network-namespace-path={network.NAMESPACES / self.machine}",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--capability=CAP_NET_ADMIN", "--console=pipe",
            *(f"--bind-ro={outside}:{inside}" for inside, outside in self.binds.items()),
        ]  # fmt: skip
        environment = {
            "PATH": _PATH,
            "GROUPS_OF_HOST": groups,
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        }
        with self.console.open("wb") as console:
            nspawn = subprocess.Popen(
                ["bash", "-c", _ENTER_GROUP, "nspawn", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        (self.directory / "nspawn.pid").write_text(f"{nspawn.pid}\n")
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._answers():
            if nspawn.poll() is not None or time.monotonic() > deadline:
                said = self.console.read_text(errors="replace").strip().splitlines()[-3:]
                raise LabError(
                    f"{self.name} did not boot: {' | '.join(said) or 'no console output'}"
                )
            time.sleep(0.05)
        self.run(["sh", "-c", _EMULATE, "sh", *_EMULATED_SYSCTL])

    def _answers(self) -> bool:
        """Whether PID 1 has its bus; units may still be starting."""
        if self.init_pid() is None:
            return False
        asked = self.run(["systemctl", "is-system-running"], check=False)
        return asked.stdout.strip() in {"running", "degraded", "starting"}

    def init_pid(self) -> int | None:
        """The host's PID 1 as the machine sees it, None when the host is down."""
        try:
            nspawn = int((self.directory / "nspawn.pid").read_text())
            command = Path(f"/proc/{nspawn}/cmdline").read_bytes()
            if self.machine.encode() not in command:
                return None  # the number was given to another process since
            children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        except (OSError, ValueError):
            return None
        for child in children:
            try:
                if _namespace(child) != _namespace("self"):
                    return int(child)
            except OSError:
                continue
        return None

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The command line that runs `words` inside the host from outside."""
        init = self.init_pid()
        if init is None:
            raise LabError(f"{self.name} is not running: `guardian lab up` starts it")
        terminal_type = [f"TERM={os.environ.get('TERM', 'dumb')}"] if terminal else []
        return [
            "nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--",
            "env", "-i", f"PATH={Path(sys.prefix) / 'bin'}:{_PATH}", "HOME=/root", "LANG=C.UTF-8",
            *terminal_type, *words,
        ]  # fmt: skip

    def run(
        self,
        words: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host; LabError when it fails and `check` is set."""
        return run(self.command(words), check=check, stdin=stdin, timeout=timeout)

    def kill(self) -> None:
        """End every process of the host at once, as a power cut would."""
        cgroup.kill(self.machine)
        self._reap()

    def _reap(self) -> None:
        """Collect the nspawn process when it is a child of this very process."""
        try:
            nspawn = int((self.directory / "nspawn.pid").read_text())
            os.waitpid(nspawn, os.WNOHANG)
        except (OSError, ValueError):
            pass

    def power_off(self) -> None:
        """Shut the host down in good order, so that units see SIGTERM."""
        init = self.init_pid()
        if init is None:
            return
        os.kill(init, signal.SIGRTMIN + 4)  # systemd: poweroff.target
        deadline = time.monotonic() + _BOOT_SECONDS
        while self.init_pid() is not None and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.05)
        self.kill()

    def remove(self) -> None:
        """Kill the host and remove its overlay, namespace and group."""
        self.kill()
        if os.path.ismount(self.root):
            run(["umount", "--lazy", self.root])
        network.remove(self.machine)
        shutil.rmtree(self.directory, ignore_errors=True)


def _namespace(pid: str) -> Path:
    return Path(f"/proc/{pid}/ns/pid").readlink()
