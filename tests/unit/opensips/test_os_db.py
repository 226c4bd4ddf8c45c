"""Salt's tables in the proxy's sqlite, and what a drain writes for the next start."""

import contextlib
import grp
import os
import pwd
import sqlite3

import pytest

from tests.support.loading import load

opensips_db = load("_utils/opensips_db.py")
opensips_standing = load("_utils/opensips_standing.py")
staged = load("_utils/staged.py")

OWN = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
HEAD = b"id(int,auto) setid(int) destination(string) state(int) attrs(string,null)\n"
ONE, TWO = b"1:1:sip\\:10.0.0.1\\:5060:0:pbx-01\n", b"2:1:sip\\:10.0.0.2\\:5060:0:\n"
TREE = {
    "opensips.cfg": b"",
    "dbtext/version": b"table_name(string) table_version(int)\ndispatcher:9\n",
    "dbtext/dispatcher": HEAD + ONE + TWO,
    "runtime/version": b"table_name(string) table_version(int)\nlocation:1013\n",
    "runtime/location": b"contact_id(long,auto) username(string) q(double,null)\n",
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "lib" / "opensips.sqlite"


def sync(file, tree):
    return opensips_db.sync(str(file), tree, **OWN)


def asked(file, query):
    with sqlite3.connect(file) as database:
        return database.execute(query).fetchall()


def with_rows(*rows):
    return {**TREE, "dbtext/dispatcher": HEAD + b"".join(rows)}


def test_tables_are_made_and_filled(file):
    assert sync(file, TREE) == ["dispatcher", "location"]
    assert asked(file, "SELECT * FROM dispatcher") == [
        (1, 1, "sip:10.0.0.1:5060", 0, "pbx-01"),
        (2, 1, "sip:10.0.0.2:5060", 0, None),
    ]
    assert asked(file, "SELECT * FROM version ORDER BY table_name") == [
        ("dispatcher", 9),
        ("location", 1013),
    ]
    assert file.stat().st_mode & 0o777 == 0o660
    assert file.parent.stat().st_mode & 0o777 == 0o770


def test_second_time_nothing_changes(file):
    sync(file, TREE)
    before = file.read_bytes()
    assert sync(file, TREE) == []
    assert file.read_bytes() == before


def test_states_belong_to_the_daemon(file):
    sync(file, TREE)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE dispatcher SET state = 1 WHERE id = 1")
    assert sync(file, TREE) == []
    new = b"3:1:sip\\:10.0.0.3\\:5060:1:\n"
    assert sync(file, with_rows(ONE, TWO, new)) == ["dispatcher"]
    assert asked(file, "SELECT destination, state FROM dispatcher ORDER BY id") == [
        ("sip:10.0.0.1:5060", 1),
        ("sip:10.0.0.2:5060", 0),
        ("sip:10.0.0.3:5060", 1),
    ]
    assert sync(file, with_rows(ONE)) == ["dispatcher"]
    assert asked(file, "SELECT state FROM dispatcher") == [(1,)]


def test_what_calls_wrote_stays(file):
    sync(file, TREE)
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO location (username) VALUES ('alice')")
    sync(file, with_rows(ONE))
    assert asked(file, "SELECT username FROM location") == [("alice",)]


def test_table_of_another_release_is_made_anew(file):
    sync(file, TREE)
    wider = HEAD.replace(b"attrs", b"weight(string) attrs")
    tree = {**TREE, "dbtext/dispatcher": wider + b"1:1:sip\\:10.0.0.1\\:5060:0:7:x\n"}
    assert sync(file, tree) == ["dispatcher"]
    assert asked(file, "SELECT weight, attrs FROM dispatcher") == [("7", "x")]


def test_escapes_are_undone(file):
    row = b"1:1:sip\\:a:0:two\\nlines\\\\ \\:\n"
    sync(file, with_rows(row))
    assert asked(file, "SELECT attrs FROM dispatcher") == [("two\nlines\\ :",)]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("dbtext/dispatcher", HEAD + b"1:1\n", "dbtext/dispatcher:2: 2 fields for 5 columns"),
        ("dbtext/x y", HEAD, "dbtext/x y: not a table of db_text"),
        ("dbtext/address", b"id(int) grp;drop(int)\n", "dbtext/address: not a table of db_text"),
    ],
)
def test_what_is_no_table_is_refused(file, name, content, told):
    with pytest.raises(ValueError, match=told.replace("(", "\\(")):
        sync(file, {**TREE, name: content})


def test_file_that_is_no_database(file):
    file.parent.mkdir()
    file.write_bytes(b"not sqlite at all, but long enough to be looked at" * 30)
    with pytest.raises(OSError, match="move it away, then apply the state again"):
        sync(file, TREE)


