"""The proxy tier in one network namespace: proxies and PBX of a workspace, and who calls them.

Each node has what its pillar gives it and is applied by our own states. All that runs listens at
the addresses the fleet has for it, so nothing but the files' places differs from production.
"""

import contextlib
import csv
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.functional.freeswitch.fs_places import Network, Place, compiled, nodes, until
from tests.functional.minion import Minion
from tests.support import real_opensips
from tests.support import workspaces as tree
from tests.support.loading import REPOSITORY, load
from tests.support.phone import Dialog, Phone

TWINS = REPOSITORY / "lab" / "twins"
_OWN = Path(__file__).with_name("sipp")
SCENARIOS = {
    "through": REPOSITORY / "lab/sipp/caller.xml",
    **{file.stem: file for file in _OWN.glob("*.xml")},
}
CALLER = "127.0.0.1"  # where `Phone` calls from
RATE = 20
LONGEST = 90  # seconds that a SIPp may run
LOUD = (" CRITICAL:", " ERROR:", " WARNING:", "BUG")
# What a daemon says whatever its configuration, and why that is no fault.
EXCUSED = {
    "init_reactor_size": "the limit of open files here is not the unit's",
}
mi = load("_utils/mi.py")


def fleet(workspace: str, directory: Path) -> dict[str, Any]:
    """Return a workspace's nodes by host name."""
    tree.publish(directory)
    return tree.fleet(workspace, directory)


def proxies() -> list[str]:
    """Return the minion ids of the proxies that are started."""
    return nodes("sip")


def opensips_binary(flavour: str, root: Path) -> Path:
    """Write a program that runs the twin, or the real one, as opensips."""
    program = root / "bin" / "opensips"
    program.parent.mkdir()
    command = shutil.which("opensips")
    if flavour == "twin":
        command = f"{sys.executable} {TWINS}/opensips/daemon.py"
    paths = f"{TWINS}/common:{TWINS}/opensips"
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={paths} PYTHONDONTWRITEBYTECODE=1\nexec {command} "$@"\n'
    )
    program.chmod(0o755)
    return program


def flavours(*daemons: str) -> list[Any]:
    """Return what a test runs against: the twins, and the real daemons where all are on PATH."""
    found = [pytest.param("twin", id="twin")]
    if all(shutil.which(daemon) for daemon in daemons):
        found.append(pytest.param("real", id="real", marks=pytest.mark.real))
    return found


def installed(directory: Path) -> Iterator[None]:
    """Have both daemons found on PATH, behind the real ones, while a fixture lasts."""
    for daemon in ("opensips", "freeswitch"):
        (directory / daemon).write_text("#!/bin/sh\n")
        (directory / daemon).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:{directory}")
        yield


