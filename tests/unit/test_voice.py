"""Whether a node may be disturbed: when in doubt it may not."""

import json

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.loading import load

UP = {"running": True, "responding": True, "error": ""}
HUNG = {"running": True, "responding": False, "error": "no answer", "calls": None}
DOWN = {"running": False, "responding": False, "error": "opensips is not running", "calls": 0}
PBX = {**UP, "paused": True, "calls": 0, "channels": 0, "sessions": 0, "max_sessions": 9}
SIP = {**UP, "draining": True, "calls": 0, "transactions": 0}


class Node:
    """A node of a role whose daemon says what the test wants, with the real module on top."""

    def __init__(self, directory, role, status, installed=True):
        self.directory, self.status, self.done = directory, status, []
        daemon = {"sip": "opensips"}.get(role, "freeswitch")
        self.voice = load(
            "_modules/voice.py",
            __opts__={"id": f"{role}-01.lab-local", "voice.state_dir": str(directory)},
            __salt__={
                "cmd.which": lambda name: f"/usr/bin/{name}" if installed else None,
                f"{daemon}.status": lambda: self.status,
                "freeswitch.pause": lambda direction: self.switch("paused", True),
                "freeswitch.resume": lambda direction: self.switch("paused", False),
                "freeswitch.calls_list": lambda: [
                    {"uuid": uuid, "created": created, "to": "1000", "from": "secret"}
                    for uuid, created in (("young", 20), ("old", 10))
                ],
                "opensips.set_draining": lambda wanted: self.switch("draining", wanted),
            },
            __utils__={
                "staged.write_file": load("_utils/staged.py").write_file,
                "nodelock.hold": load("_utils/nodelock.py").hold,
            },
        )

    def switch(self, key, value):
        self.done.append(value)
        self.status = {**self.status, key: value}


@pytest.mark.parametrize(
    ("role", "status", "state"),
    [
        ("pbx", PBX, "out_of_service"),
        ("pbx", {**PBX, "paused": False}, "in_service"),
        ("pbx", {**PBX, "channels": 1}, "draining"),
        ("pbx", {**PBX, "sessions": 1}, "draining"),
        ("pbx", HUNG, "in_service"),
        ("pbx", DOWN, "out_of_service"),
        ("fsx", {**PBX, "paused": False}, "in_service"),
        ("sip", SIP, "out_of_service"),
        ("sip", {**SIP, "draining": False}, "in_service"),
        ("sip", {**SIP, "transactions": 1}, "draining"),
        ("sip", {**SIP, "calls": 7}, "out_of_service"),
        ("sip", HUNG, "in_service"),
        ("web", PBX, "out_of_service"),
    ],
)
def test_verdict(tmp_path, role, status, state):
    verdict = Node(tmp_path, role, status).voice.in_service()
    assert verdict["state"] == state
    assert verdict["why"]


def test_nothing_installed_yet_is_out_of_service(tmp_path):
    node = Node(tmp_path, "pbx", PBX, installed=False)
    assert node.voice.in_service()["state"] == "out_of_service"
    with pytest.raises(CommandExecutionError, match="apply the node's states first"):
        node.voice.drain()


@pytest.mark.parametrize(
    ("role", "status", "key"), [("pbx", PBX, "paused"), ("sip", SIP, "draining")]
)
def test_drain_leaves_a_mark_that_undrain_removes(tmp_path, role, status, key):
    node = Node(tmp_path, role, {**status, key: False})
    assert node.voice.drain(by="run 7") == {"drained": True, "calls": 0, "stuck": []}
    assert node.voice.drained_mark()["by"] == "run 7"
    node.voice.drain(by="another")
    assert node.voice.drained_mark()["by"] == "run 7", "who was first must put it back"
    assert node.voice.undrain()["after"] == "in_service"
    assert node.voice.drained_mark() is None


def test_drain_names_the_calls_that_stay_oldest_first(tmp_path):
    node = Node(tmp_path, "pbx", {**PBX, "paused": False, "channels": 2, "calls": 1})
    told = node.voice.drain()
    assert not told["drained"]
    assert [call["uuid"] for call in told["stuck"]] == ["old", "young"]
    assert "from" not in told["stuck"][0]


def test_daemon_that_is_down_is_marked_all_the_same(tmp_path):
    """Its next start must come up paused."""
    node = Node(tmp_path, "pbx", DOWN)
    assert node.voice.drain()["drained"]
    assert node.voice.drained_mark() is not None
    assert node.done == []
    with pytest.raises(CommandExecutionError, match=r"does not run; `state\.apply` starts it"):
        node.voice.undrain()
    assert node.voice.drained_mark() is not None


