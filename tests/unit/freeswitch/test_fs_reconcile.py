"""The rule of the house with a daemon in memory: what is done, what is refused, what comes back.

The tree, the files of the system and the record of what runs are real, and so are the utils.
"""

import errno
import grp
import os
import pwd
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.loading import load

MODULES = ("disruption", "reconcile", "running_record", "staged", "system_files")
UTILS = {name: load(f"_utils/{name}.py") for name in MODULES}
UNIT = "/etc/systemd/system/box.service.d/guardian.conf"
LATER = 1 << 40  # a time after everything


def call(name, *arguments, **keywords):
    module, function = name.split(".")
    return getattr(UTILS[module], function)(*arguments, **keywords)


class Daemon:
    """Holds the tree it was last told; a file named `start…` is read at a start only."""

    name = "box"
    workspace = "lab-local"

    def __init__(self, root):
        self.conf_dir = str(root / "etc" / "box")
        self.state_dir = str(root / "voice")
        self.system_root = str(root / "system")
        self.owner = {
            "owner": pwd.getpwuid(os.geteuid()).pw_name,
            "group": grp.getgrgid(os.getegid()).gr_name,
        }
        (root / "etc").mkdir()
        self.context = {}
        self.util = call
        self.lives = 0
        self.up = False
        self.started = LATER
        self.holds = {}
        self.state = "in_service"
        self.calls = 37
        self.out = False
        self.drained = False
        self.log = []
        self.fails = {}

    def does(self, what):
        self.log.append(what)
        if what.split()[0] in self.fails:
            raise self.fails.pop(what.split()[0])

    def life(self):
        return (f"life-{self.lives}", self.started) if self.up else None

    def start_files(self):
        return [UNIT] if Path(self.system_root + UNIT).exists() else []

    def problems(self, tree):
        return [f"{name}: bad" for name, content in sorted(tree.items()) if content == b"bad"]

    def rehearse(self, path, tree):
        self.log.append("rehearse")
        assert UTILS["staged"].read(path) == tree
        return [f"{name} does not come up" for name in sorted(tree) if tree[name] == b"dead"]

    def classify(self, old, new):
        changed = sorted(n for n in {*old, *new} if old.get(n) != new.get(n))
        restarts = [name for name in changed if name.startswith("start")]
        steps = [{"do": "reload", "file": name} for name in changed]
        return {
            "disruption": "restart" if restarts else "reload" if changed else "none",
            "why": [f"{name} changed" for name in restarts or changed],
            "actions": [{"do": "restart"}] if restarts else steps,
        }

    def safe_part(self, old, new):
        if "start-all" in new:
            return None
        kept = {name: old[name] for name in old if name.startswith("start")}
        return {name: new[name] for name in new if not name.startswith("start")} | kept

    def act(self, plan, run):
        for action in plan["actions"]:
            self.does(f"reload {action['file']}")
        self.holds = UTILS["staged"].read(self.conf_dir)
        return run["reloads"] + len(plan["actions"])

    def verify(self, plan, tree):
        self.does("verify")
        if self.holds != tree:
            raise CommandExecutionError("box holds something else")

    def undo(self, plan, tree, run):
        self.log.append("undo")
        self.holds = UTILS["staged"].read(self.conf_dir)

    def service(self, verb):
        self.does(verb)
        self.up = True
        self.lives += 1
        self.holds = UTILS["staged"].read(self.conf_dir)
        self.out = False

    def units_changed(self):
        self.log.append("daemon-reload")

    def await_start(self, before):
        assert self.life()[0] != before
        self.does("await")

    def node(self):
        return {"state": self.state, "calls": self.calls}

    def kept_out(self):
        return ["pause"] if self.drained else []

    def strayed(self):
        return ["pause"] if self.drained and not self.out else []

    def keep_out(self):
        self.does("keep_out")
        self.out = self.drained


TREE = {"a.xml": b"one", "sub/b.xml": b"one", "start.xml": b"one"}
OWN = {"path": UNIT, "content": b"one", "mode": 0o644, "disruption": "restart"}


@pytest.fixture
def daemon(tmp_path):
    return Daemon(tmp_path)