class Proxy(Place):
    """A proxy of a workspace: its pillar as Salt compiles it, its states' arguments, its daemon.

    ``opensips`` is what a person would add to its pillar key of that name; ``named`` makes it a
    further proxy of its fleet, at another address.
    """

    component = "opensips"

    def __init__(
        self,
        root: Path,
        flavour: str,
        minion_id: str,
        named: tuple[str, str] | None = None,
        **opensips: Any,
    ) -> None:
        root.mkdir(exist_ok=True)
        self.flavour, self.run = flavour, root / "run"
        self.run.mkdir()
        (root / "var").mkdir()
        real = shutil.which("opensips")
        if flavour == "real" and real:
            opensips["module_path"] = real_opensips.modules()
        self.pillar = compiled(root / "compiler", minion_id, opensips=opensips)
        if named:
            name, address = named
            minion_id = f"{name}.{minion_id.partition('.')[2]}"
            self.pillar["node"].update(id=minion_id, name=name, address=address)
        self._give_pillar(root / "pillar")
        binary = opensips_binary(flavour, root)
        self.pidfile = self.run / "opensips.pid"
        self.source = self._templates(root)
        self._me = pwd.getpwuid(os.geteuid()).pw_name
        conf = root / "conf"
        memory = {**_default("memory"), **self.pillar["opensips"].get("memory", {})}
        # What the unit gives the daemon from /etc/default/opensips.
        sizes = ["-m", str(memory["shared"]), "-M", str(memory["private"])]
        Minion.__init__(
            self,
            root,
            minion_id,
            [str(binary), "-F", "-f", f"{conf}/opensips.cfg", "-P", str(self.pidfile), *sizes],
            self.pidfile,
            conf_dir=str(conf),
            state_dir=str(root / "voice"),
            var_dir=str(root / "var"),
            mi_socket=str(self.run / "opensips_mi.sock"),
            pidfile=str(self.pidfile),
            user=self._me,
            group=grp.getgrgid(os.getegid()).gr_name,
            binary=str(binary),
            system_root=str(root / "system"),
        )
        low = self.caller.cmd("state.show_low_sls", "opensips")
        assert all(isinstance(chunk, dict) for chunk in low), low
        self._certificates = [chunk for chunk in low if chunk["state"] == "certificate"]
        (configured,) = (chunk for chunk in low if chunk["__id__"] == "OpenSIPS configured")
        assert configured["source"] == "salt://opensips/files"
        self.context = json.loads(configured["context"])

    def _templates(self, root: Path) -> Path:
        """Copy our templates with this node's places instead of the system's."""
        target = root / "templates"
        shutil.copytree(REPOSITORY / "salt/opensips/files", target)
        places = {"/etc/opensips": "conf", "/run/opensips": "run", "/var/lib/opensips": "var"}
        for file in (path for path in target.rglob("*") if path.is_file()):
            text = file.read_text()
            for place, ours in places.items():
                text = text.replace(place, str(root / ours))
            # Its log goes to daemon.out; there is no syslog here.
            text = text.replace("stderror_enabled=no", "stderror_enabled=yes")
            file.write_text(text)
        return target

    def configured(self, context: dict[str, Any] | None = None, test: bool = False) -> dict:
        wanted = context or self.context
        return self.state(
            "configured", test, name=str(self.conf), source=str(self.source), context=wanted
        )

    @property
    def address(self) -> tuple[str, int]:
        (first, *_) = self.context["sockets"]
        return first.get("address") or self.context["node"]["address"], first["port"]

    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def complaints(self) -> list[str]:
        """Return the lines of its log that are loud."""
        lines = (self.root / "daemon.out").read_text(errors="replace").splitlines()
        return [
            line
            for line in lines
            if any(mark in line for mark in LOUD) and not any(known in line for known in EXCUSED)
        ]

    def voice(self, function: str, *arguments: Any) -> Any:
        return self.caller.cmd(f"voice.{function}", *arguments)

    def mi(self, command: str, **params: Any) -> Any:
        path = str(self.run / "opensips_mi.sock")
        return mi.call(command, params or None, socket=path, timeout=30.0)

    def states(self, number: str = "1") -> dict[str, str]:
        """Return {node: state} of a set, as the daemon itself tells; without Salt, for speed."""
        (partition,) = self.mi("ds_list")["PARTITIONS"]
        rows = [row for one in partition["SETS"] if str(one["id"]) == number
                for row in one["Destinations"]]  # fmt: skip
        return {row["attr"].partition(";")[0]: row["state"] for row in rows}


def _default(key: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "salt/opensips/defaults.yaml").read_text())[key]


class Pbx(Place):
    """A PBX of a workspace that lets these proxies in and has numbers for the tests."""

    HANGS_UP = "2000"  # answers and ends the call itself; every other number echoes

    def __init__(
        self, root: Path, flavour: str, minion_id: str, port: int, proxies: list[str]
    ) -> None:
        ends = ("answer", ""), ("sleep", "200"), ("hangup", "")
        hangs_up = {"name": "hangs up", "expression": f"^{self.HANGS_UP}$",
                    "actions": [{"application": a, "data": d} for a, d in ends]}  # fmt: skip
        echo = {"name": "echo", "expression": "^.+$",
                "actions": [{"application": a} for a in ("answer", "echo")]}  # fmt: skip
        super().__init__(
            root,
            flavour,
            minion_id,
            event_socket={"port": port},
            dialplan={"public": [hangs_up, echo]},
            acl={"proxies": {"allow": [f"{address}/32" for address in proxies]}},
        )

    @property
    def address(self) -> tuple[str, int]:
        return self.context["node"]["address"], self.profiles["internal"]["port"]

    def pid(self) -> int:
        return int(self._pidfile.read_text())

    @property
    def calls_in(self) -> int:
        return int(self.call("profile_status", "internal")["calls-in"])

    def voice(self, function: str, *arguments: Any) -> Any:
        return self.caller.cmd(f"voice.{function}", *arguments)


