"""What the fault matrix needs: a workspace of small roots, guardian as a process, and stand-ins.

`StandIn` is a `terraform` that replays lines recorded of Terraform 1.11.4, with a fault where the
real one cannot be made to have it; everything else in the matrix runs the real programs.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from guardian import journal
from tests.support.region import REPOSITORY, Region, until

WORKSPACE = "dev01-use2"
WHOLE = os.environ.get("GUARDIAN_FAULTS") == "whole"
# What the daily tests have no time for; `make evidence AREA=controller` runs it.
in_the_whole_matrix = pytest.mark.skipif(not WHOLE, reason="GUARDIAN_FAULTS=whole runs it")

BACKEND = 'terraform {\n  backend "local" {}\n}\n'
QUIET = BACKEND + 'resource "terraform_data" "kept" {\n  input = "one"\n}\n'


class Guardian:
    """A guardian process that runs, and what it said so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self._log = process, log

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def until(self, text: str, seconds: float = 60) -> None:
        """Wait until it said this; what it said instead is in the failure."""
        until(lambda: text in self.said or self.process.poll() is not None, text, seconds)
        assert text in self.said, self.said

    def ended(self, seconds: float = 90) -> int:
        """Its exit code; what it said must be words, never a traceback."""
        code = self.process.wait(seconds)
        assert "Traceback" not in self.said, self.said
        return code


class Controller:
    """guardian on one guardian.yaml in `root`: run to its end, or started and left running."""

    def __init__(self, root: Path, workspace: str = WORKSPACE) -> None:
        self.root, self.workspace = root, workspace
        self.env: dict[str, str] = {}
        self.wrap: Sequence[str] = ()
        self._numbers = 0

    def command(self, *arguments: str) -> list[str]:
        config = str(self.root / "guardian.yaml")
        return [*self.wrap, sys.executable, "-m", "guardian", "--config", config, *arguments]

    @contextmanager
    def started(self, *arguments: str, **streams: Any) -> Iterator[Guardian]:
        """A running guardian; killed at the end if it still runs."""
        self._numbers += 1
        path = self.root / f"said-{self._numbers}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=REPOSITORY,
                env={**os.environ, "TF_CLI_CONFIG_FILE": "", **self.env},
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **streams},
            )
        try:
            yield Guardian(process, path)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def run(self, *arguments: str, seconds: float = 120) -> tuple[int, str]:
        """Exit code and everything it said."""
        with self.started(*arguments) as guardian:
            code = guardian.ended(seconds)
            return code, guardian.said

    def deploy(self, *arguments: str) -> tuple[int, str]:
        return self.run("deploy", self.workspace, "--yes", *arguments)

    def resume(self, *arguments: str) -> tuple[int, str]:
        return self.run("resume", self.workspace, "--yes", *arguments)

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.root.glob("runs/*/journal.jsonl"))

    def journal(self, *kinds: str) -> list[journal.Entry]:
        """Entries of the last run, whole and chained, of these types."""
        entries = journal.read(self.runs[-1] / "journal.jsonl")
        return [entry for entry in entries if not kinds or entry["type"] in kinds]


class Roots(Controller):
    """A workspace of stacks alone: `roots` gives the text of main.tf and what it comes after."""

    def __init__(self, root: Path, roots: dict[str, tuple[str, Sequence[str]]]) -> None:
        super().__init__(root)
        for name, (text, _) in roots.items():
            (root / "terraform" / name).mkdir(parents=True)
            (root / "terraform" / name / "main.tf").write_text(text)
        stacks = {
            name: {"path": f"terraform/{name}", "after": list(after)}
            for name, (_, after) in roots.items()
        }
        entry = {
            "stacks": list(roots),
            "master": {"local": True},
            "state": "state",
            "outputs": "outputs",
            "runs": "runs",
        }
        content = {"stacks": stacks, "workspaces": {self.workspace: entry}}
        (root / "guardian.yaml").write_text(yaml.safe_dump(content))

    def deploy(self, *arguments: str) -> tuple[int, str]:
        return super().deploy("--only", "stacks", *arguments)

    def state(self, stack: str) -> Path:
        return self.root / "state" / stack / self.workspace / "terraform.tfstate"

    def resources(self, stack: str) -> set[str]:
        """Names of the resources in a stack's state; none without a state."""
        if not self.state(stack).exists():
            return set()
        text = self.state(stack).read_text()
        return {one["name"] for one in json.loads(text)["resources"]} if text else set()


class Fleet(Controller):
    """A region of real minions with the deadlines of a test, as a user would set them."""

    def __init__(self, region: Region, **rollout: Any) -> None:
        super().__init__(region.root, region.workspace)
        self.region = region
        fast = {"apply_deadline": 12, "call_deadline": 8, "checks_deadline": 3, "trial_calls": 0}
        region.config(**{**fast, **rollout})

    def deploy(self, *arguments: str) -> tuple[int, str]:
        return super().deploy("--only", "fleet", *arguments)

    def through(self, **faults: Any) -> None:
        """Reach the master by way of the relay, which has these faults."""
        file = self.root / "relay.json"
        file.write_text(json.dumps(faults))
        path = self.root / "guardian.yaml"
        content = yaml.safe_load(path.read_text())
        master = content["workspaces"][self.workspace]["master"]
        del master["local"]
        python_path = f"PYTHONPATH={REPOSITORY}"
        relay = ["env", python_path, sys.executable, "-m", "tests.support.relay", str(file)]
        master["command"] = relay
        path.write_text(yaml.safe_dump(content))

    def applies(self, host: str) -> int:
        """How many times a node's configuration was applied."""
        return len([one for one in self.region.log("apply") if one[0] == host])

    def at_rest(self, rtp: int) -> None:
        """Every node is as pillar wants it, in service, and withdrawn nowhere."""
        for host in self.region.hosts:
            node = self.region.node(host)
            assert node["config"]["rtp"] == rtp, (host, node)
            assert not node["paused"], (host, node)
            assert not node.get("withdrawn"), (host, node)

    @property
    def running(self) -> set[str]:
        """The master and the minions, of those that were started and not killed."""
        return set(self.region._processes)

    def kill(self, name: str) -> None:
        """SIGKILL the master or a minion, so that it can be started again at once."""
        self.region.kill(name)
        self._unmark(name)

    def restart_alone(self, host: str) -> None:
        """Restart a minion as systemd does with KillMode=process: what it began goes on."""
        process = self.region._processes.pop(host)
        service = [pid for pid, line in children(process.pid) if "ProcessPayload" not in line]
        for pid in (process.pid, *service):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        self._unmark(host)
        self.region.run(host)

    def _unmark(self, name: str) -> None:
        # Its process may stay a zombie for a while, which the next one takes for itself running.
        for file in (self.root / name).rglob("*salt-*.pid"):
            file.unlink()

    def out(self) -> set[str]:
        """Hosts that are paused."""
        return {host for host in self.region.hosts if self.region.node(host)["paused"]}


