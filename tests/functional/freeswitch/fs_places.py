"""Nodes of the real workspaces, each with what its pillar gives it, in a network of their own."""

import contextlib
import ctypes
import grp
import json
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import salt.client

from tests.functional.freeswitch.conftest import binary, daemon_command
from tests.functional.minion import Minion
from tests.functional.test_pillar import Compiler
from tests.support import bundles
from tests.support import workspaces as tree
from tests.support.secrets import referring

ROLES = ("pbx", "fsx")
LOUD = ("[WARNING]", "[ERR]", "[CRIT]", "[ALERT]")
# What a daemon says of itself whatever its configuration, and why that is no fault.
EXCUSED = {
    "MSG Thread 0 Started": "mod_sofia greets at level CRIT when its message thread starts",
}
_OWN_NETWORK = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x4000_0000


LAB = "lab-local"


def workspaces() -> list[str]:
    """Return the workspaces whose nodes are started: the lab, and one in AWS or all of them."""
    everything = [one for one in tree.workspaces() if one != LAB]
    return [LAB, *(everything if os.environ.get("EVERY_WORKSPACE") else ["prod-euw2"])]


def nodes(*roles: str) -> list[str]:
    """Return the nodes of these roles that are started: the lab's, of others the first a role."""
    with tempfile.TemporaryDirectory() as directory:
        outputs = Path(directory)
        tree.publish(outputs)
        found = []
        for workspace in workspaces():
            fleet = tree.fleet(workspace, outputs)
            names = [name for name, entry in fleet.items() if entry["role"] in roles]
            if workspace != LAB:
                names = list({fleet[name]["role"]: name for name in names[::-1]}.values())
            found += [f"{name}.{workspace}" for name in names]
    return found


def minion_ids() -> list[str]:
    """Return the nodes that are started and have a FreeSWITCH."""
    return nodes(*ROLES)


def one_of_each_role() -> list[str]:
    """Return the first node of each role of the lab, whose calls stay within it."""
    ours = [one for one in minion_ids() if one.endswith(f".{LAB}")]
    return sorted({one.partition("-")[0]: one for one in ours[::-1]}.values())


def compiled(directory: Path, minion_id: str, **override: Any) -> dict[str, Any]:
    """Return a node's pillar: dummies for secrets, a certificate of its own names, no database."""
    compiler = Compiler(directory, dummies=tree.accounts())
    tree.publish(compiler.outputs)
    pillar = compiler(minion_id, **override)
    assert "_errors" not in pillar, pillar["_errors"]
    if not minion_id.endswith(f".{LAB}"):
        if minion_id.startswith("sip-"):
            # There is no database here, though a stack said where it is; so users are in pillar.
            pillar["opensips"]["database"]["remote"] = None
            users = {"1001": {"ha1": {"secret": "user-1001"}}}
            registrar = pillar["opensips"]["registrar"]
            registrar["users"] = dict.fromkeys(registrar["domains"], users)
            pillar["secret_values"]["user-1001"] = "0" * 32
        node = pillar["node"]
        names = [one.format(**node) for one in pillar["certificates"]["default"]["dns_names"]]
        pillar["certificates"]["default"].update(dns_names=names, directory=f"{directory}/tls")
        made = bundles.renewed(names=names)
        for part in ("chain", "key"):
            pillar["secret_values"][f"certificate-default-{part}"] = made[part]
    return pillar


