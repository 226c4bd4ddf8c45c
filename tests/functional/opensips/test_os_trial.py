"""The trial boot: what it has, what it must not reach, and what it says when it cannot be made."""

import json
import os
import subprocess
import tempfile

import coverage
import pytest

from tests.support.loading import REPOSITORY, load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")

TREE = {
    "opensips.cfg": 'include_file "conf.d/40-db.cfg"\n',
    "conf.d/40-db.cfg": 'modparam("usrloc", "db_url", "mysql://sip:canary-8F3K@db.example/o")\n',
    "runtime/location": "contact_id(long,auto) username(string)\n",
    "runtime/version": "table_name(string) table_version(int)\nlocation:1013\n",
}
# A daemon of a few lines: answers every question on its management socket.
ANSWERS = """
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.bind(sys.argv[1])
while True:
    asked, who = link.recvfrom(65536)
    told = {"jsonrpc": "2.0", "result": {}, "id": json.loads(asked)["id"]}
    link.sendto(json.dumps(told).encode(), who)
"""


@pytest.fixture(autouse=True)
def _measured(monkeypatch):
    """The trial is a process of its own; where lines are counted, its are."""
    if coverage.Coverage.current():
        monkeypatch.setenv("COVERAGE_PROCESS_START", str(REPOSITORY / "setup.cfg"))


@pytest.fixture
def trial():
    return load("_utils/opensips_trial.py")


@pytest.fixture
def tree(tmp_path):
    """A staged tree; where it will live there is nothing yet."""
    staged = tmp_path / ".conf.staged"
    for name, text in TREE.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_text(text)
    (tmp_path / "answers.py").write_text(ANSWERS)
    return staged


@pytest.fixture
def boot(trial, tree, tmp_path, monkeypatch):
    """A function that has a script booted in place of OpenSIPS; nothing may be left of it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "trials"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "trials").mkdir()
    there = {"live": tmp_path / "conf", "run": tmp_path / "run", "var": tmp_path / "var"}

    def run(script, memory=None):
        binary = tmp_path / "opensips"
        binary.write_text(f"#!/bin/sh\n{script}\n")
        binary.chmod(0o755)
        before = {path: path.read_text() for path in tree.rglob("*") if path.is_file()}
        places = {name: str(path) for name, path in there.items()}
        try:
            return trial.boot(
                str(binary), str(tree), memory, **places, mi_socket=f"{places['run']}/mi.sock"
            )
        finally:
            assert {p: p.read_text() for p in tree.rglob("*") if p.is_file()} == before
            assert list((tmp_path / "trials").iterdir()) == []
            assert not any(path.exists() for path in there.values()), "made for the trial only"

    return run


def up(tmp_path):
    return f"exec python3 {tmp_path}/answers.py {tmp_path}/run/mi.sock"


def test_one_that_answers_is_up(boot, tmp_path):
    assert boot(f"echo fine >&2; {up(tmp_path)}") == (True, "fine\n")


def test_one_that_ends_is_not_and_its_words_are_told(boot):
    assert boot("echo ERROR:core:x: no such thing; exit 255") == (
        False,
        "ERROR:core:x: no such thing\n",
    )


def test_one_that_never_answers_is_given_up(boot, trial, monkeypatch):
    monkeypatch.setattr(trial, "PATIENCE", 1.0)
    good, said = boot("exec sleep 60")
    assert (good, said) == (False, "ERROR:core:boot: neither up nor ended within 1 s")


def test_it_sees_the_tree_where_it_will_live_and_no_database_but_its_own(boot, tmp_path):
    script = f"cat {tmp_path}/conf/conf.d/40-db.cfg; ls {tmp_path}/var/dbtext; exit 1"
    _, said = boot(script)
    assert "canary" not in said
    assert f'"text://{tmp_path}/var/dbtext"' in said
    assert said.split()[-2:] == ["location", "version"]


def test_sqlite_has_every_table(boot, tree, tmp_path):
    local = f'modparam("dispatcher", "db_url", "sqlite://{tmp_path}/var/opensips.sqlite")\n'
    with (tree / "conf.d/40-db.cfg").open("a") as file:
        file.write(local)
    (tree.parent / "asks.py").write_text(
        "import sqlite3, sys\n"
        "rows = sqlite3.connect(sys.argv[1]).execute('SELECT * FROM version')\n"
        "print(rows.fetchall())\n"
    )
    _, said = boot(
        f"python3 {tmp_path}/asks.py {tmp_path}/var/opensips.sqlite; cat {tmp_path}/conf/conf.d/*"
    )
    assert "[('location', 1013)]" in said
    assert said.count(f'"sqlite://{tmp_path}/var/opensips.sqlite"') == 2


def test_it_has_this_hosts_addresses_on_lo_and_no_way_out(boot):
    own = json.loads(subprocess.run(["ip", "-j", "-4", "address"], capture_output=True).stdout)
    _, said = boot("ip -o -4 address; ip -o link; ip route; exit 1")
    for link in own:
        for info in link["addr_info"]:
            assert f" {info['local']}/" in said
    assert {line.split()[1] for line in said.splitlines()} <= {"lo", "lo:"}


def test_it_gets_the_memory_of_a_start(boot):
    _, said = boot('echo "$@"; exit 1', {"shared": 64, "private": 4})
    assert said.startswith("-F ")
    assert "-m 64 -M 4" in said


def test_check_tells_verdict_and_words(trial, tmp_path):
    binary = tmp_path / "opensips"
    binary.write_text('#!/bin/sh\necho "$@"; echo no >&2; exit 255\n')
    binary.chmod(0o755)
    good, said = trial.check(str(binary), "/etc/x", {"shared": 8})
    assert not good
    assert "-C -f /etc/x/opensips.cfg -m 8" in said
    assert said.endswith("no\n")


def test_check_that_hangs_is_given_up(trial, tmp_path, monkeypatch):
    binary = tmp_path / "opensips"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    monkeypatch.setattr(trial, "CHECK_SECONDS", 0.5)
    assert trial.check(str(binary), "/etc/x") == (
        False,
        "ERROR:core:check: no verdict within 0.5 s",
    )


def test_daemon_that_cannot_be_run_is_no_verdict_on_the_tree(trial, tree, tmp_path):
    places = {name: str(tmp_path / name) for name in ("live", "run", "var")}
    with pytest.raises(OSError, match="trial boot: could not be made"):
        trial.boot(str(tmp_path / "absent"), str(tree), **places, mi_socket="/nowhere")


def test_without_namespaces_it_is_told(trial, tmp_path, monkeypatch):
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "ip").write_text("#!/bin/sh\necho '[]'\n")
    (bare / "unshare").write_text("#!/bin/sh\nexit 1\n")
    for tool in bare.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bare}:/nowhere")
    places = {name: str(tmp_path / name) for name in ("live", "run", "var")}
    with pytest.raises(OSError, match=r"no answer from its namespaces.*needs root and util-linux"):
        trial.boot("/bin/true", str(tmp_path), **places, mi_socket="/nowhere")
    (bare / "ip").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(OSError, match="could not be made"):
        trial.boot("/bin/true", str(tmp_path), **places, mi_socket="/nowhere")