class StandIn:
    """A `terraform` on PATH of its own; faults by verb or `stack/verb`, one a call, the last kept.

    A fault is {"out": lines, "err": text, "code": number, "wait": true, "files": {name: text}}; the
    one that waits ends on a SIGINT, after it has "saved its state". Empty is an ordinary call.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "stand-in"
        (self._root / "bin").mkdir(parents=True)
        program = self._root / "bin" / "terraform"
        program.write_text(f"#!{sys.executable} -IS\nROOT = {str(self._root)!r}\n{_PROGRAM}")
        program.chmod(0o755)
        self.faults()

    @property
    def path(self) -> str:
        return f"{self._root / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def faults(self, **by_verb: list[dict[str, Any]]) -> None:
        (self._root / "faults").write_text(json.dumps(by_verb))

    @property
    def calls(self) -> list[str]:
        """`stack verb`, `stack SIGINT` and `stack saved`, in order."""
        path = self._root / "calls"
        return path.read_text().splitlines() if path.exists() else []


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Every process below one: id and command line."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            line = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if parent == pid:
            yield int(path.parent.name), line
            yield from children(int(path.parent.name))


def kill(pid: int, word: str) -> None:
    """SIGKILL the processes below `pid` that have this word on their command line."""
    found = [one for one, line in children(pid) if word in line]
    assert found, f"nothing like {word} runs below {pid}"
    for one in found:
        os.kill(one, signal.SIGKILL)


def diagnostic(summary: str, detail: str = "") -> str:
    """An error in Terraform's machine-readable form."""
    found = {"severity": "error", "summary": summary, "detail": detail}
    return json.dumps({"@level": "error", "type": "diagnostic", "diagnostic": found})


LOCKED_OUT = diagnostic(
    "Error acquiring the state lock",
    "Error message: resource temporarily unavailable\nLock Info:\n"
    "  ID:        6f0a2f0e-0000-4000-8000-000000000001\n  Path:      terraform.tfstate\n"
    "  Operation: OperationTypeApply\n  Who:       mallory@elsewhere\n  Version:   1.11.4\n"
    "  Created:   2026-11-23 10:00:00 +0000 UTC\n  Info:      \n\n\nTerraform acquires",
)

# Recorded of Terraform 1.11.4: a root with one terraform_data and one output.
_PROGRAM = r"""
import json, os, signal, sys, time

verb, stack = sys.argv[1], os.path.basename(os.getcwd())
with open(ROOT + "/calls", "a") as file:
    file.write(f"{stack} {verb}\n")
with open(ROOT + "/calls") as file:
    turn = file.read().splitlines().count(f"{stack} {verb}") - 1
with open(ROOT + "/faults") as file:
    faults = json.load(file)
replies = faults.get(f"{stack}/{verb}") or faults.get(verb) or [{}]
fault = replies[min(turn, len(replies) - 1)]


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def event(kind, **more):
    say(json.dumps({"@level": "info", "@module": "terraform.ui", "type": kind, **more}))


def note(text):
    with open(ROOT + "/calls", "a") as file:
        file.write(f"{stack} {text}\n")


signal.signal(signal.SIGINT, lambda *_: note("SIGINT"))
if verb in ("plan", "apply"):
    event("version", terraform="1.11.4", ui=fault.get("ui", "1.2"))
for line in fault.get("out", []):
    say(line)
for name, text in fault.get("files", {}).items():
    with open(name, "w") as file:
        file.write(text)
sys.stderr.write(fault.get("err", ""))
if fault.get("wait"):
    event("apply_start", hook={"resource": {"addr": "terraform_data.slow"}, "action": "create"})
    while True:
        with open(ROOT + "/calls") as file:
            if f"{stack} SIGINT" in file.read().splitlines():
                break
        time.sleep(0.05)
    time.sleep(1.5)  # it ends what it does, saves its state and frees its lock
    note("saved")
    sys.exit(1)
if fault.get("code"):
    sys.exit(fault["code"])
changes = {"add": 1, "change": 0, "import": 0, "remove": 0, "operation": verb}
if verb == "plan":
    out = next(one for one in sys.argv if one.startswith("-out="))
    with open(out[5:], "w") as file:
        file.write(f"the plan of {stack}")
if verb in ("plan", "apply"):
    event("change_summary", changes=changes)
    event("outputs", outputs={"first": {"sensitive": False, "action": "create"}})
if verb == "output":
    say(json.dumps({"first": {"sensitive": False, "type": "string", "value": "one"}}))
"""
