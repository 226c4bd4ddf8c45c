"""`vagrant up` to `vagrant destroy` with LXC: timed, tested, and gone without trace."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from lab import cgroup, mirror
from lab.names import REPOSITORY, LabError, Names, fleet
from lab.progress import say
from lab.shell import run as run_command
from lab.vagrant import network
from lab.vagrant.box import box

_TOOLS = {
    "vagrant": "vagrant",
    "lxc-start": "lxc",
    "sudo": "sudo",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "mmdebstrap": "mmdebstrap",
}
_GEMS = Path("/usr/share/rubygems-integration/all/specifications")
_UP_SECONDS = 900
_KILL_SECONDS = 10.0
_TEST_SECONDS = 300
_LXC = Path("/var/lib/lxc")
_BOX_NAME = "guardian-lxc"
_TELLING_LINES = 15


class Trial:
    """The machines of the Vagrantfile in LXC containers named `gl-<lab>-…`."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.environment = {
            **os.environ,
            "VAGRANT_HOME": str(names.directory / "home"),
            "VAGRANT_DOTFILE_PATH": str(names.directory / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            "TMPDIR": str(names.directory / "tmp"),  # Vagrant leaves its uploads behind
            "GUARDIAN_LAB": names.lab,
            "GUARDIAN_BOX": _BOX_NAME,
            "GUARDIAN_NETWORK": network.BRIDGE,
        }
        # Nothing of the machine's own way out holds in the namespace.
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            self.environment.pop(name, None)

    def prepare(self) -> None:
        """Make the namespace, its proxy, and a VAGRANT_HOME that knows the box."""
        (self.names.directory / "tmp").mkdir(parents=True, exist_ok=True)
        network.create(self.names)
        network.start_proxy(self.names)
        self.vagrant("box", "add", "--name", _BOX_NAME, "--provider", "lxc", str(box()))

    def vagrant(self, *words: str, seconds: float = _UP_SECONDS) -> str:
        """Run Vagrant in the namespace and return what it printed, which is also kept in a log.

        LabError with its last lines when it fails.
        """
        return self.inside("vagrant", *words, seconds=seconds)

    def inside(self, *words: str, seconds: float, check: bool = True) -> str:
        log = self.names.directory / "vagrant.log"
        with log.open("a+") as out:
            at = out.tell()
            out.flush()
            command = network.inside(self.names, *words)
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    env=self.environment, cwd=REPOSITORY, timeout=seconds,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise LabError(f"{' '.join(words[:3])} did not end within {seconds} s") from None
            out.seek(at)
            said = out.read()
        if check and done.returncode:
            last = [line for line in said.splitlines() if line.strip()][-_TELLING_LINES:]
            raise LabError(f"{' '.join(words[:3])} failed:\n  " + "\n  ".join(last))
        return said

    def test(self, machines: list[str]) -> dict[str, int]:
        """Run the role specifications over ssh: {"tests", "failed", "skipped"}."""
        config = self.names.directory / "ssh_config"
        config.write_text(self.vagrant("ssh-config", *machines, seconds=60))
        report = self.names.directory / "testinfra.xml"
        hosts = ",".join(f"ssh://{name}" for name in machines)
        said = self.inside(
            sys.executable, "-m", "pytest", "tests/testinfra", "-q", "-p", "no:cacheprovider",
            f"--hosts={hosts}", f"--ssh-config={config}", "--sudo", f"--junit-xml={report}",
            seconds=_TEST_SECONDS, check=False,
        )  # fmt: skip
        if not report.exists():
            raise LabError(f"testinfra did not run: {said.strip().splitlines()[-1:]}")
        counts = counted(report)
        if counts["failed"]:
            print(said, file=sys.stderr)
        return counts

    def remove(self) -> None:
        """Remove every container, mount, process and file this trial made, in whatever state."""
        for container in self.containers():
            # LXC's own way to stop needs its socket, which is in the namespace that may be gone.
            for kind in ("payload", "monitor"):
                _kill(f"lxc.{kind}.{container}")
            run_command(["lxc-destroy", "--force", "--name", container], check=False)
            shutil.rmtree(_LXC / container, ignore_errors=True)
        network.remove(self.names)
        mirror.stop(self.names)
        # LXC makes a group in every v1 hierarchy too.
        for hierarchy in Path("/sys/fs/cgroup").glob("*"):
            for group in hierarchy.glob(f"lxc.*.{self.names.thing('')}*"):
                _remove(group)
        shutil.rmtree(self.names.directory, ignore_errors=True)

    def containers(self) -> list[str]:
        return sorted(path.name for path in _LXC.glob(f"{self.names.thing('')}*"))


