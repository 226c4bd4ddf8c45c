"""The journal, the lock, workspaces, the graph of stacks, plan manifests, readings of returns."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardian import journal, workspace
from guardian.config import Stack
from guardian.errors import LOCKED, GuardianError, UsageError
from guardian.fleet.capacity import Budget, Member, refusal
from guardian.fleet.checks import change, read, worst
from guardian.fleet.master import Jids, Outcome
from guardian.journal import Journal
from guardian.locks import local
from guardian.stacks import graph, plans
from tests.support.region import until


def written(path: Path, lines: int = 3) -> bytes:
    book = Journal(path, "run", lambda: 1.5)
    for number in range(lines):
        book.add("note", number=number)
    book.close()
    return path.read_bytes()


def test_a_journal_reads_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path / "j")
    entries = journal.read(tmp_path / "j")
    assert [entry["number"] for entry in entries] == [0, 1, 2]
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_line_is_on_disk_before_add_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    path = tmp_path / "j"
    monkeypatch.setattr(os, "fdatasync", lambda handle: synced.append(path.read_bytes()))
    book = Journal(path, "run", lambda: 1.0)
    book.add("intent", jid="1")
    assert len(synced) == 1
    assert b'"jid":"1"' in synced[0]


def test_a_torn_last_line_never_happened_and_the_chain_goes_on(tmp_path: Path) -> None:
    whole = written(tmp_path / "j")
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(whole)):
        (tmp_path / "j").write_bytes(whole[:cut])
        book = Journal(tmp_path / "j", "run", lambda: 2.0)
        assert len(book.entries) == 2
        book.add("after")
        book.close()
        assert [one["type"] for one in journal.read(tmp_path / "j")] == ["note", "note", "after"]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = bytearray(written(path))
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(bytes(whole))
    try:
        entries = journal.read(path)
    except GuardianError as error:
        assert "damaged" in str(error)
    else:
        # Only the last line has no successor that vouches for it.
        assert [entry["number"] for entry in entries[:2]] == [0, 1]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Journal(tmp_path / "j", "run", lambda: 1.0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(GuardianError, match="No space left on device; nothing more was started"):
        book.add("intent")


def _contend(directory: str, results: Any, go: Any, done: Any) -> None:
    go.wait()
    try:
        with local.held(Path(directory), "lab-local", "deploy"):
            results.put(("won", os.getpid()))
            done.wait()
    except GuardianError as error:
        results.put((str(error), error.code))


def test_one_of_many_wins_and_the_losers_are_told_who(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, go, done = context.Queue(), context.Event(), context.Event()
    arguments = (str(tmp_path), results, go, done)
    racers = [context.Process(target=_contend, args=arguments) for _ in range(8)]
    for racer in racers:
        racer.start()
    go.set()
    found = [results.get(timeout=20) for _ in racers]
    assert local.holder(tmp_path) is not None
    done.set()
    for racer in racers:
        racer.join(20)
    (winner,) = [pid for word, pid in found if word == "won"]
    losers = [(text, code) for text, code in found if text != "won"]
    assert len(losers) == 7
    assert all(code == LOCKED and f"pid {winner}" in text for text, code in losers)
    assert local.holder(tmp_path) is None


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, go, done = context.Queue(), context.Event(), context.Event()
    holder = context.Process(target=_contend, args=(str(tmp_path), results, go, done))
    holder.start()
    go.set()
    assert results.get(timeout=20)[0] == "won"
    holder.kill()
    holder.join(20)
    until(lambda: local.holder(tmp_path) is None, "the kernel to free the lock", 10)
    with local.held(tmp_path, "lab-local", "deploy"):
        assert "deploy" in str(local.holder(tmp_path))


def test_workspaces_and_minion_ids() -> None:
    assert str(workspace.parse("prod-euw2")) == "prod-euw2"
    assert workspace.role_of("pbx-0a1b2c.prod-euw2") == "pbx"
    assert workspace.belongs("pbx-01.lab-local", "lab-local")


@pytest.mark.parametrize(
    "minion",
    ["*", "pbx-01", "pbx-01.lab-localx", "pbx-01\n.lab-local", "pbx-*.lab-local",
     "a{{b}}.lab-local", "../x.lab-local", "pbx-01.x.lab-local", "PBX-01.lab-local",
     "рbx-01.lab-local"],
)  # fmt: skip
def test_no_odd_minion_belongs(minion: str) -> None:
    assert not workspace.belongs(minion, "lab-local")


@pytest.mark.parametrize("name", ["", "prod", "prod-", "prod-euw9", "Prod-euw2", "a/b-euw2"])
def test_odd_workspaces_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        workspace.parse(name)


def stacks(**after: str) -> dict[str, Stack]:
    return {name: Stack(name, Path(), tuple(what.split())) for name, what in after.items()}


def test_levels_follow_what_is_read_from() -> None:
    found = stacks(iam="", net="iam", acm="net", pbx="net acm", sip="net acm", base="")
    assert graph.levels(found, found) == [["base", "iam"], ["net"], ["acm"], ["pbx", "sip"]]
    # Through one that was not chosen.
    assert graph.levels(found, ["iam", "pbx"]) == [["iam"], ["pbx"]]


def test_a_circle_is_named() -> None:
    with pytest.raises(UsageError, match=r"in a circle: (a -> b -> a|b -> a -> b)"):
        graph.levels(stacks(a="b", b="a"), ["a", "b"])


WORLD: dict[str, Any] = {
    "workspace": "prod-euw2", "stack": "net", "commit": "abc", "terraform": "1.11.4", "serial": 3,
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(WORLD))
def test_a_plan_is_refused_when_the_world_moved(tmp_path: Path, key: str) -> None:
    plan = tmp_path / "guardian.tfplan"
    plan.write_bytes(b"a plan")
    plans.bind(plan, **WORLD)
    plans.check(plan, **WORLD)
    assert plan.stat().st_mode & 0o777 == 0o600
    with pytest.raises(GuardianError, match=f"{key} was .*; plan again"):
        plans.check(plan, **{**WORLD, key: 4 if key == "serial" else "other"})


def test_a_plan_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "guardian.tfplan"
    plan.write_bytes(b"a plan")
    plans.bind(plan, **WORLD)
    plan.write_bytes(b"another")
    with pytest.raises(GuardianError, match="its bytes changed"):
        plans.check(plan, **WORLD)
    plan.with_suffix(".manifest.json").write_text("{}")
    with pytest.raises(GuardianError, match="no manifest"):
        plans.check(plan, **WORLD)


def state(**fields: Any) -> dict[str, Any]:
    entry = {"result": True, "comment": "", "changes": {}, **fields}
    return {"a_|-the daemon_|-x_|-configured": entry}


def test_a_state_run_is_judged_by_its_results() -> None:
    assert change(state()).changes == 0
    pending = change(
        state(result=None, changes={"disruption": "restart", "why": ["sip-port 5080 -> 5090"]})
    )
    assert (pending.disruption, pending.changes, pending.why) == (
        "restart", 1, ("sip-port 5080 -> 5090",),
    )  # fmt: skip
    assert change(state(result=None, changes={"diff": True})).disruption == "none"
    assert change(state(result=False, comment="no")).problem == "state 'the daemon': no"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            ["Pillar failed to render", "node: 'rol' unknown"],
            "Pillar failed to render; node: 'rol'",
        ),
        ("'state.apply' is not available.", "not available"),
        (None, "nothing was returned"),
        ({"a": 1}, "not a state run"),
        (True, "True"),
    ],
)
def test_what_is_no_state_run_is_a_problem(value: Any, problem: str) -> None:
    assert problem in change(value).problem


def test_a_state_run_under_way_is_busy_not_broken() -> None:
    said = ['The function "state.apply" is running as PID 42 and was started at 2026']
    assert change(said).busy
    assert read("state.apply", Outcome("1", "m", True, said, 1)).data == {"busy": True}


@pytest.mark.parametrize(
    ("fun", "value", "retcode", "ok"),
    [
        ("voice.undrain", {"result": True}, 0, True),
        ("voice.undrain", {"result": False}, 0, False),
        ("voice.undrain", {"result": "yes"}, 0, False),
        ("voice.undrain", "ERROR: fsctl said no", 1, False),
        ("voice.undrain", True, 0, False),
        ("voice.drain", {"drained": True, "calls": 0}, 0, True),
        ("voice.load", {"calls": None}, 0, False),
        ("voice.capacity", {"calls": None}, 0, True),
        ("voice.capacity", {}, 0, False),
        ("voice.load", {"calls": True}, 0, False),
        ("voice.load", {"calls": 3, "registrations": None}, 0, False),
        ("voice.capacity", {"calls": 9, "registrations": None}, 0, True),
        ("voice.measures", {"since": "1", "attempts": 3, "failed": 0}, 0, False),
        ("voice.end_calls", {"result": True, "ended": 2}, 0, True),
        ("voice.trial", {"result": False, "checks": [{"name": "1", "ok": False}]}, 1, False),
        ("voice.load", {"calls": 3}, 0, True),
        ("voice.checks", {"result": False, "checks": [{"name": "p", "ok": False}]}, 0, False),
        ("state.apply", {}, 0, True),
    ],
)
def test_no_answer_is_taken_for_a_good_one(fun: str, value: Any, retcode: int, ok: bool) -> None:
    assert read(fun, Outcome("1", "m", True, value, retcode)).ok is ok
    assert not read(fun, Outcome("1", "m", False, value, retcode)).known


def test_drained_is_only_what_says_so() -> None:
    for value in ({"drained": "true"}, {"drained": 1}, {}):
        assert read("voice.drain", Outcome("1", "m", True, value)).data["drained"] is False


def test_the_worst_class_wins_and_an_unknown_one_is_the_worst() -> None:
    assert worst([]) == "none"
    assert worst(["none", "reload"]) == "reload"
    assert worst(["reload", "reboot"]) == "restart"


BUDGET = Budget(max_out=25, headroom=20, sole_node="hold")


def members(*rows: tuple[bool, int, int]) -> list[Member]:
    return [Member(f"n{number}", *row) for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(True, 100, 5), (True, 100, 5)], None),
        ([(True, 100, 50), (True, 100, 50)], "room for 80 calls and 100 calls are up"),
        ([(True, 100, 5), (False, 100, 0)], "no peer"),
        ([(True, 100, 0)], "no peer"),
        ([(True, 100, 5), (True, 100, 5), (False, 100, 0)], "1 of 3 in its set are out already"),
        ([(True, 0, 5), (True, 0, 5)], "room for 0 calls"),
    ],
)
def test_the_budget(rows: list[tuple[bool, int, int]], why: str | None) -> None:
    found = refusal(BUDGET, members(*rows), "n0")
    assert found is None if why is None else why in (found or "")


def test_never_both_of_a_pair_nor_the_last_of_a_zone() -> None:
    def one(name: str, zone: str, pair: str = "", available: bool = True) -> Member:
        return Member(name, available, None, 1, zone=zone, pair=pair)

    half = Budget(max_out=50, headroom=20, sole_node="hold")
    found = [one("n0", "a", "p"), one("n1", "b", "p", False), one("n2", "b"), one("n3", "a")]
    assert refusal(half, found, "n0") == "n1, the other of pair p, is out"
    assert refusal(half, found, "n2") == "it is the last in service in zone b"
    assert refusal(half, found, "n3") is None
    # A zone of one has no peer to lose: the other zone carries on.
    assert refusal(half, [one("n0", "a"), one("n1", "b")], "n0") is None


def test_registrations_need_room_where_a_node_has_a_limit_of_them() -> None:
    def one(name: str, limit: int | None) -> Member:
        return Member(name, True, None, 0, registrations=900, registrations_capacity=limit)

    full = [one("n0", 1000), one("n1", 1000)]
    why = "its peers have room for 800 registrations and 1800 registrations are up"
    assert refusal(BUDGET, full, "n0") == why
    assert refusal(BUDGET, [one("n0", 1000), one("n1", None)], "n0") is None


def test_a_sole_node_may_go_when_idle_only_where_that_is_allowed() -> None:
    idle = Budget(25, 20, "when_idle")
    assert refusal(idle, members((True, 100, 0)), "n0") is None
    assert "its 1 call" in (refusal(idle, members((True, 100, 1)), "n0") or "")


def test_job_ids_only_grow() -> None:
    times = iter([5.0, 5.0, 4.0, 9.0])
    jids = Jids(lambda: next(times))
    found = [jids.new() for _ in range(4)]
    assert found == sorted(set(found))
    assert all(len(one) == 20 for one in found)
    assert json.dumps(found)
