"""One OpenSIPS on loopback with the tree the states render: the twin, and the real one on PATH."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from os_daemon import Daemon

from tests.support import real_opensips
from tests.support.loading import REPOSITORY, load
from tests.support.ports import free_ports

TWINS = REPOSITORY / "lab" / "twins"
START_SECONDS = 10.0
_REAL = [
    pytest.mark.real,
    pytest.mark.skipif(not shutil.which("opensips"), reason="no opensips on PATH"),
]


mi = load("_utils/mi.py")
tree_render = load("_utils/tree_render.py")
opensips_rows = load("_utils/opensips_rows.py")
opensips_tables = load("_utils/opensips_tables.py")


def tables(context: dict[str, Any]) -> dict[str, bytes]:
    """The files of the tree that are data."""
    return opensips_tables.files(opensips_rows.rows(context))


class Proxy:
    """A configuration tree in a directory and the daemon that may run it."""

    def __init__(self, root: Path, flavour: str, port: int) -> None:
        self.root, self.flavour, self.port = root, flavour, port
        self.conf, self.socket = root / "conf", root / "mi.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._render()

    def _render(self) -> None:
        context: dict[str, Any] = yaml.safe_load(
            (REPOSITORY / "salt/opensips/defaults.yaml").read_text()
        )
        context["node"] = {"name": "sip-01", "address": "127.0.0.1"}
        context["sockets"] = [{"proto": "udp", "address": "127.0.0.1", "port": self.port}]
        context["trusted"] = ["127.0.0.1"]
        context["dispatcher"] = {
            "1": [
                {"node": "pbx-01", "uri": f"sip:127.0.0.1:{self.port + 1}", "weight": 1},
                {"node": "pbx-02", "uri": f"sip:127.0.0.1:{self.port + 2}", "weight": 1},
            ],
            "2": [{"node": "fsx-01", "uri": f"sip:127.0.0.1:{self.port + 3}", "weight": 1}],
        }
        context["numbers"] = [
            {"expression": "^8[0-9]{3}$", "set": 2},
            {"expression": "^9\\*", "set": 2},
        ]
        if self.flavour == "real":
            context["module_path"] = real_opensips.modules()
        source, cache = str(REPOSITORY / "salt/opensips/files"), str(self.root / "cache")
        tree = tree_render.render(source, context, cache, "opensips", tables(context))["tree"]
        for name, content in tree.items():
            file = self.conf / name
            file.parent.mkdir(parents=True, exist_ok=True)
            text = content.decode().replace("/etc/opensips", str(self.conf))
            text = text.replace("/run/opensips/opensips_mi.", f"{self.root}/mi.")
            file.write_text(text.replace("/run/opensips/", f"{self.root}/"))

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.conf / name
        text = file.read_text()
        assert old in text, f"{old!r} is not in {name}"
        file.write_text(text.replace(old, new))

    @property
    def _command(self) -> list[str]:
        if self.flavour == "real":
            return [shutil.which("opensips") or "opensips"]
        return [sys.executable, str(TWINS / "opensips" / "daemon.py")]

    @property
    def _environment(self) -> dict[str, str]:
        paths = f"{TWINS / 'common'}{os.pathsep}{TWINS / 'opensips'}"
        return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}

    def check(self) -> tuple[int, str]:
        """What -C says: exit code and text."""
        done = subprocess.run(
            [*self._command, "-C", "-f", str(self.conf / "opensips.cfg")],
            env=self._environment, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def start(self) -> bool:
        """Start it; False when it ends by itself instead of answering."""
        log = (self.root / "log").open("wb")
        self._process = subprocess.Popen(
            [*self._command, "-F", "-f", str(self.conf / "opensips.cfg"),
             "-P", str(self.root / "pid")],
            env=self._environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            try:
                told = self.call("sr_get_status", group="core")
            except OSError:
                told = {"Readiness": False}
            if told["Readiness"]:  # it answers before all its processes are there
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
                self._process.wait()

    def call(self, command: str, **params: Any) -> Any:
        return mi.call(command, params or None, socket=str(self.socket))

    def states(self) -> dict[str, str]:
        """{node: state} of set 1."""
        (partition,) = self.call("ds_list")["PARTITIONS"]
        rows = [row for one in partition["SETS"] if one["id"] == 1 for row in one["Destinations"]]
        return {row["attr"]: row["state"] for row in rows}


@pytest.fixture(params=["twin", "real"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy that is not started yet."""
    if request.param == "real" and shutil.which("opensips") is None:
        pytest.skip("no opensips on PATH: only the twin is held to this")
    proxy = Proxy(tmp_path, request.param, free_ports(4))
    yield proxy
    proxy.stop()


@pytest.fixture
def running(proxy: Proxy) -> Proxy:
    """A proxy that answers."""
    assert proxy.start(), (proxy.root / "log").read_text()
    return proxy


@pytest.fixture
def database() -> str:
    """The driver of the local tables; a test that is about one of them says which."""
    return "text"


@pytest.fixture(params=["twin", pytest.param("real", marks=_REAL)])
def stopped(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> Iterator[Daemon]:
    """An OpenSIPS with the least configuration, not started: its tree can still be changed."""
    daemon = Daemon(request.param, tmp_path, database)
    yield daemon
    daemon.kill()