class Tier:
    """Two proxies and two PBX of a workspace, started, in a network of their own."""

    def __init__(self, root: Path, flavour: str, workspace: str) -> None:
        self.root, self.flavour, self.workspace = root, flavour, workspace
        known = fleet(workspace, root / "fleet")
        pbxs = [name for name, entry in known.items() if entry["role"] == "pbx"][:2]
        first = next(name for name, entry in known.items() if entry["role"] == "sip")
        address = known[first]["address"]
        second = f"{address.rpartition('.')[0]}.{int(address.rpartition('.')[2]) + 1}"
        assert second not in {entry.get("address") for entry in known.values()}
        self.pbx = [
            Pbx(root / name, flavour, f"{name}.{workspace}", 8021 + turn, [address, second])
            for turn, name in enumerate(pbxs)
        ]
        told = {"trusted": [CALLER], "ping": {"interval": 1, "failures": 2}}
        minion_id = f"{first}.{workspace}"
        self.proxy = Proxy(root / "first", flavour, minion_id, **told)
        self.other = Proxy(root / "second", flavour, minion_id, ("sip-99", second), **told)
        addresses = [place.address[0] for place in (*self.pbx, self.proxy, self.other)]
        self.network = Network(addresses)
        self.loads: list[Calls] = []

    def start(self) -> None:
        for place in (*self.pbx, self.proxy, self.other):
            place.start()
        until(self.is_whole, 20)

    def is_whole(self) -> bool:
        """Whether both PBX get calls from both proxies."""
        names = {self.name(pbx) for pbx in self.pbx}
        return all(
            {name for name, state in proxy.states().items() if state == "Active"} >= names
            for proxy in (self.proxy, self.other)
        )

    def states_of_pbx(self) -> dict[str, str]:
        """Return {node: state} of the two, as the first proxy sees them."""
        names = [self.name(pbx) for pbx in self.pbx]
        return {name: state for name, state in self.proxy.states().items() if name in names}

    def put_back(self) -> None:
        """Have everybody in service, whatever happened."""
        marks = ("drained.json", "withdrawn.json")
        everyone = (*self.pbx, self.proxy, self.other)
        files = [place.root / "voice" / mark for place in everyone for mark in marks]
        left = [file for file in files if file.exists() and file.read_text() != "{}"]
        if left or not self.is_whole():
            self._restore(everyone)
        until(self.is_whole, 20)

    def _restore(self, everyone: tuple[Any, ...]) -> None:
        for place in everyone:
            if place.voice("in_service")["paused"]:
                place.voice("undrain")
        for proxy in (self.proxy, self.other):
            for peer in proxy.call("withdrawn"):
                proxy.voice("restore", peer)

    @staticmethod
    def name(pbx: Pbx) -> str:
        return pbx.context["node"]["name"]

    def id_of(self, pbx: Pbx) -> str:
        return f"{self.name(pbx)}.{self.workspace}"

    def calls(self, scenario: str = "through", **options: Any) -> "Calls":
        """Return new calls to the first proxy; see `Calls`."""
        self.loads.append(Calls(self.root, scenario, self.proxy.address, **options))
        return self.loads[-1]

    def figures(self) -> dict[str, int]:
        """Return what became of the new calls since they were last asked for."""
        done, self.loads = self.loads, []
        return {
            "new_calls": sum(load.made for load in done),
            "failed": sum(load.made - load.completed for load in done),
        }

    def phone(self) -> Phone:
        return Phone(self.proxy.address, through_proxy=True)

    def pbx_of(self, dialog: Dialog) -> Pbx:
        """Return who answered a call."""
        return next(pbx for pbx in self.pbx if f"@{pbx.address[0]}:" in dialog.target)