def test_file_that_the_daemon_writes_for_too_long_is_left_where_it_is(file, monkeypatch):
    sync(file, TREE)
    monkeypatch.setattr(opensips_db, "BUSY_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as daemon:
        daemon.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match="database is locked; apply the state again"):
            sync(file, {**TREE, "dbtext/dispatcher": HEAD + ONE})
    assert sync(file, TREE) == []


def test_a_failure_changes_nothing(file):
    sync(file, TREE)
    before = asked(file, "SELECT * FROM dispatcher")
    bad = b"1:notanumber:sip\\:a:0:x\n"
    with pytest.raises(ValueError, match="dbtext/dispatcher:2: text where a number is wanted"):
        sync(file, with_rows(bad))
    assert asked(file, "SELECT * FROM dispatcher") == before


def test_unknown_owner_is_told(file):
    with pytest.raises(OSError, match="install the package first"):
        opensips_db.sync(str(file), TREE, owner="nobody-of-ours", group=OWN["group"])


def test_tables_of_calls_are_seeded_once(tmp_path):
    directory = tmp_path / "lib" / "dbtext"
    assert opensips_db.seed(str(directory), TREE, **OWN) == ["location", "version"]
    (directory / "location").write_bytes(b"filled")
    assert opensips_db.seed(str(directory), TREE, **OWN) == []
    assert (directory / "location").read_bytes() == b"filled"
    newer = {**TREE, "runtime/version": TREE["runtime/version"].replace(b"1013", b"1014")}
    assert opensips_db.seed(str(directory), newer, **OWN) == ["version"]


# -- what the next start reads -------------------------------------------------------------------


@pytest.fixture
def live(tmp_path):
    root = tmp_path / "conf"
    (root / "conf.d").mkdir(parents=True)
    (root / "dbtext").mkdir()
    (root / "conf.d/15-standing.cfg").write_text('modparam("cfgutils", "shvset", "draining=i:0")\n')
    (root / "dbtext/dispatcher").write_bytes(TREE["dbtext/dispatcher"])
    return root


def write(root, *, draining, withdrawn, sqlite=None):
    """What the module does with both: returns what changed."""
    tree = staged.read(str(root))
    changed = opensips_standing.changes(tree, draining=draining, withdrawn=withdrawn)
    for path, content in changed.items():
        staged.write_file(str(root / path), content, 0o640)
    turned = opensips_db.withdraw(sqlite, withdrawn) if sqlite else False
    return [*changed, *([sqlite] if turned else [])]


def test_drain_and_withdrawal_are_written_and_taken_back(live):
    before = {path: path.read_bytes() for path in live.rglob("*") if path.is_file()}
    (live / "dbtext/dispatcher").chmod(0o640)
    put = write(live, draining=True, withdrawn=["sip:10.0.0.2:5060"])
    assert put == ["conf.d/15-standing.cfg", "dbtext/dispatcher"]
    assert "draining=i:1" in (live / "conf.d/15-standing.cfg").read_text()
    first, second = (live / "dbtext/dispatcher").read_text().splitlines()[1:]
    assert (first.split(":")[-2], second.split(":")[-2]) == ("0", "1")
    assert (live / "dbtext/dispatcher").stat().st_mode & 0o777 == 0o640
    assert write(live, draining=True, withdrawn=["sip:10.0.0.2:5060"]) == []
    write(live, draining=False, withdrawn=[])
    assert {path: path.read_bytes() for path in live.rglob("*") if path.is_file()} == before


def test_database_learns_it_too_and_keeps_who_is_probing(live, file):
    sync(file, TREE)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE dispatcher SET state = 2 WHERE id = 1")
    out = ["sip:10.0.0.2:5060"]
    put = write(live, draining=False, withdrawn=out, sqlite=str(file))
    assert put == ["dbtext/dispatcher", str(file)]
    assert asked(file, "SELECT state FROM dispatcher ORDER BY id") == [(2,), (1,)]
    assert write(live, draining=False, withdrawn=out, sqlite=str(file)) == []


def test_tree_without_them_and_table_of_another_shape(tmp_path, file):
    assert write(tmp_path, draining=True, withdrawn=["sip:a"]) == []
    assert write(tmp_path, draining=True, withdrawn=["sip:a"], sqlite=str(file)) == []
    assert not file.exists()
    assert opensips_standing.states(b"id(int)\n1\n", ["sip:a"]) == b"id(int)\n1\n"


def test_database_that_cannot_be_written_is_told(live, file):
    file.parent.mkdir()
    file.write_bytes(b"x" * 2000)
    with pytest.raises(OSError, match="move it away, then apply the state again"):
        write(live, draining=False, withdrawn=[], sqlite=str(file))
