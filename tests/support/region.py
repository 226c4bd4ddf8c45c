"""A salt-master and minions from the virtual environment on loopback, with a fake voice daemon.

The daemon is a JSON file a minion keeps (`<root>/nodes/<id>.json`): calls, paused, running
configuration. `voice` and the state act on it by the rules of the real ones, and append every call
they get to `<root>/log`, which is how tests see what was done and in which order.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import free_ports

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PUBLISHER = "nobody"  # may publish what docs/masters.md lists, and is nothing else on the master


def until(ready: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until `ready` is true, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
    return value


def documented_functions() -> list[str]:
    """The functions that docs/masters.md grants to a user who is not root."""
    text = (REPOSITORY / "docs" / "masters.md").read_text(encoding="utf-8")
    block = text.partition("publisher_acl:\n")[2].partition("```")[0]
    (granted,) = yaml.safe_load("publisher_acl:\n" + block)["publisher_acl"].values()
    return list(granted)


class Region:
    """Minions of workspace `dev01-use2`: `sip-01 pbx-01 pbx-02` and so on, all on this machine."""

    def __init__(self, root: Path, hosts: dict[str, str]) -> None:
        self.root, self.hosts = root, hosts
        self.workspace = "dev01-use2"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        first = free_ports(2)
        self._ports = (first, first + 1)

    @property
    def releases(self) -> Path:
        """Where the master keeps commits; its `current` leads to `root` until one is released."""
        return self.root / "releases"

    def minion(self, host: str) -> str:
        return f"{host}.{self.workspace}"

    def start(self) -> None:
        for name in ("files", "pillar", "nodes", "master", "sock"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)  # a user who is not root has to pass
        self.releases.mkdir(exist_ok=True)
        (self.releases / "current").symlink_to(self.root)
        shutil.copytree(HERE / "fake_voice", self.root / "files", dirs_exist_ok=True)
        shutil.copy(REPOSITORY / "_modules" / "survey.py", self.root / "files" / "_modules")
        self.pillar({})
        for host in self.hosts:
            self.node(host, running=True, paused=False, calls=0, config={"rtp": 16384})
        common = {"user": "root", "log_level": "warning", "log_level_logfile": "warning"}
        master = {
            **common,
            "root_dir": str(self.root / "master"),
            "sock_dir": str(self.root / "sock" / "m"),
            "interface": "127.0.0.1",
            "publish_port": self._ports[0],
            "ret_port": self._ports[1],
            "auto_accept": True,
            "file_roots": {"base": [str(self.releases / "current" / "files")]},
            "pillar_roots": {"base": [str(self.releases / "current" / "pillar")]},
            "worker_threads": 3,
            "runner_dirs": [str(REPOSITORY / "_runners")],
            "publisher_acl": {PUBLISHER: documented_functions()},
            "fileserver_update_niceness": 0,
        }
        self._write(self.root / "etc" / "master", master)
        for number, host in enumerate(self.hosts):
            config = {
                **common,
                "id": self.minion(host),
                "root_dir": str(self.root / host),
                "sock_dir": str(self.root / "sock" / str(number)),
                "master": "127.0.0.1",
                "publish_port": self._ports[0],
                "master_port": self._ports[1],
                "acceptance_wait_time": 1,
                "cache_jobs": True,
                "grains_cache": True,
                "enable_fqdns_grains": False,
                "fake_voice": str(self.root),
            }
            self._write(self.root / "etc" / host / "minion", config)
        self.run("master")
        for host in self.hosts:
            self.run(host)

    def run(self, name: str) -> None:
        """Start the master or one minion."""
        program = "salt-master" if name == "master" else "salt-minion"
        place = self.root / "etc" if name == "master" else self.root / "etc" / name
        with (self.root / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [Path(sys.executable).with_name(program), "-c", place],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL a process of ours and its children at once."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def pillar(self, data: dict[str, Any]) -> None:
        """What every node is given, besides `node` and `fleet`."""
        fleet = {
            host: {"role": host.partition("-")[0], "zone": zone, "address": "127.0.0.1"}
            for host, zone in self.hosts.items()
        }
        nodes = {self.minion(host): {"name": host, **entry} for host, entry in fleet.items()}
        self._write(self.root / "pillar" / "workspaces" / f"{self.workspace}.sls", {"fleet": fleet})
        lines = [
            "#!py",
            f"FLEET = {fleet!r}",
            f"NODES = {nodes!r}",
            f"DATA = {data!r}",
            "def run():",
            "    return {'fleet': FLEET, 'node': NODES[__opts__['id']], **DATA}",
        ]
        self._replace(self.root / "pillar" / "facts.sls", "\n".join(lines) + "\n")
        self._replace(self.root / "pillar" / "top.sls", "base:\n  '*':\n    - facts\n")

    def node(self, host: str, **changes: Any) -> dict[str, Any]:
        """The fake daemon of a host, after these changes."""
        path = self.root / "nodes" / f"{self.minion(host)}.json"
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if changes:
            state.update(changes)
            self._replace(path, json.dumps(state))
        return state

    def log(self, *functions: str) -> list[list[str]]:
        """Calls the fakes got, in order: [host, function, argument …]."""
        path = self.root / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [line.split() for line in lines]
        return [entry for entry in entries if not functions or entry[1] in functions]

    def forget(self) -> None:
        (self.root / "log").unlink(missing_ok=True)

    def config(self, *, releases: bool = False, **rollout: Any) -> Path:
        """A guardian.yaml for this region, with the fast rollout of a test."""
        master: dict[str, Any] = {
            "local": True,
            "tree": str(REPOSITORY),
            "salt_config": str(self.root / "etc" / "master"),
        }
        if releases:  # of the tests' tree: `files` and `pillar`; guardian itself is installed
            master |= {"tree": str(self.root), "releases": str(self.releases), "live": True}
        fast = {"soak": 0, "poll": 0.3, "drain_deadline": 30, "sole_node": "when_idle"}
        content = {
            "stacks": {"lab": {"path": str(REPOSITORY / "terraform" / "lab")}},
            "workspaces": {
                self.workspace: {
                    "stacks": ["lab"],
                    "master": master,
                    "state": "state",
                    "outputs": "outputs",
                    "runs": "runs",
                    "rollout": {**fast, **rollout},
                }
            },
        }
        return self._write(self.root / "guardian.yaml", content)

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(path)


@contextmanager
def region(root: Path, hosts: dict[str, str]) -> Iterator[Region]:
    """A started region; the minions' first contact is left to whoever waits for it."""
    started = Region(root, hosts)
    try:
        started.start()
        yield started
    finally:
        started.stop()
