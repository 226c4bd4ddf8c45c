"""A minion of our own with an OpenSIPS beside it: the twin, or the real one where it is."""

import grp
import os
import pwd
import shutil
import sys

import pytest
import yaml

from tests.functional.minion import Minion
from tests.support import real_opensips
from tests.support.loading import REPOSITORY, load
from tests.support.ports import free_ports

TWINS = REPOSITORY / "lab" / "twins"


def binary(flavour, root):
    """A program that is called as opensips; its name tells `voice` what is installed here."""
    program = root / "bin" / "opensips"
    program.parent.mkdir()
    real = shutil.which("opensips")
    command = real if flavour == "real" else f"{sys.executable} {TWINS}/opensips/daemon.py"
    paths = f"{TWINS}/common:{TWINS}/opensips"
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH={paths} PYTHONDONTWRITEBYTECODE=1\nexec {command} "$@"\n'
    )
    program.chmod(0o755)
    return program


class Node(Minion):
    """A proxy: its Salt caller, its pillar context and its daemon."""

    component = "opensips"

    def __init__(self, root, flavour):
        program, run = binary(flavour, root), root / "run"
        run.mkdir()
        self.pidfile = run / "opensips.pid"
        self.source = self._templates(root)
        conf = root / "conf"
        command = [str(program), "-F", "-f", f"{conf}/opensips.cfg", "-P", str(self.pidfile)]
        command += ["-m", "256", "-M", "16"]  # as its unit takes them from /etc/default
        super().__init__(
            root,
            "sip-01.lab-local",
            command,
            self.pidfile,
            conf_dir=str(conf),
            state_dir=str(root / "voice"),
            mi_socket=str(run / "opensips_mi.sock"),
            var_dir=str(root / "var"),
            pidfile=str(self.pidfile),
            user=pwd.getpwuid(os.geteuid()).pw_name,
            group=grp.getgrgid(os.getegid()).gr_name,
            binary=str(program),
            system_root=str(root / "system"),
        )
        port = free_ports()
        self.context = yaml.safe_load((REPOSITORY / "salt/opensips/defaults.yaml").read_text())
        self.context.update(
            node={"id": "sip-01.lab-local", "name": "sip-01", "address": "127.0.0.1"},
            sockets=[{"proto": "udp", "address": "127.0.0.1", "port": port}],
            trusted=["127.0.0.1"],
            dispatcher={"1": [self.destination(1), self.destination(2)]},
            memory={"shared": 64, "private": 4},
        )
        if flavour == "real":
            self.context["module_path"] = real_opensips.modules()

    @staticmethod
    def destination(number):
        """A PBX of this number; nobody listens there."""
        return {"node": f"pbx-{number:02}", "uri": f"sip:127.0.0.1:{number}", "weight": 1}

    @staticmethod
    def _templates(root):
        """Our templates with this node's paths in place of the system's."""
        target = root / "templates"
        shutil.copytree(REPOSITORY / "salt" / "opensips" / "files", target)
        for file in (path for path in target.rglob("*") if path.is_file()):
            text = file.read_text().replace("/etc/opensips", str(root / "conf"))
            text = text.replace("/run/opensips/", f"{root}/run/")
            file.write_text(text.replace("/var/lib/opensips", f"{root}/var"))
        return target

    def configured(self, context=None, test=False):
        return self.state(
            "configured", test, name=str(self.conf), source=str(self.source),
            context=context or self.context,
        )  # fmt: skip

    def taken(self):
        """The action by which its database takes over a table of the tree."""
        return "sync" if (self.root / "var" / "opensips.sqlite").exists() else "dbt_reload"

    def pid(self):
        return int(self.pidfile.read_text())

    def states(self):
        """{node: state} of set 1."""
        return {row["node"]: row["state"] for row in self.call("dispatcher_list")["1"]}

    def mi(self, command, params=None):
        """What a person does who talks to the daemon without Salt."""
        return load("_utils/mi.py").call(
            command, params, socket=f"{self.root}/run/opensips_mi.sock"
        )

    def voice(self, function, *arguments):
        return self.caller.cmd(f"voice.{function}", *arguments)


def flavours():
    """What a test runs against: the twin, and the real daemon where it is on PATH."""
    found = [pytest.param("twin", id="twin")]
    if shutil.which("opensips"):
        found.append(pytest.param("real", id="real", marks=pytest.mark.real))
    return found


@pytest.fixture(params=flavours())
def flavour(request):
    return request.param


@pytest.fixture(params=flavours())
def node(request, tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("the trial boot needs a network of its own, hence root")
    made = Node(tmp_path, request.param)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield made
    made.close()


@pytest.fixture
def up(node):
    """A proxy configured and running."""
    assert node.configured()["result"] is True
    answer = node.running()
    assert answer["result"] is True, answer["comment"]
    return node
