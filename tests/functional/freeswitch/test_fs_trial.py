"""What would not start is not written: the trial boot before every start and restart."""

import os
import subprocess
import tempfile
import time

import coverage
import pytest

from tests.support.loading import REPOSITORY, load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")


@pytest.fixture(autouse=True)
def _measured(monkeypatch):
    """The trial is a process of its own; where lines are counted, its are."""
    if coverage.Coverage.current():
        monkeypatch.setenv("COVERAGE_PROCESS_START", str(REPOSITORY / "setup.cfg"))


def test_what_does_not_come_up_is_refused_before_the_swap(up):
    """An address that no socket can have: well-formed, and the profile never runs."""
    before = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    uuid = up.call("status")["core_uuid"]
    up.call("pause")  # out of service: a restart is allowed
    context = up.changed()
    context["modules"] = [*context["modules"], "mod_that_is_not_there"]
    context["rtp"]["start_port"] = 20000
    answer = up.configured(context)
    assert answer["result"] is False
    assert "refused, nothing changed: trial boot: " in answer["comment"]
    assert "without mod_that_is_not_there" in answer["comment"]
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == before
    assert up.call("status")["core_uuid"] == uuid
    assert not list(up.root.glob(".conf.staged*"))


def test_trial_reaches_nobody_and_leaves_nothing(up):
    """Its sockets are the same as those of the daemon that runs, in another network."""
    mounts = subprocess.run(["mount"], capture_output=True, text=True).stdout
    assert up.call("config_check") == {"result": True, "problems": []}
    assert subprocess.run(["mount"], capture_output=True, text=True).stdout == mounts
    assert up.call("ready") is True
    assert len(up.service_log()) == 2, "reloaded units and started once"


def test_first_start_is_rehearsed_too(node):
    context = node.changed()
    context["modules"] = [*context["modules"], "mod_that_is_not_there"]
    answer = node.configured(context)
    assert answer["result"] is False
    assert "mod_that_is_not_there" in answer["comment"]
    assert not node.conf.exists()


def test_reload_is_not_rehearsed(up):
    """A gateway edit takes no boot; its reload is verified against what runs."""
    (up.root / "freeswitch-binary").write_text("#!/bin/sh\nexit 1\n")
    answer = up.configured(up.changed(max_sessions=2000))
    assert answer["result"] is True, answer["comment"]


SOCKET = {"host": "127.0.0.1", "port": 9, "password": "canary-8F3K"}
LOOPBACK = "192.0.2.77"


@pytest.fixture
def trial():
    return load("_utils/fs_trial.py")


@pytest.fixture
def boot(trial, tmp_path, monkeypatch):
    """A function that has a script booted; what the trial keeps is below ``trials``."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "trials"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "trials").mkdir()
    (tmp_path / "conf").mkdir()

    def run(script, addresses=(), mode=0o755, modules=("mod_x",)):
        binary = tmp_path / "freeswitch"
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(mode)
        conf = str(tmp_path / "conf")
        problems = trial.boot(str(binary), conf, list(addresses), ["internal"], modules, SOCKET)
        assert all("\n" not in problem and "canary" not in problem for problem in problems)
        assert list((tmp_path / "trials").iterdir()) == [], "nothing is left of it"
        return problems

    return run


def addresses():
    return subprocess.run(["ip", "-o", "address"], capture_output=True, text=True).stdout


def test_no_binary_no_trial(trial, tmp_path):
    assert trial.boot(str(tmp_path / "absent"), "/nowhere", [], ["internal"], [], SOCKET) == []


def test_trial_has_the_nodes_addresses_and_no_others(boot, tmp_path):
    before = addresses()
    problems = boot(f"ip -o address > {tmp_path}/seen; ip -o link > {tmp_path}/links", [LOOPBACK])
    assert problems == ["trial boot: it ended without its event socket"]
    seen = (tmp_path / "seen").read_text()
    assert f" {LOOPBACK}/32 " in seen
    assert "127.0.0.1/8" in seen
    assert len((tmp_path / "links").read_text().splitlines()) == 1, "lo and no more"
    assert addresses() == before
    assert LOOPBACK not in before


def test_trial_keeps_its_directories_to_itself(boot, tmp_path):
    """In memory, and gone with it."""
    boot(
        f'echo "$@" > {tmp_path}/seen; exec > {tmp_path}/kinds\n'
        'for one; do test -d "$one/../log" && touch "$one/left" && stat -f -c %T "$one"; done'
    )
    assert (tmp_path / "kinds").read_text().split() == ["tmpfs"] * 7
    *_, conf = (tmp_path / "seen").read_text().partition("-conf ")
    given = conf.split()
    assert given[0] == str(tmp_path / "conf")
    names = ("log", "db", "run", "storage", "cache", "temp", "recordings")
    assert given[1::2] == [f"-{name}" for name in names]
    assert all(path.startswith(f"{tmp_path}/trials/freeswitch-trial.") for path in given[2::2])


def test_what_it_complained_of_is_told_once(boot):
    """From its console while there is no log, from its log when there is."""
    said = "echo '10:00 [ERR] mod_sofia.c:1 cannot bind'; echo '10:01 [NOTICE] fine'"
    ended = "trial boot: it ended without its event socket"
    assert boot(f"{said}; {said}; exit 1") == [ended, "mod_sofia.c:1 cannot bind"]
    log = """
        while [ "$1" != -log ]; do shift; done
        for n in 1 2 3 4 5; do echo "10:00 [CRIT] trouble $n" >> "$2/freeswitch.log"; done"""
    assert boot(f"{said}{log}") == [ended, "trouble 1", "trouble 2", "trouble 3"]


def test_trial_that_hangs_is_given_up_with_all_it_started(boot, trial, tmp_path, monkeypatch):
    """The pipe it holds comes to its end only when the last of its processes has."""
    monkeypatch.setattr(trial, "PATIENCE", 4)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        before = time.monotonic()
        problems = boot(f"exec > {tmp_path}/pipe; echo started; sleep 600 & exec sleep 600")
        assert problems == ["trial boot: no answer within 4 s; try it again when the node is idle"]
        os.set_blocking(reader, True)
        said = b""
        while data := os.read(reader, 100):
            said += data
        assert said == b"started\n"
        assert time.monotonic() - before < 15, "the trial itself would have gone on"
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"addresses": ["no-address"]}, "`ip address replace no-address/32 dev lo` failed"),
        ({"mode": 0o644}, "/freeswitch: Permission denied"),
    ],
    ids=["address", "mode"],
)
def test_trial_that_cannot_be_made_says_why(boot, arguments, told):
    (problem,) = boot("exit 0", **arguments)
    assert problem.startswith("trial boot: could not be made (")
    assert told in problem
    assert problem.endswith("; it needs root and a network of its own")


@pytest.mark.parametrize("said", [None, "echo oops; exit 1", "exit 1", "echo '[1'"])
def test_node_that_has_no_namespaces(boot, tmp_path, monkeypatch, said):
    """No `unshare`, or one that is not allowed to."""
    (tmp_path / "bin").mkdir()
    if said:
        (tmp_path / "bin" / "unshare").write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / "bin" / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert boot("exit 0") == [
        "trial boot: could not be made; it needs root and unshare of util-linux"
    ]
