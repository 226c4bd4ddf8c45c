"""A minion of our own with PHP workers beside it, and calls that FreeSWITCH would hand to them."""

import contextlib
import http.server
import os
import shutil
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import jinja2
import salt.client
import salt.config

from tests.support.loading import REPOSITORY
from tests.support.ports import free_ports

HERE = Path(__file__).parent
SHIPPED = REPOSITORY / "salt/fsx/files/worker/worker.php"
UNIT = REPOSITORY / "salt/fsx/files/fsx-worker@.service.jinja"


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def application(say, entry="worker.php", **others):
    """The shipped worker, with a class it loads only when the caller has hung up."""
    last = "    $channel->await('text/disconnect-notice');\n"
    code = SHIPPED.read_text()
    assert last in code
    code = code.replace(last, f"{last}    $channel->ask('log ' . Farewell::words());\n").replace(
        "/** The channel has gone,",
        'spl_autoload_register(fn (string $name) => require __DIR__ . "/src/$name.php");\n\n'
        "/** The channel has gone,",
        1,
    )
    base = entry.rpartition("/")[0]
    farewell = f"""<?php
final class Farewell
{{
    public static function words(): string
    {{
        return '{say} ' . basename(dirname(__DIR__)) . ' ' . basename((string) getcwd());
    }}
}}
"""
    return {entry: code, f"{base}/src/Farewell.php".lstrip("/"): farewell, **others}


class Call:
    """FreeSWITCH's side of one call: the worker's commands, each answered with +OK."""

    def __init__(self, port):
        self._link = socket.create_connection(("127.0.0.1", port), 10)
        self._stream = self._link.makefile("rb")

    def command(self):
        """The next command of the worker, in one line; empty when it has closed."""
        lines = []
        while (line := self._stream.readline().decode()) not in ("", "\n"):
            lines.append(line.strip())
        if lines:
            self.send("Content-Type: command/reply", "Reply-Text: +OK")
        return " ".join(lines)

    def send(self, *lines):
        self._link.sendall("\n".join((*lines, "", "")).encode())

    def answered(self):
        """Read on until the worker has the caller hear himself."""
        while "echo" not in (command := self.command()):
            assert command, "the worker closed the connection"
        return self

    def hang_up(self):
        """End the call; return what the worker said after it."""
        self.send("Content-Type: text/disconnect-notice", "Content-Disposition: linger")
        said = self.command()
        self.close()
        return said

    def close(self):
        self._stream.close()
        self._link.close()


class Node:
    """An fsx node: its Salt caller, its releases, its workers."""

    def __init__(self, root, **options):
        self.root, self.directory = root, root / "srv"
        self.releases = self.directory / "releases"
        self.files, self.units = root / "files", root / "units"
        for directory in (self.files, self.units):
            directory.mkdir()
        first = free_ports(2)
        self.ports = [first, first + 1]
        (root / "pillar").mkdir()
        (root / "pillar/top.sls").write_text("base: {'*': [fsx]}\n")
        (root / "pillar/fsx.sls").write_text(f"fsx: {{ports: {self.ports}}}\n")
        opts = salt.config.DEFAULT_MINION_OPTS.copy()
        opts.update(
            {
                "id": "fsx-01.lab-local",
                "root_dir": str(root),
                "cachedir": str(root / "cache"),
                "pki_dir": str(root / "pki"),
                "sock_dir": str(root / "sock"),
                "conf_file": str(root / "minion"),
                "extension_modules": str(root / "extmods"),
                "file_client": "local",
                "file_roots": {"base": [str(self.files), str(REPOSITORY / "salt")]},
                "pillar_roots": {"base": [str(root / "pillar")]},
                "module_dirs": [str(REPOSITORY), str(HERE / "stubs")],
                "grains": {},
                "log_level": "error",
                # A list of files that is a moment old would miss what a test has just put there.
                "fileserver_list_cache_time": 0,
                "voice.state_dir": str(root / "voice"),
                "fsx.group": "root",
                "fsx.start_seconds": 3.0,
                "test.units": str(self.units),
                "test.supervisor": str(HERE / "fsx_supervisor.py"),
                **options,
            }
        )
        self.caller = salt.client.Caller(mopts=opts)

    def trust(self, certificate):
        """Take servers for genuine that show this certificate, None for the system's own."""
        self.caller.sminion.opts["ca_bundle"] = certificate

    def application(self, files, name="app"):
        """Put an application on the fileserver; return its source."""
        shutil.rmtree(self.files / name, ignore_errors=True)
        for path, text in files.items():
            file = self.files / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return f"salt://{name}"

    def deployed(self, source, test=False, **arguments):
        arguments = {"ports": self.ports, "patience": 5, **arguments}
        given = self.caller.cmd(
            "state.single", "fsx.deployed", name=str(self.directory), source=source, test=test,
            **arguments,
        )  # fmt: skip
        assert isinstance(given, dict), given
        (ret,) = given.values()
        assert "Traceback" not in ret["comment"]
        assert "\n" not in ret["comment"]
        return ret

    def live(self):
        link = self.directory / "current"
        return link.readlink().name if link.is_symlink() else None

    def on_disk(self):
        return {path.name for path in self.releases.iterdir()} if self.releases.is_dir() else set()

    def call(self, function, *arguments, **keywords):
        return self.caller.cmd(
            f"fsx.{function}", *arguments, directory=str(self.directory), **keywords
        )

    def workers(self):
        return {worker["port"]: worker for worker in self.call("workers", self.ports)}

    def write_unit(self, entry):
        template = jinja2.Template(UNIT.read_text(), undefined=jinja2.StrictUndefined)
        unit = template.render(directory=self.directory, entry=entry, drain_seconds=5)
        (self.units / "unit").write_text(unit)

    def start_workers(self, entry="worker.php"):
        self.write_unit(entry)
        for port in self.ports:
            assert self.caller.cmd("service.start", f"fsx-worker@{port}")
        until(lambda: all(worker["listening"] for worker in self.workers().values()))

    def reloads(self):
        """The ports whose workers were asked to leave, in order."""
        file = self.units / "reloads"
        names = file.read_text().split() if file.exists() else []
        return [int(name.partition("@")[2]) for name in names]

    def stop_workers(self, *ports):
        """End these workers with all their calls, whose processes outlive a worker."""
        for port in ports:
            file = self.units / f"fsx-worker@{port}.supervisor"
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ChildProcessError):
                pid = int(file.read_text())
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                (self.units / f"fsx-worker@{port}.pid").unlink()


class Https:
    """A web server with a certificate that `node` trusts; `asked` is what it was asked for."""

    def __init__(self, directory, certificate):
        self.asked = asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=directory)

            def log_message(self, *_):
                asked.append(self.path)

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, file):
        return f"https://127.0.0.1:{self._server.server_port}/{file.name}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
