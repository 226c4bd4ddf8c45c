"""An OpenSIPS of our own on loopback, the twin or the real one, with the least configuration."""

import functools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import real_opensips
from tests.support.loading import REPOSITORY, load
from tests.support.phone import Phone
from tests.support.ports import free_ports

mi = load("_utils/mi.py")
tables = load("_utils/opensips_tables.py")

TWIN = REPOSITORY / "lab" / "twins" / "opensips"
VERSION = "OPENSIPS_TWIN_VERSION"
MODULES = ("proto_udp", "signaling", "sl", "tm", "rr", "sipmsgops", "cfgutils", "dialog")
START_SECONDS = 15.0
_SQL = {"auto": "INTEGER PRIMARY KEY", "int": "INTEGER", "long": "INTEGER", "blob": "BLOB"}
# A call goes where `choose` sends it; what belongs to a dialog follows its routes.
_ROUTES = """
route {
    if (has_totag()) {
        if (loose_route()) {
            t_relay();
        } else if (is_method("ACK") && t_check_trans()) {
            t_relay();
        }
        exit;
    }
    if (is_method("OPTIONS")) {
        %(options)s
        exit;
    }
    if (!is_method("INVITE")) {
        exit;
    }
    t_check_trans();
    create_dialog();
    record_route();
    %(choose)s
    if (!t_relay()) {
        send_reply(500, "Not Relayed");
    }
}
%(more)s
"""


