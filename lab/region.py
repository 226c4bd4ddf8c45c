"""The whole of `lab-local`: a master and its minions, up, asked, and gone without trace."""

import contextlib
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import cgroup, image, master, minion, mirror, network, packages
from lab.host import Host
from lab.names import MASTER_ADDRESS, REPOSITORY, WORKSPACE, LabError, Names, Node, fleet
from lab.progress import say
from lab.shell import run

_MASTER_SECONDS = 60
_HIGHSTATE_SECONDS = 300.0


class Region:
    """A context manager: `with Region() as region: region.salt("*pbx*", "test.ping")`.

    `config` is laid over the master's configuration; `highstate` False leaves the minions bare.
    """

    def __init__(
        self,
        name: str | None = None,
        config: dict[str, object] | None = None,
        *,
        highstate: bool = True,
    ) -> None:
        self.names = Names(name) if name else Names.from_environment()
        self.nodes = {node.name: node for node in fleet()}
        self.outputs_dir = self.names.outputs
        venv = minion.BIN.parent
        everywhere = {
            str(venv): venv,
            "/srv/guardian": REPOSITORY,
            "/srv/guardian-lab": self.names.share,
        }
        # The environment's own entry of `guardian`, which external pillars use, leads there.
        package = REPOSITORY / "guardian"
        masters = {**everywhere, master.OUTPUTS: self.outputs_dir, str(package): package}
        self.master = Host(self.names, "master", MASTER_ADDRESS, masters)
        self.hosts = {
            node.name: Host(self.names, node.name, node.address, everywhere)
            for node in self.nodes.values()
        }
        self._config = dict(config or {})
        if not highstate:
            self._config["reactor"] = []
        self._highstate = highstate

    def __enter__(self) -> "Region":
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def is_up(self) -> bool:
        return all(host.init_pid() for host in (self.master, *self.hosts.values()))

    @property
    def proxy_address(self) -> str:
        """Where calls go in: the first proxy of the fleet."""
        return next(node.address for node in self.nodes.values() if node.role == "sip")

    def up(self) -> None:
        """Bring up what is not up; LabError names the host and what its console or states said."""
        sleeping = [host for host in self.hosts.values() if host.init_pid() is None]
        if not sleeping and self.master.init_pid() and mirror.running(self.names):
            say(f"lab {self.names.lab} is up: {', '.join(self.hosts)} and its master")
            return
        base = image.base_root()
        voice = packages.repository()
        self._share(voice)
        network.create_hub(self.names)
        mirror.start(self.names, voice)
        self._boot_master(base)
        returns = master.Returns(self.master) if self._highstate else None
        say(f"booting {', '.join(host.name for host in sleeping)}")
        with ThreadPoolExecutor(len(sleeping) or 1) as pool:
            list(pool.map(lambda host: self._boot_minion(host, base), sleeping))
        if returns:
            self._await_highstates(returns, {self.nodes[host.name] for host in sleeping})
        else:
            self._await_ping({self.nodes[host.name].minion_id for host in sleeping})

    def _share(self, voice: Path) -> None:
        for directory in (self.names.share, self.outputs_dir):
            directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(voice / "voice.gpg", self.names.share)

    def _boot_master(self, base: Path) -> None:
        if self.master.init_pid():
            return
        for node in self.nodes.values():
            minion.make_keys(self.names.directory / "keys" / node.minion_id)
        self.master.prepare(base)
        master.configure(self.master, self.nodes.values(), self._config)
        say("booting the master")
        self.master.boot()
        self.master.run(
            ["timeout", str(_MASTER_SECONDS), "systemctl", "start", "salt-master"],
            timeout=_MASTER_SECONDS + 5,
        )

    def _boot_minion(self, host: Host, base: Path) -> None:
        host.prepare(base)
        minion.configure(host, self.nodes[host.name])
        host.boot()

    def _await_highstates(self, returns: master.Returns, expected: set[Node]) -> None:
        """Follow the highstates the reactor starts; LabError with the failed states' comments."""
        waiting = {node.minion_id for node in expected}
        failures: list[str] = []
        if waiting:
            say(f"the reactor applies the highstate to {len(waiting)} new minions")
        for returned in returns.read(_HIGHSTATE_SECONDS) if waiting else ():
            name = str(returned["id"])
            if name not in waiting:
                continue
            waiting.discard(name)
            failed = returned["failures"]
            assert isinstance(failed, list)
            say(f"  {name}: {returned['states']} states, {len(failed)} failed")
            failures += [f"{name}: {failure}" for failure in failed]
            if not waiting:
                break
        returns.close()
        if waiting:
            raise LabError(
                f"no highstate from {', '.join(sorted(waiting))} in {_HIGHSTATE_SECONDS:.0f} s:"
                f" `guardian lab logs {min(waiting).split('.')[0]}` shows the minion's journal"
            )
        if failures:
            raise LabError("highstate failed: " + "\n  ".join(failures))

    def _await_ping(self, expected: set[str]) -> None:
        """Wait until each minion has answered once."""
        answered: set[str] = set()
        for _ in range(20):
            answered |= set(
                self.salt(",".join(sorted(expected)), "test.ping", listed=True, timeout=2)
            )
            if answered >= expected:
                return
        raise LabError(f"no answer from {', '.join(sorted(expected - answered))}")

    def salt(
        self,
        target: str,
        function: str,
        *args: str,
        listed: bool = False,
        timeout: int = 60,
        **kwargs: object,
    ) -> dict[str, Any]:
        """Run one function through the master's `salt` command: {minion id: return}."""
        words = [
            "salt",
            "--out=json",
            "--static",
            f"--timeout={timeout}",
            *(["-L"] if listed else []),
        ]
        words += [target, function, *args]
        words += [f"{key}={value}" for key, value in kwargs.items()]
        done = self.master.run(words, check=False)
        merged: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            for document in master.read_json_documents(done.stdout):
                merged.update(document)
        if not merged and done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise LabError(f"salt {target} {function} failed: {' '.join(said)}")
        return merged

    def down(self) -> None:
        """End and remove everything this lab made, whatever state it is in."""
        mirror.stop(self.names)
        hosts = [*self.hosts.values(), self.master]
        with ThreadPoolExecutor(len(hosts)) as pool:
            list(pool.map(lambda host: host.remove(), hosts))
        for group in cgroup.of_lab(self.names.lab):
            cgroup.kill(group)
        for namespace in network.of_lab(self.names):
            _end_processes_in(namespace)
            network.remove(namespace)
        shutil.rmtree(self.names.directory, ignore_errors=True)


def _end_processes_in(namespace: str) -> None:
    """End what still runs in a namespace of ours: calls, or the mirror of a crashed `up`."""
    found = run(["ip", "netns", "pids", namespace], check=False).stdout.split()
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


__all__ = ["WORKSPACE", "Region"]
