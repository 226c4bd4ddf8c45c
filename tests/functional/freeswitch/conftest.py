"""A minion of our own with a FreeSWITCH beside it: the twin, or the real one where it is."""

import grp
import os
import pwd
import shutil
import sys

import pytest
import yaml

from tests.functional.minion import Minion
from tests.support.loading import REPOSITORY
from tests.support.ports import free_ports

TWIN = REPOSITORY / "lab" / "twins" / "freeswitch" / "daemon.py"


DIRECTORIES = ("conf", "log", "db", "run", "storage", "cache", "temp", "certs", "scripts")


def daemon_command(flavour, root):
    where = []
    for name in DIRECTORIES:
        path = root / name
        if name != "conf":
            path.mkdir(exist_ok=True)
        where += [f"-{name}", str(path)]
    if flavour == "twin":
        shared = f"PYTHONPATH={TWIN.parent.parent / 'common'}"
        return ["env", shared, sys.executable, str(TWIN), "-nonat", "-nc", "-nf", *where]
    return [shutil.which("freeswitch"), "-nonat", "-nc", "-nf", *where]


def binary(flavour, root):
    """A command that starts the daemon with whatever arguments it is given."""
    *command, _nonat, _nc, _nf = daemon_command(flavour, root)[: -2 * len(DIRECTORIES)]
    file = root / "freeswitch-binary"
    file.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
    file.chmod(0o755)
    return file


class Node(Minion):
    """A PBX: its Salt caller, its pillar context and its daemon."""

    component = "freeswitch"

    source = "salt://freeswitch/files"

    def __init__(self, root, flavour):
        self.flavour = flavour
        pidfile = root / "run" / "freeswitch.pid"
        super().__init__(
            root,
            "pbx-01.lab-local",
            daemon_command(flavour, root),
            pidfile,
            conf_dir=str(root / "conf"),
            state_dir=str(root / "voice"),
            pidfile=str(pidfile),
            user=pwd.getpwuid(os.geteuid()).pw_name,
            group=grp.getgrgid(os.getegid()).gr_name,
            system_root=str(root / "system"),
            binary=str(binary(flavour, root)),
        )
        self.context = yaml.safe_load((REPOSITORY / "salt/freeswitch/defaults.yaml").read_text())
        self.context.update(
            node={"id": "pbx-01.lab-local", "name": "pbx-01", "zone": "a", "address": "127.0.0.1"},
            fleet={"sip-01": {"role": "sip", "address": "127.0.0.1"}},
            esl_password="functional-not-a-secret",
            event_socket={"port": free_ports()},
            rtp={"start_port": 16384, "end_port": 21998},  # below the ports of `free_ports`
        )
        self.context["dialplan"]["public"] = [
            {
                "name": "answer",
                "expression": "^.+$",
                "actions": [{"application": "answer"}, {"application": "echo"}],
            }
        ]
        for profile in self.context["profiles"].values():
            profile["port"] = free_ports()


def flavours():
    found = [pytest.param("twin", id="twin")]
    if shutil.which("freeswitch"):
        found.append(pytest.param("real", id="real", marks=pytest.mark.real))
    return found


@pytest.fixture
def voice_binary(tmp_path, monkeypatch):
    """What tells `voice` which daemon is here."""
    installed = tmp_path / "bin" / "freeswitch"
    installed.parent.mkdir()
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{installed.parent}")


@pytest.fixture(params=flavours())
def node(request, tmp_path, voice_binary):
    (tmp_path / "pillar").mkdir()
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