class Network:
    """A network namespace without a name: it goes with the last process in it."""

    def __init__(self, addresses: list[str]) -> None:
        with _returning():
            _check(_libc.unshare(_CLONE_NEWNET))
            self._handle = os.open(_OWN_NETWORK, os.O_RDONLY)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for address in addresses:
                subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Work in it: this thread, and the processes and threads that it starts."""
        with entered(self._handle):
            yield

    def close(self) -> None:
        """End what still runs in it."""
        inode = os.fstat(self._handle).st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "ns/net").stat().st_ino == inode:
                    os.kill(int(process.name), signal.SIGKILL)
                    os.waitpid(int(process.name), 0)
        os.close(self._handle)


@contextlib.contextmanager
def entered(handle: int) -> Iterator[None]:
    """Have this thread work in the network that an open file stands for."""
    with _returning():
        _check(_libc.setns(handle, _CLONE_NEWNET))
        yield


_libc = ctypes.CDLL(None, use_errno=True)


def _check(answer: int) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    home = os.open(_OWN_NETWORK, os.O_RDONLY)
    try:
        yield
    finally:
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


class Place(Minion):
    """A node of a workspace: its pillar as Salt compiles it, its states' arguments, its daemon.

    ``freeswitch`` is what a person would add to its pillar key of that name. All that lies outside
    the configuration's own directory lies below ``root``.
    """

    component = "freeswitch"
    _served: "Place | None" = None

    def __init__(self, root: Path, flavour: str, minion_id: str, **freeswitch: Any) -> None:
        root.mkdir(exist_ok=True)
        self.flavour = flavour
        override = referring("freeswitch", {**freeswitch, "tls_directory": str(root / "sofia")})
        del override["secret_values"]  # that is for aws_secrets to say
        self.pillar = compiled(root / "compiler", minion_id, **override)
        self._give_pillar(root / "pillar")
        pidfile = root / "run" / "freeswitch.pid"
        self._me = pwd.getpwuid(os.geteuid()).pw_name
        super().__init__(
            root,
            minion_id,
            daemon_command(flavour, root),
            pidfile,
            conf_dir=str(root / "conf"),
            state_dir=str(root / "voice"),
            pidfile=str(pidfile),
            user=self._me,
            group=grp.getgrgid(os.getegid()).gr_name,
            system_root=str(root / "system"),
            binary=str(binary(flavour, root)),
        )
        low = self.caller.cmd("state.show_low_sls", "freeswitch")
        assert all(isinstance(chunk, dict) for chunk in low), low
        self._certificates = [chunk for chunk in low if chunk["state"] == "certificate"]
        (configured,) = (chunk for chunk in low if chunk["__id__"] == "FreeSWITCH configured")
        assert configured["source"] == "salt://freeswitch/files"
        self.context = configured["context"]

    def _give_pillar(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "top.sls").write_text("base: {'*': [all]}\n")
        (directory / "all.sls").write_text("#!json\n" + json.dumps(self.pillar))

    @property
    def caller(self) -> salt.client.Caller:
        """Return Salt's caller, loaded anew if another place's was: modules are one a process."""
        if Place._served is not self:
            self._caller = salt.client.Caller(mopts=self._caller.opts)
            Place._served = self
        return self._caller

    @caller.setter
    def caller(self, made: salt.client.Caller) -> None:
        self._caller = made
        Place._served = self

    @property
    def profiles(self) -> dict[str, Any]:
        return self.context["profiles"]

    def start(self) -> None:
        """Apply the states in their order: certificates, configuration, daemon."""
        for chunk in self._certificates:
            arguments = ("name", "dns_names", "directory", "layout")
            wanted = {key: chunk[key] for key in arguments if key in chunk}
            self._done(self.caller.cmd("state.single", "certificate.deployed", owner=self._me,
                                       **wanted))  # fmt: skip
        self._done({"configured": self.configured()})
        self._done({"running": self.running()})

    @staticmethod
    def _done(answer: Any) -> None:
        assert isinstance(answer, dict), answer
        for ret in answer.values():
            assert ret["result"] is True, ret["comment"]

    def complaints(self) -> list[str]:
        """Return the lines of its log and its console that are loud, but for those excused."""
        files = (self.root / "log/freeswitch.log", self.root / "daemon.out")
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
        return [
            line
            for line in lines
            if any(mark in line for mark in LOUD) and not any(known in line for known in EXCUSED)
        ]


def until(true: Any, seconds: float = 10.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(0.05)