def test_undrain_that_has_no_effect_keeps_the_mark(tmp_path):
    node = Node(tmp_path, "pbx", PBX)
    node.voice.drain()
    node.switch = lambda key, value: None
    with pytest.raises(CommandExecutionError, match="still out_of_service"):
        node.voice.undrain()
    assert node.voice.drained_mark() is not None


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_mark_that_cannot_be_read_still_means_drained(tmp_path, content):
    node = Node(tmp_path, "pbx", PBX)
    (tmp_path / "drained.json").write_text(content)
    assert node.voice.drained_mark()["by"].startswith("unknown")


def test_peers_are_withdrawn_on_proxies_only(tmp_path):
    with pytest.raises(CommandExecutionError, match="only a node of role sip"):
        Node(tmp_path, "pbx", PBX).voice.withdraw("pbx-02.lab-local")


def test_capacity_is_the_daemons_own_word(tmp_path):
    assert Node(tmp_path, "pbx", PBX).voice.capacity() == {"calls": 9}
    assert Node(tmp_path, "sip", SIP).voice.capacity() == {"calls": None}


def test_mark_is_whole_json(tmp_path):
    node = Node(tmp_path, "pbx", PBX)
    node.voice.drain(by='"quoted"\n')
    assert json.loads((tmp_path / "drained.json").read_text())["by"] == '"quoted"\n'


class Packages:
    """A package manager in memory and the daemon's unit."""

    def __init__(self, installed="", held=False, appears="2.0"):
        self.version, self.held, self.appears, self.done = installed, held, appears, []

    def functions(self):
        return {
            "pkg.version": lambda name: self.version,
            "pkg.get_selections": lambda name, state: {"hold": [name]} if self.held else {},
            "pkg.install": self.install,
            "pkg.hold": lambda name: self.hold(True),
            "pkg.unhold": lambda name: self.hold(False),
            "service.mask": lambda name, runtime: self.done.append("mask"),
            "service.unmask": lambda name, runtime: self.done.append("unmask"),
        }

    def install(self, name, refresh, version=""):
        assert not self.held, "apt refuses to change what is held"
        self.done.append("install")
        self.version = version or self.appears

    def hold(self, wanted):
        self.held = wanted
        self.done.append("hold" if wanted else "unhold")


def installing(tmp_path, packages, status=DOWN, **arguments):
    node = Node(tmp_path, "sip", status)
    node.voice.__salt__.update(packages.functions())
    disruption = load("_utils/disruption.py")
    for name in ("allowed", "refusal"):
        node.voice.__utils__[f"disruption.{name}"] = getattr(disruption, name)
    return node.voice.install_package("opensips", "opensips", **arguments)


def test_package_comes_without_a_first_start_and_is_held(tmp_path):
    packages = Packages()
    predicted = installing(tmp_path, packages, test=True)
    assert (predicted["result"], packages.done) == (None, [])
    done = installing(tmp_path, packages)
    assert done["comment"] == "opensips 2.0 installed"
    assert done["changes"]["package"] == {"old": "", "new": "2.0"}
    assert packages.done == ["mask", "install", "unmask", "hold"]
    again = installing(tmp_path, packages)
    assert again["changes"] == {}
    assert again["comment"] == "opensips 2.0 is installed and held"


def test_other_version_waits_for_a_node_out_of_service(tmp_path):
    packages = Packages("1.0", held=True)
    serving = {**SIP, "draining": False, "calls": 3}
    told = "package opensips 1.0 -> 2.0"
    predicted = installing(tmp_path, packages, serving, version="2.0", test=True)
    assert (predicted["result"], told in predicted["comment"]) == (None, True)
    refused = installing(tmp_path, packages, serving, version="2.0")
    assert (refused["result"], told in refused["comment"]) == (False, True)
    assert packages.done == []
    assert installing(tmp_path, packages, SIP, version="2.0")["result"] is True
    assert packages.done == ["unhold", "install", "hold"]


def test_package_that_is_not_there_afterwards_is_told(tmp_path):
    done = installing(tmp_path, Packages(appears=""))
    assert done["result"] is False
    assert done["comment"] == "opensips is still not installed; see the package manager"


@pytest.mark.parametrize(("role", "registrations"), [("pbx", 7), ("sip", 0)])
def test_load_is_calls_and_registrations(tmp_path, role, registrations):
    node = Node(tmp_path, role, {**(PBX if role == "pbx" else SIP), "calls": 2, "channels": 2})
    node.voice.__salt__["freeswitch.registrations_count"] = lambda: 7
    assert node.voice.load() == {"calls": 2, "registrations": registrations}


def test_mark_that_cannot_be_written_is_one_line(tmp_path):
    """The node is not drained then: whoever drains must know that nobody will know."""
    node = Node(tmp_path, "pbx", {**PBX, "paused": False})

    def full(*_):
        raise OSError(28, "No space left on device")

    node.voice.__utils__["staged.write_file"] = full
    with pytest.raises(CommandExecutionError, match="No space left on device"):
        node.voice.drain()
    assert node.done == []