class Calls:
    """SIPp with new calls at a rate until the block ends; then those that are up end by themselves.

    With ``count`` it ends after so many. Every run is bounded in calls and in time.
    """

    def __init__(
        self,
        root: Path,
        scenario: str,
        target: tuple[str, int],
        *,
        number: str = "1000",
        count: int | None = None,
        rate: int = RATE,
        hold_ms: int = 200,
        keys: dict[str, str] | None = None,
    ) -> None:
        self._directory = root / f"sipp-{time.monotonic_ns()}"
        self._directory.mkdir()
        self._until_told, self._rate = count is None, rate
        given = [word for key in (keys or {}).items() for word in ("-key", *key)]
        self._command = [
            "sipp", f"{target[0]}:{target[1]}", "-sf", str(SCENARIOS[scenario]),
            "-t", "u1", "-i", CALLER, "-mi", CALLER, "-s", number,
            "-r", str(rate), "-m", str(count or rate * LONGEST), "-l", str(rate * 20),
            "-d", str(hold_ms), "-timeout", str(LONGEST), "-timeout_error", "-nostdin",
            "-trace_err", "-error_file", str(self._directory / "errors"),
            "-trace_stat", "-stf", str(self._directory / "statistics"), "-fd", "1", *given,
        ]  # fmt: skip

    def __enter__(self) -> "Calls":
        self._began = time.monotonic()
        with (self._directory / "out").open("wb") as out:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                cwd=self._directory,
            )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._until_told and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)  # no new calls
        try:
            self._process.wait(LONGEST)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        self.seconds = time.monotonic() - self._began

    def _last(self) -> dict[str, str]:
        file = self._directory / "statistics"
        text = file.read_text() if file.exists() else ""
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines(), delimiter=";"))
        return rows[-1] if rows else {}

    @property
    def made(self) -> int:
        return int(self._last().get("TotalCallCreated", 0))

    @property
    def failed(self) -> int:
        return int(self._last().get("FailedCall(C)", 0))

    @property
    def completed(self) -> int:
        return int(self._last().get("SuccessfulCall(C)", 0))

    def flow(self, more: int = 20) -> None:
        """Wait until so many more calls have been completed."""
        wanted = self.completed + more
        until(lambda: self.completed >= wanted or self._process.poll() is not None, LONGEST)
        assert self._process.poll() is None, self.errors()

    def errors(self) -> str:
        """Return why calls failed; SIPp's overload warnings tell of a machine that stood still."""
        file = self._directory / "errors"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        told = [line for line in lines if "Aborting" in line or "Overload" in line]
        return "\n".join(line[:300] for line in told[:8]) or "no word"

    def prove(self, least: int = 1) -> "Calls":
        """Assert that all calls were set up and ended as the scenario has it."""
        told = f"{self.completed} of {self.made}, {self.failed} failed: {self.errors()}"
        assert self.failed == 0, told
        assert self.completed == self.made >= least, told
        return self


class Held:
    """Calls that are up until they are hung up, each answered by whom the proxy chose."""

    def __init__(self, tier: Tier, count: int) -> None:
        self._tier, self.phone = tier, tier.phone()
        self.dialogs = [self.phone.call() for _ in range(count)]

    def at(self, pbx: Pbx) -> list[Dialog]:
        return [dialog for dialog in self.dialogs if self._tier.pbx_of(dialog) is pbx]

    def prove(self) -> None:
        """Assert that each is alive: a re-INVITE within it is answered, and nobody ended it."""
        assert [self.phone.reinvite(dialog) for dialog in self.dialogs] == [200] * len(self.dialogs)
        self._nobody_ended_one()

    def hang_up(self, dialogs: list[Dialog] | None = None) -> None:
        """End them, or some of them, ourselves."""
        ending = list(self.dialogs if dialogs is None else dialogs)
        assert [self.phone.hang_up(dialog) for dialog in ending] == [200] * len(ending)
        self.dialogs = [dialog for dialog in self.dialogs if dialog not in ending]
        self._nobody_ended_one()

    def _nobody_ended_one(self) -> None:
        assert [message for message in self.phone.inbox if message.method == "BYE"] == []

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self.hang_up()
        self.phone.close()


@contextlib.contextmanager
def holding(tier: Tier, count: int) -> Iterator[Held]:
    with closing(Held(tier, count)) as held:
        yield held


def proven(answer: dict) -> dict:
    """Return what a state answered, having asserted that it is content."""
    assert answer["result"] is True, answer["comment"]
    return answer