class Box:
    """A daemon and the two states about it."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.reconciler = UTILS["reconcile"].of(daemon)

    def configure(self, tree, system=(OWN,), test=False):
        rendered = {"tree": tree, "system": list(system)}
        return self.reconciler.configure(rendered, test)

    def applied(self, tree, system=(OWN,)):
        """Apply after a prediction, which must have told the same."""
        before = self.disk()
        predicted = self.configure(tree, system, test=True)
        assert self.disk() == before, "a prediction changes nothing"
        answer = self.configure(tree, system)
        assert predicted["changes"] == answer["changes"]
        assert predicted["result"] is (None if answer["changes"] else True)
        return answer

    def ensured(self):
        predicted = self.reconciler.ensure_running(True)
        answer = self.reconciler.ensure_running(False)
        assert predicted["changes"] == answer["changes"]
        return answer

    def disk(self):
        conf = UTILS["staged"].read(self.daemon.conf_dir)
        record = Path(self.daemon.state_dir, "box.running.json")
        unit = Path(self.daemon.system_root + UNIT)
        return conf, *(path.read_bytes() if path.exists() else None for path in (record, unit))

    def tree(self):
        return self.disk()[0]

    def said(self):
        """What the daemon was told since the last time."""
        told, self.daemon.log[:] = list(self.daemon.log), []
        return told


@pytest.fixture
def box(daemon):
    """A node that is configured, runs and has no more to be told."""
    box = Box(daemon)
    assert box.applied(TREE)["result"] is True
    assert box.said() == ["rehearse", "daemon-reload"]
    assert not daemon.up, "the daemon is the other state's business"
    answer = box.ensured()
    assert answer["result"] is True
    assert answer["changes"]["actions"] == ["start"]
    assert box.said() == ["start", "await", "keep_out"]
    assert box.tree() == TREE
    still(box)
    return box


def still(box, tree=TREE, system=(OWN,)):
    """Neither state has anything to do."""
    assert box.configure(tree, system) == {
        "result": True, "comment": f"{box.daemon.conf_dir} is as it should be", "changes": {},
    }  # fmt: skip
    assert box.reconciler.ensure_running(False) == {
        "result": True, "comment": "box runs what is on disk", "changes": {},
    }  # fmt: skip
    assert box.said() == []


def test_reload_happens_in_service_and_is_verified(box):
    new = {**TREE, "a.xml": b"two"}
    answer = box.applied(new)
    assert answer["result"] is True
    assert answer["comment"] == "configuration exchanged: reload a.xml"
    assert answer["changes"]["disruption"] == "reload"
    assert answer["changes"]["files"] == {"changed": ["a.xml"]}
    assert box.said() == ["reload a.xml", "verify"]
    assert box.daemon.holds == box.tree() == new
    assert box.reconciler.running()["reloads"] == 1
    still(box, new)


def test_restart_is_refused_in_service_and_nothing_changes(box):
    before = box.disk()
    new = {**TREE, "start.xml": b"two"}
    predicted = box.configure(new, test=True)
    told = "restart needed: start.xml changed; 37 calls up; run `guardian deploy lab-local`"
    assert predicted["result"] is None
    assert predicted["comment"] == f"a plain apply would refuse: {told}"
    assert predicted["changes"]["disruption"] == "restart"
    assert box.configure(new) == {"result": False, "comment": told, "changes": {}}
    assert box.disk() == before
    assert box.said() == []


def test_what_needs_no_restart_is_applied_meanwhile(box):
    new = {**TREE, "start.xml": b"two", "a.xml": b"two", "c.xml": b"one"}
    answer = box.configure(new)
    assert answer["result"] is False
    assert "restart needed: start.xml changed" in answer["comment"]
    assert answer["comment"].endswith("; applied meanwhile: reload a.xml, reload c.xml")
    assert answer["changes"]["files"] == {"added": ["c.xml"], "changed": ["a.xml"]}
    mixed = {**new, "start.xml": b"one"}
    assert box.daemon.holds == box.tree() == mixed
    box.said()
    again = box.configure(new)
    assert (again["result"], again["changes"]) == (False, {})
    assert box.said() == []


@pytest.mark.parametrize(
    "more",
    [{"start-all": b""}, {"a.xml": b"one"}],
    ids=["cannot be told apart", "nothing of it is harmless"],
)
def test_mixture_without_a_harmless_part_is_refused_whole(box, more):
    before = box.disk()
    answer = box.configure({**TREE, "start.xml": b"two", **more})
    assert (answer["result"], answer["changes"]) == (False, {})
    assert box.disk() == before
    assert box.said() == []


def test_harmless_part_that_would_not_run_alone_is_left_out(box, monkeypatch):
    """Half of a change can be wrong where the whole is right."""
    before = box.disk()
    new = {**TREE, "start.xml": b"two", "a.xml": b"two"}
    monkeypatch.setattr(
        box.daemon, "problems", lambda tree: [] if tree == new else ["a.xml needs start.xml"]
    )
    answer = box.configure(new)
    assert (answer["result"], answer["changes"]) == (False, {})
    assert "a.xml needs" not in answer["comment"]
    assert box.disk() == before


def test_bad_tree_is_refused_with_the_first_of_its_problems(box):
    before = box.disk()
    answer = box.configure({f"{number:02}.xml": b"bad" for number in range(13)})
    assert answer["result"] is False
    assert answer["comment"].startswith("refused, nothing changed: 00.xml: bad; 01.xml: bad; ")
    assert answer["comment"].endswith("09.xml: bad and 3 more")
    assert box.disk() == before
    few = box.configure({**TREE, "a.xml": b"bad"})
    assert few["comment"] == "refused, nothing changed: a.xml: bad"


def test_restart_happens_out_of_service(box):
    box.daemon.state = "out_of_service"
    box.daemon.drained = True
    new = {**TREE, "start.xml": b"two"}
    answer = box.applied(new)
    assert answer["result"] is True
    assert box.said() == ["rehearse"], "the daemon is the other state's business"
    assert box.daemon.holds == TREE
    assert box.tree() == new
    assert box.configure(new)["changes"] == {}, "the disk is right already"
    answer = box.ensured()
    assert answer["comment"] == "box restarted: start.xml changed"
    assert answer["changes"]["actions"] == ["restart", "pause"]
    assert box.said() == ["restart", "await", "keep_out"]
    assert box.daemon.out, "who was out stays out"
    assert box.daemon.holds == new
    still(box, new)


def test_one_run_predicts_the_restart_it_will_make(box):
    box.daemon.state = "out_of_service"
    assert box.configure({**TREE, "start.xml": b"two"}, test=True)["result"] is None
    predicted = box.reconciler.ensure_running(True)
    assert predicted["result"] is None
    assert predicted["comment"] == "box would be restarted"
    assert predicted["changes"]["why"] == ["start.xml changed"]
    assert box.reconciler.ensure_running(True)["changes"] == {}, "told once"


def test_restart_that_is_owed_waits_until_the_node_is_out(box):
    """The files were exchanged, and calls are back before the daemon was restarted."""
    box.daemon.state = "out_of_service"
    new = {**TREE, "start.xml": b"two"}
    box.applied(new)
    box.daemon.state = "in_service"
    box.said()
    told = "restart needed: start.xml changed; 37 calls up; run `guardian deploy lab-local`"
    predicted = box.reconciler.ensure_running(True)
    assert predicted["result"] is None
    assert predicted["comment"] == f"a plain apply would refuse: {told}"
    assert predicted["changes"]["daemon"] == {"old": "running", "new": "restarted"}
    refused = box.reconciler.ensure_running(False)
    assert refused == {"result": False, "comment": told, "changes": {}}
    assert box.said() == ["keep_out"], "a refusal is no reason to send calls to who is drained"
    box.daemon.fails["keep_out"] = CommandExecutionError("event socket is silent")
    refused = box.reconciler.ensure_running(False)
    assert refused == {
        "result": False, "comment": f"{told}; event socket is silent", "changes": {},
    }  # fmt: skip
    assert box.daemon.lives == 1


def test_file_of_the_system_is_a_restart(box):
    before = box.disk()
    new = {**OWN, "content": b"two"}
    refused = box.configure(TREE, [new])
    assert refused["result"] is False
    assert f"restart needed: {UNIT} changed" in refused["comment"]
    assert box.disk() == before
    box.daemon.state = "out_of_service"
    answer = box.applied(TREE, [new])
    assert answer["changes"]["files"] == {"system": [UNIT]}
    assert Path(box.daemon.system_root + UNIT).read_bytes() == b"two"
    assert box.said() == ["daemon-reload"]
    assert box.ensured()["comment"] == f"box restarted: {UNIT} changed"
    box.said()
    still(box, TREE, [new])


def test_file_of_the_system_that_nobody_restarts_for(box):
    extra = {"path": "/etc/logrotate.d/box", "content": b"x", "mode": 0o600, "disruption": "none"}
    answer = box.applied(TREE, [OWN, extra])
    assert answer["comment"] == "configuration exchanged: no action needed"
    assert answer["changes"]["files"] == {"system": ["/etc/logrotate.d/box"]}
    path = Path(box.daemon.system_root + extra["path"])
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"x", 0o600)
    box.said()
    still(box, TREE, [OWN, extra])


def test_edit_of_a_start_time_file_by_hand_shows(box):
    Path(box.daemon.system_root + UNIT).write_bytes(b"by hand")
    answer = box.reconciler.ensure_running(False)
    assert answer["result"] is False
    assert f"restart needed: {UNIT} changed" in answer["comment"]
    Path(box.daemon.system_root + UNIT).unlink()
    assert f"{UNIT} changed" in box.reconciler.ensure_running(True)["comment"]


def test_owners_and_modes_alone(box):
    path = Path(box.daemon.conf_dir, "a.xml")
    path.chmod(0o666)
    answer = box.applied(TREE)
    assert answer["comment"] == "owners and modes set right"
    assert answer["changes"]["attributes"] == ["a.xml"]
    assert path.stat().st_mode & 0o777 == 0o640
    still(box)


FAILURES = [
    CommandExecutionError("rescan failed"),
    OSError(errno.EIO, "event socket lost"),
    ValueError("answer:1: not well-formed"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["reload", "verify"])
def test_failure_brings_everything_back(box, where, failure):
    extra = {"path": "/etc/logrotate.d/box", "content": b"x", "mode": 0o600, "disruption": "none"}
    new_unit = {**OWN, "disruption": "none", "mode": 0o600, "content": b"two"}
    before = box.disk()
    box.daemon.fails[where] = failure
    with pytest.raises(CommandExecutionError) as caught:
        box.configure({**TREE, "a.xml": b"two"}, [new_unit, extra])
    assert str(caught.value) == f"{failure}; the previous configuration is back"
    assert box.disk() == before
    unit = Path(box.daemon.system_root + UNIT)
    assert unit.stat().st_mode & 0o777 == 0o644
    assert not Path(box.daemon.system_root + extra["path"]).exists()
    told = box.said()
    assert told[-2:] == ["daemon-reload", "undo"]
    assert box.daemon.holds == TREE
    still(box)


def test_action_that_did_not_take_is_found_out(box):
    """It said yes and holds the old: what runs counts, not what was said."""
    box.daemon.act = lambda plan, run: 0
    before = box.disk()
    with pytest.raises(CommandExecutionError, match="box holds something else; the previous"):
        box.configure({**TREE, "a.xml": b"two"})
    assert box.disk() == before


def test_tree_that_does_not_start_is_never_exchanged(box):
    box.daemon.state = "out_of_service"
    before = box.disk()
    with pytest.raises(CommandExecutionError) as caught:
        box.configure({**TREE, "start.xml": b"dead"}, [{**OWN, "content": b"two"}])
    assert str(caught.value) == "refused, nothing changed: start.xml does not come up"
    assert box.disk() == before
    assert not Path(UTILS["staged"].staged_path(box.daemon.conf_dir)).exists()


def test_full_disk_leaves_the_old_tree_and_no_stray(box, monkeypatch):
    before = box.disk()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(UTILS["staged"].os, "write", full)
        with pytest.raises(OSError, match="no space left; free some and run again"):
            box.configure({**TREE, "a.xml": b"two"})
    assert box.disk() == before
    assert not Path(UTILS["staged"].staged_path(box.daemon.conf_dir)).exists()
    assert box.said() == []
    assert box.applied({**TREE, "a.xml": b"two"})["result"] is True


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("where", ["reload", "verify"])
def test_action_that_a_crash_left_undone_is_owed(box, where):
    """The disk is right by then, and the daemon may not be: the next run finds out by itself."""
    new = {**TREE, "a.xml": b"two"}
    box.daemon.fails[where] = KilledError()
    with pytest.raises(KilledError):
        box.configure(new)
    assert box.tree() == new
    box.said()
    answer = box.applied(new)
    assert answer["result"] is True
    assert answer["changes"]["actions"] == ["reload a.xml"]
    assert answer["changes"]["files"] == {}
    assert box.said() == ["reload a.xml", "verify"]
    assert box.daemon.holds == new
    still(box, new)


def test_what_a_crash_left_staged_is_removed(box):
    staged = UTILS["staged"].stage(box.daemon.conf_dir, {"x": b""}, **box.daemon.owner)
    box.configure(TREE, test=True)
    assert Path(staged).exists(), "a prediction changes nothing"
    box.configure(TREE)
    assert not Path(staged).exists()


def forget(box):
    Path(box.daemon.state_dir, "box.running.json").unlink()


def test_life_nobody_noted_has_read_the_disk_if_that_is_older(box):
    """Started by hand or by a reboot; it is noted before anything on disk changes."""
    record = box.disk()[1]
    forget(box)
    assert box.reconciler.ensure_running(True)["changes"] == {}
    assert box.disk()[1] is None, "a prediction writes nothing"
    box.daemon.fails["reload"] = KilledError()
    with pytest.raises(KilledError):
        box.configure({**TREE, "a.xml": b"two"})
    assert box.disk()[1] == record
    answer = box.configure({**TREE, "a.xml": b"two"})
    assert answer["changes"]["actions"] == ["reload a.xml"]


def test_life_nobody_noted_that_is_older_than_the_disk(box):
    """Nobody can tell what it has read, so it is restarted when it may be."""
    forget(box)
    box.daemon.started = 0.0
    new = {**TREE, "a.xml": b"two"}
    before = box.disk()
    why = "what runs is not known (files changed after the daemon started)"
    answer = box.configure(new)
    assert (answer["result"], answer["changes"]) == (False, {})
    assert f"restart needed: {why}; 37 calls up" in answer["comment"]
    assert box.disk() == before
    assert box.said() == []
    box.daemon.state = "out_of_service"
    assert box.applied(new)["changes"]["why"] == [why]
    box.daemon.started = LATER
    box.daemon.lives += 1  # restarted behind our back, after the exchange
    box.said()
    still(box, new)


def test_life_that_is_older_than_a_start_time_file(box):
    forget(box)
    unit = Path(box.daemon.system_root + UNIT)
    newest = max(path.lstat().st_ctime for path in Path(box.daemon.conf_dir, "..").rglob("*"))
    os.utime(unit)
    box.daemon.started = unit.lstat().st_ctime
    assert box.reconciler.running()["files"] is None
    box.daemon.started = max(newest, unit.lstat().st_ctime) + 1
    assert box.reconciler.running()["files"] == TREE


def test_daemon_that_died_is_started_with_what_is_on_disk(box):
    box.daemon.up = False
    assert box.reconciler.running() is None
    new = {**TREE, "start.xml": b"two"}
    answer = box.applied(new)
    assert answer["comment"] == "configuration exchanged: no action needed"
    assert box.said() == ["rehearse"], "even a first start is rehearsed"
    box.daemon.drained = True
    answer = box.ensured()
    assert answer["changes"] == {
        "daemon": {"old": "stopped", "new": "running"},
        "disruption": "none",
        "why": ["box is not running"],
        "actions": ["start", "pause"],
    }
    box.said()
    still(box, new)


@pytest.mark.parametrize("where", ["start", "await", "keep_out"])
def test_start_that_fails_is_not_noted(box, where):
    box.daemon.up = False
    record = box.disk()[1]
    box.daemon.fails[where] = CommandExecutionError("it did not")
    with pytest.raises(CommandExecutionError, match="it did not"):
        box.reconciler.ensure_running(False)
    assert box.disk()[1] == record


def test_daemon_that_ends_right_after_its_start(box):
    box.daemon.up = False
    record = box.disk()[1]

    def ends():
        box.daemon.up = False

    box.daemon.keep_out = ends
    with pytest.raises(
        CommandExecutionError, match=r"^box ended right after its start; see its log"
    ):
        box.reconciler.ensure_running(False)
    assert box.disk()[1] == record


def test_node_that_came_back_by_itself_is_kept_out_again(box):
    box.daemon.drained = True
    predicted = box.reconciler.ensure_running(True)
    assert (predicted["result"], box.said()) == (None, [])
    assert predicted["comment"] == "box would be kept out of service again"
    answer = box.ensured()
    assert answer["result"] is True
    assert answer["changes"]["actions"] == ["pause"]
    assert box.said() == ["keep_out"]
    assert box.daemon.out
    still(box)


def test_record_is_for_nobody_else_to_read(box):
    path = Path(box.daemon.state_dir, "box.running.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("content", [b"", b"[]", b'{"life": "life-1"}', b"\xff"])
def test_record_that_cannot_be_read_is_made_again(box, content):
    record = box.disk()[1]
    Path(box.daemon.state_dir, "box.running.json").write_bytes(content)
    still(box)
    assert box.disk()[1] == record


def test_actions_in_words():
    told = UTILS["reconcile"].in_words({"do": "killgw", "profile": "external", "gateway": 7})
    assert told == "killgw external 7"
