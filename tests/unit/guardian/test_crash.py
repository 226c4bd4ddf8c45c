"""A controller killed at any line of its journal, then resumed, ends where one that lived ends."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from guardian.config import Rollout as Settings
from guardian.fleet.drive import Drive
from guardian.fleet.master import Jids
from guardian.fleet.rollout import DONE, FAILED, HELD, PENDING, UNKNOWN, Node, Rollout
from guardian.journal import Entry, Journal
from guardian.ui.summary import owed
from tests.support.simulator import SimLink, SimNode, World

SETTINGS = Settings(soak=2, poll=1, checks_deadline=10, call_deadline=30, capacity_deadline=30)


class Killed(BaseException):
    """SIGKILL: nothing of the controller runs after it."""


class MortalJournal(Journal):
    """Dies just before or just after its nth line from now is on disk."""

    lines = 10**9
    before = False

    def _add(self, kind: str, fields: Entry) -> Entry:
        self.lines -= 1
        if self.lines == 0 and self.before:
            raise Killed
        entry = super()._add(kind, fields)
        if self.lines == 0:
            raise Killed
        return entry


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Real kills need no fsync to be seen: the page cache outlives the process.
    monkeypatch.setattr("os.fdatasync", lambda handle: None)


def region() -> World:
    return World(
        {
            "pbx-01.w": SimNode("pbx", calls=7),
            "pbx-02.w": SimNode("pbx", calls=5),
            "pbx-03.w": SimNode("pbx", running=False),
            "sip-01.w": SimNode("sip", calls=0),
            "sip-02.w": SimNode("sip", calls=4),
        }
    )


def nodes(world: World) -> list[Node]:
    return [
        Node(
            name,
            node.role,
            "a" if name < "pbx-03" else "b",
            disruption=world.disruption,
            changes=1,
            state="in_service" if node.running else "out_of_service",
            running=node.running,
            calls=int(node.calls),
        )
        for name, node in world.nodes.items()
    ]


def start(world: World, path: Path, lines: int = 10**9, before: bool = False) -> Rollout:
    journal = MortalJournal(path, "run", lambda: world.now)
    journal.lines, journal.before = lines, before
    drive = Drive(SimLink(world), journal, Jids(lambda: world.now), lambda: world.now)
    fresh = not any(entry["type"] == "fleet" for entry in journal.entries)
    try:
        if fresh:
            drive.begin(nodes(world), SETTINGS)
        else:
            drive.resume()
        return drive.run(lambda: None)
    finally:
        journal.close()


def facts(world: World) -> dict[str, Any]:
    return {
        name: (node.config, node.running, node.paused, sorted(node.withdrawn), node.applies)
        for name, node in world.nodes.items()
    }


def test_the_whole_rollout_restarts_every_node_once_and_cuts_nothing(tmp_path: Path) -> None:
    world = region()
    rollout = start(world, tmp_path / "journal.jsonl")
    assert {track.step for track in rollout.tracks.values()} == {DONE}
    assert [node.applies for node in world.nodes.values()] == [1, 1, 1, 1, 1]
    assert sum(node.cut for node in world.nodes.values()) == 0
    assert world.least_available == {"pbx": 2, "sip": 1}
    assert not any(node.paused or node.withdrawn for node in world.nodes.values())


@pytest.mark.parametrize("before", [False, True], ids=["after the line", "before the line"])
def test_killed_at_any_line_and_resumed_it_reaches_the_same_end(
    tmp_path: Path, before: bool
) -> None:
    world = region()
    start(world, tmp_path / "whole.jsonl")
    wanted = facts(world)
    points = 0
    for line in itertools.count(1):
        world = region()
        path = tmp_path / f"{line}.jsonl"
        try:
            start(world, path, line, before)
            break
        except Killed:
            points += 1
        rollout = start(world, path)
        assert facts(world) == wanted, f"killed at line {line}"
        assert {track.step for track in rollout.tracks.values()} == {DONE}, f"line {line}"
        assert [node.runs for node in world.nodes.values()] == [1] * 5, f"line {line}"
        assert sum(node.cut for node in world.nodes.values()) == 0
        assert world.least_available["pbx"] >= 1, f"line {line}"
        assert world.least_available["sip"] >= 1, f"line {line}"
    assert points > 100


def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    world = region()
    wanted_world = region()
    start(wanted_world, tmp_path / "whole.jsonl")
    path = tmp_path / "journal.jsonl"
    for kills in itertools.count():
        try:
            # A resume writes a few lines before it gets anywhere, so dying sooner ends never.
            rollout = start(world, path, 17)
            break
        except Killed:
            assert kills < 200
    assert kills > 5
    assert facts(world) == facts(wanted_world)
    assert {track.step for track in rollout.tracks.values()} == {DONE}


def test_a_failed_apply_halts_leaves_that_node_out_and_names_it(tmp_path: Path) -> None:
    world = region()
    world.nodes["pbx-01.w"].broken = True
    rollout = start(world, tmp_path / "journal.jsonl")
    assert "pbx-01.w" in rollout.halted
    track = rollout.tracks["pbx-01.w"]
    assert track.step == FAILED
    assert owed(track) == "drained, withdrawn on sip-01, sip-02"
    assert world.nodes["pbx-01.w"].paused
    assert all("pbx-01.w" in world.nodes[one].withdrawn for one in ("sip-01.w", "sip-02.w"))
    others = {name: one.step for name, one in rollout.tracks.items() if name != "pbx-01.w"}
    # The fresh one was its stage-mate and harms nobody; the rest was not begun.
    assert others.pop("pbx-03.w") == DONE
    assert set(others.values()) == {PENDING}

    world.nodes["pbx-01.w"].broken = False
    rollout = start(world, tmp_path / "journal.jsonl")
    assert {one.step for one in rollout.tracks.values()} == {DONE}
    assert facts(world) == {name: (1, True, False, [], 1) for name in world.nodes}


def test_a_minion_that_dies_is_unknown_and_halts(tmp_path: Path) -> None:
    world = region()
    world.nodes["pbx-01.w"].dead = True
    rollout = start(world, tmp_path / "journal.jsonl")
    # It cannot be asked for its calls: no data is no pass, and it was not touched.
    assert rollout.halted
    assert world.nodes["pbx-01.w"].applies == 0
    assert rollout.tracks["pbx-01.w"].step in (FAILED, UNKNOWN)
    assert not any("pbx-01.w" in world.nodes[one].withdrawn for one in ("sip-01.w", "sip-02.w"))


def test_a_sole_proxy_with_calls_is_held_and_the_rest_goes_on(tmp_path: Path) -> None:
    world = region()
    del world.nodes["sip-01.w"]
    rollout = start(world, tmp_path / "journal.jsonl")
    assert rollout.tracks["sip-02.w"].step == HELD
    assert "no peer" in rollout.tracks["sip-02.w"].detail
    assert not rollout.halted
    assert world.nodes["sip-02.w"].applies == 0
    assert [world.nodes[f"pbx-0{one}.w"].applies for one in (1, 2, 3)] == [1, 1, 1]


def test_a_lost_apply_that_ran_is_recovered_and_not_repeated(tmp_path: Path) -> None:
    world = region()
    real, lost = world._execute, []

    def losing(minion: str, job: Any) -> tuple[Any, int]:
        answer = real(minion, job)
        if job.fun == "state.apply" and not job.kwargs and minion == "pbx-02.w" and not lost:
            lost.append(job.jid)
        return answer

    world._execute = losing  # type: ignore[method-assign]
    link = SimLink(world)
    collect = link._collect

    def deaf() -> list[Any]:
        for jid in lost:
            world.returns.pop((jid, "pbx-02.w"), None)
        return collect()

    link._collect = deaf  # type: ignore[method-assign]
    journal = Journal(tmp_path / "journal.jsonl", "run", lambda: world.now)
    drive = Drive(link, journal, Jids(lambda: world.now), lambda: world.now)
    drive.begin(nodes(world), SETTINGS)
    rollout = drive.run(lambda: None)
    assert lost
    assert {one.step for one in rollout.tracks.values()} == {DONE}
    assert world.nodes["pbx-02.w"].runs == 1


def test_a_stop_puts_back_what_was_not_applied_and_resume_goes_on(tmp_path: Path) -> None:
    world = region()
    world.nodes["pbx-01.w"].calls = 400
    journal = Journal(tmp_path / "journal.jsonl", "run", lambda: world.now)
    drive = Drive(SimLink(world), journal, Jids(lambda: world.now), lambda: world.now)
    drive.begin(nodes(world), SETTINGS)

    def stop() -> str | None:
        return "stopped by a test" if world.nodes["pbx-01.w"].paused else None

    rollout = drive.run(stop)
    journal.close()
    assert rollout.halted == "stopped by a test"
    assert not any(node.paused or node.withdrawn for node in world.nodes.values())
    assert world.nodes["pbx-01.w"].applies == 0
    rollout = start(world, tmp_path / "journal.jsonl")
    assert {one.step for one in rollout.tracks.values()} == {DONE}
    assert sum(node.cut for node in world.nodes.values()) == 0