def until(condition, seconds=10.0, every=0.02):
    """Return the condition's first true value; AssertionError when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{condition} was not true within {seconds} s"
        time.sleep(every)


def real() -> str:
    """The daemon on PATH, empty when there is none."""
    return shutil.which("opensips") or ""


@functools.cache
@functools.cache
def _real_release() -> tuple[int, ...]:
    told = subprocess.run([real(), "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in told.split()[2].split("-")[0].split("."))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


class Daemon:
    """A tree in a directory, and the daemon that may run it; `database` is text or sqlite."""

    def __init__(self, flavour: str, root: Path, database: str = "text", version: str = "") -> None:
        self.flavour, self.root, self.database = flavour, root, database
        self.conf, self.socket, self.log = root / "conf", root / "mi.sock", root / "log"
        self.port = free_ports(6)
        self.sip = ("127.0.0.1", self.port)
        self.version = version or os.environ.get(VERSION, "3.4.18")
        self.core: list[str] = [f"socket=udp:127.0.0.1:{self.port}"]
        self.modules: dict[str, dict[str, Any]] = {name: {} for name in MODULES}
        self.modules["mi_datagram"] = {"socket_name": str(self.socket), "unix_socket_mode": 0o660}
        self.modules[f"db_{database}"] = {}
        self.choose, self.options, self.more = "", 'send_reply(200, "OK");', ""
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        (self.conf / "dbtext").mkdir(parents=True)
        self.file = self.conf / "opensips.cfg"

    @property
    def release(self) -> tuple[int, ...]:
        if self.flavour == "real":
            return _real_release()
        return tuple(int(part) for part in self.version.split("."))

    @property
    def db_url(self) -> str:
        if self.database == "text":
            return f"text://{self.conf}/dbtext"
        return f"sqlite://{self.conf}/opensips.sqlite"

    # what it is configured with

    def module(self, name: str, **parameters: Any) -> "Daemon":
        """Load a module more, or set more of its parameters; a list sets one several times."""
        self.modules.setdefault(name, {}).update(parameters)
        return self

    def table(self, name: str, *rows: dict[str, Any]) -> None:
        """Write a table's rows, in place of those there are."""
        self.rows[name] = list(rows)
        if self.database == "text":
            for file, content in tables.files(self.rows, self.release).items():
                if file in (f"dbtext/{name}", "dbtext/version"):
                    (self.conf / file).write_bytes(content)
        else:
            self._sqlite(name)

    def _sqlite(self, name: str) -> None:
        columns = tables.TABLES[name]
        with self.sql() as link:
            link.execute("CREATE TABLE IF NOT EXISTS version (table_name TEXT, table_version INT)")
            told = ", ".join(f'"{c}" {_SQL.get(kind.strip("?"), "TEXT")}' for c, kind, _ in columns)
            link.execute(f"CREATE TABLE IF NOT EXISTS {name} ({told})")
            link.execute(f"DELETE FROM {name}")
            link.execute("DELETE FROM version WHERE table_name = ?", (name,))
            link.execute(
                "INSERT INTO version VALUES (?, ?)", (name, tables.version(name, self.release))
            )
            for values in tables.complete(name, self.rows[name]):
                marks = ", ".join("?" * len(values))
                link.execute(f"INSERT INTO {name} VALUES ({marks})", values)

    def sql(self) -> sqlite3.Connection:
        return sqlite3.connect(self.conf / "opensips.sqlite")

    def write(self) -> None:
        """Put the configuration on disk as it is set now."""
        lines = ["log_level=3", "stderror_enabled=yes", "syslog_enabled=no", "udp_workers=2"]
        lines += ["auto_aliases=no", *self.core]
        if self.flavour == "real":
            lines.append(f'mpath="{real_opensips.modules()}"')
        lines += [f'loadmodule "{name}.so"' for name in self.modules]
        for module, parameters in self.modules.items():
            for name, given in parameters.items():
                for value in given if isinstance(given, list) else [given]:
                    shown = value if isinstance(value, int) else f'"{value}"'
                    lines.append(f'modparam("{module}", "{name}", {shown})')
        lines.append('include_file "routes.cfg"')
        self.file.write_text("\n".join(lines) + "\n")
        self.write_routes()

    def write_routes(self) -> None:
        parts = {"choose": self.choose, "options": self.options, "more": self.more}
        (self.conf / "routes.cfg").write_text(_ROUTES % parts)

    # the process

    @property
    def _command(self) -> list[str]:
        return [real()] if self.flavour == "real" else [sys.executable, str(TWIN / "daemon.py")]

    @property
    def _environment(self) -> dict[str, str]:
        paths = f"{TWIN.parent / 'common'}{os.pathsep}{TWIN}"
        return {**os.environ, "PYTHONPATH": paths, VERSION: self.version}

    def check(self) -> tuple[int, str]:
        """What -C says: exit code and text."""
        self.write()
        done = subprocess.run(
            [*self._command, "-C", "-f", str(self.file)],
            env=self._environment, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def run(self) -> "subprocess.Popen[bytes]":
        """A process more, left to itself."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self._command, "-F", "-f", str(self.file), "-P", str(self.root / "pid"),
                 "-m", "64", "-M", "16"],
                env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def try_start(self) -> bool:
        """Start it; False when it ends by itself instead of answering."""
        self.write()
        self._process = self.run()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return True
            time.sleep(0.02)
        return False

    def _is_ready(self) -> bool:
        """MI answers before the tables are read, and from 3.6 on before TCP is listened on."""
        try:
            told = mi.call("sr_get_status", {"group": "core"}, socket=str(self.socket), timeout=1.0)
        except OSError:
            return False
        return bool(told["Readiness"]) and all(map(_accepts, self._streams()))

    def _streams(self) -> list[int]:
        """The ports of its TCP and TLS sockets."""
        return [
            int(line.rpartition(":")[2])
            for line in self.core
            if line.startswith(("socket=tcp", "socket=tls"))
        ]

    def start(self) -> "Daemon":
        assert self.try_start(), self.log.read_text()[-3000:]
        return self

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def wait(self, seconds: float = 10.0) -> int:
        """The exit code, once it ended."""
        assert self._process
        return self._process.wait(seconds)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Take down the daemon and all its workers."""
        if self._process:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            finally:
                self._process.wait()

    def restart(self) -> "Daemon":
        self.stop()
        return self.start()

    # what it is asked

    def call(self, command: str, **params: Any) -> Any:
        """An MI command; MiError when it is refused."""
        return mi.call(command, params or None, socket=str(self.socket))

    def refused(self, command: str, **params: Any) -> tuple[int, str]:
        """Code and text of the refusal; AssertionError when it is none."""
        try:
            told = self.call(command, **params)
        except mi.MiError as err:
            return err.code, str(err).rpartition(": ")[2]
        raise AssertionError(f"{command} said {told!r}")

    def reload(self, command: str, **params: Any) -> Any:
        """A reload of tables, with the reading that db_text needs first."""
        if self.database == "text":
            assert self.call("dbt_reload") == "OK"
        return self.call(command, **params)

    def phone(self) -> Phone:
        return Phone(self.sip, through_proxy=True)
