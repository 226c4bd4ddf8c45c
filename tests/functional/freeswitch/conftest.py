"""A minion of our own with a FreeSWITCH beside it: the twin, or the real one where it is."""

import contextlib
import copy
import grp
import os
import pwd
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import salt.client
import salt.config
import yaml

HERE = Path(__file__).parent
REPO = HERE.parents[2]
TWIN = REPO / "lab" / "twins" / "freeswitch" / "daemon.py"


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def daemon_command(flavour, root):
    directories = ("conf", "log", "db", "run", "storage", "cache", "temp", "certs", "scripts")
    where = []
    for name in directories:
        path = root / name
        if name != "conf":
            path.mkdir(exist_ok=True)
        where += [f"-{name}", str(path)]
    if flavour == "twin":
        shared = f"PYTHONPATH={TWIN.parent.parent / 'common'}"
        return ["env", shared, sys.executable, str(TWIN), "-nonat", "-nc", "-nf", *where]
    return [shutil.which("freeswitch"), "-nonat", "-nc", "-nf", *where]


class Node:
    """One node: its Salt caller, its pillar context and its daemon."""

    def __init__(self, root, flavour):
        self.root = root
        self.conf = root / "conf"
        opts = salt.config.DEFAULT_MINION_OPTS.copy()
        opts.update(
            {
                "id": "pbx-01.lab-local",
                "root_dir": str(root),
                "cachedir": str(root / "cache-salt"),
                "pki_dir": str(root / "pki"),
                "sock_dir": str(root / "sock"),
                "log_file": str(root / "salt.log"),
                "conf_file": str(root / "minion"),
                "extension_modules": str(root / "extmods"),
                "file_client": "local",
                "file_roots": {"base": [str(REPO / "salt"), str(root / "files")]},
                "pillar_roots": {"base": [str(root / "pillar")]},
                "module_dirs": [str(REPO), str(HERE / "stubs")],
                "grains": {},
                "log_level": "error",
                "state_verbose": False,
                "freeswitch.conf_dir": str(self.conf),
                "freeswitch.state_dir": str(root / "voice"),
                "voice.state_dir": str(root / "voice"),
                "freeswitch.pidfile": str(root / "run" / "freeswitch.pid"),
                "freeswitch.user": pwd.getpwuid(os.geteuid()).pw_name,
                "freeswitch.group": grp.getgrgid(os.getegid()).gr_name,
                "freeswitch.system_root": str(root / "system"),
                "test.daemon": daemon_command(flavour, root),
            }
        )
        self.caller = salt.client.Caller(mopts=opts)
        self.context = yaml.safe_load((REPO / "salt/freeswitch/defaults.yaml").read_text())
        self.context.update(
            node={"id": opts["id"], "name": "pbx-01", "address": "127.0.0.1"},
            fleet={"sip-01": {"role": "sip", "address": "127.0.0.1"}},
            esl_password="functional-not-a-secret",
            event_socket={"port": free_port(socket.SOCK_STREAM)},
        )
        self.context["dialplan"]["public"] = [
            {
                "name": "answer",
                "expression": "^.+$",
                "actions": [{"application": "answer"}, {"application": "echo"}],
            }
        ]
        for profile in self.context["profiles"].values():
            profile["port"] = free_port(socket.SOCK_DGRAM)

    def changed(self, **keys):
        """Return the context with some dotted keys replaced."""
        context = copy.deepcopy(self.context)
        for dotted, value in keys.items():
            at = context
            *path, last = dotted.split("__")
            for key in path:
                at = at.setdefault(key, {})
            at[last] = value
        return context

    def configured(self, context=None, test=False):
        return self.state("configured", test, name=str(self.conf), context=context or self.context)

    def running(self, test=False):
        return self.state("running", test, name="freeswitch")

    def state(self, which, test, **arguments):
        given = self.caller.cmd("state.single", f"freeswitch.{which}", test=test, **arguments)
        assert isinstance(given, dict), given
        (ret,) = given.values()
        return ret

    def call(self, function, *arguments, **keywords):
        return self.caller.cmd(f"freeswitch.{function}", *arguments, **keywords)

    def service_log(self):
        log = self.root / "service.log"
        return log.read_text().split() if log.exists() else []

    def close(self):
        try:
            pid = int((self.root / "run" / "freeswitch.pid").read_text())
            os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def flavours():
    found = [pytest.param("twin", id="twin")]
    if shutil.which("freeswitch"):
        found.append(pytest.param("real", id="real", marks=pytest.mark.real))
    return found


@pytest.fixture(params=flavours())
def node(request, tmp_path, monkeypatch):
    (tmp_path / "pillar").mkdir()
    installed = tmp_path / "bin" / "freeswitch"  # what tells `voice` which daemon is here
    installed.parent.mkdir()
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{installed.parent}")
    made = Node(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def up(node):
    """A node configured and running."""
    assert node.configured()["result"] is True
    answer = node.running()
    assert answer["result"] is True, answer["comment"]
    return node