def _kill(group: str) -> None:
    """End a control group's processes; groups below it come and go while a host shuts down."""
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        try:
            return cgroup.kill(group)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise LabError(f"control group {group} does not end") from None


def _remove(group: Path) -> None:
    """Remove an empty control group with all below it."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def counted(report: Path) -> dict[str, int]:
    """What pytest's JUnit report says: {"tests", "failed", "skipped"}."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        raise LabError(f"{report} holds no test suite")
    number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    return {
        "tests": number["tests"],
        "failed": number["failures"] + number["errors"],
        "skipped": number["skipped"],
    }


def check() -> None:
    """Raise LabError for the first thing that is missing."""
    if os.geteuid() != 0:
        raise LabError("needs root: containers and namespaces are made here; use sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise LabError(f"{tool} is missing: apt-get install {package}")
    if not any(_GEMS.glob("vagrant-lxc-*")):
        raise LabError(
            "vagrant-lxc is missing: apt-get install --no-install-recommends vagrant-lxc"
        )
    if not cgroup.hierarchies():
        raise LabError("no cgroup v2 hierarchy at /sys/fs/cgroup: mount one (cgroup2)")


def run(quick: bool) -> dict[str, object]:
    """Bring up, test and destroy: {"seconds": {phase: s}, "testinfra", "machines", "ok", "error"}.

    `quick` takes the master, a proxy and a PBX; otherwise every machine. Never raises LabError:
    "error" then says what failed, and everything is removed all the same.
    """
    names = Names(os.environ.get("GUARDIAN_VAGRANT_LAB", "vagrant"))
    machines = ["master", *(node.name for node in fleet())]
    if quick:
        machines = ["master", "sip-01", "pbx-01"]
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    error: str | None = None
    left: list[str] = []
    trial = Trial(names)

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        say(f"vagrant: {name}")
        started = time.monotonic()
        try:
            yield
        finally:
            seconds[name] = round(time.monotonic() - started, 1)

    try:
        check()
        with phase("box"):
            box()
        trial.remove()
        try:
            with phase("prepare"):
                trial.prepare()
            with phase("up"):
                trial.vagrant("up", "--provider=lxc", *machines)
            with phase("testinfra"):
                counts = trial.test(machines)
            with phase("destroy"):
                trial.vagrant("destroy", "--force", *machines)
                left = trial.containers()
        finally:
            with phase("remove"):
                trial.remove()
    except LabError as err:
        error = str(err)
    if left:
        error = f"vagrant destroy left {', '.join(left)}"
    return {
        "ok": error is None and counts.get("tests", 0) > 0 and not counts["failed"],
        "machines": machines,
        "seconds": seconds,
        "testinfra": counts,
        "error": error,
    }


def main() -> int:
    """Run the trial, print its result as JSON, and say by the exit code whether it passed."""
    # As Ctrl-C does: stop, and remove everything on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = run(quick="--quick" in sys.argv[1:])
    except KeyboardInterrupt:
        print("vagrant trial: interrupted, everything it made is removed", file=sys.stderr)
        return 130
    if result["error"]:
        print(f"vagrant trial: {result['error']}", file=sys.stderr)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
