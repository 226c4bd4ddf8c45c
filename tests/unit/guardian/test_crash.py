"""A controller killed at any line of its journal, then resumed, ends where one that lived ends."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardian.config import Rollout as Settings
from guardian.fleet.drive import Drive
from guardian.fleet.master import Jids
from guardian.fleet.rollout import DONE, FAILED, HELD, PENDING, UNKNOWN, Node, Rollout
from guardian.journal import Entry, Journal
from guardian.ui.summary import owed
from tests.bench import kill_everywhere
from tests.support import mortal, simworlds
from tests.support.simmaster import Clock, SimMaster, virtual
from tests.support.simulator import Faults, SimNode, World

SETTINGS = Settings(
    soak=2,
    poll=1,
    checks_deadline=10,
    call_deadline=60,
    capacity_deadline=30,
    trial_calls=2,
    judge_calls=1000,
)


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


@pytest.fixture
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # The page cache outlives a process that is killed, and these are not even killed.
    monkeypatch.setattr("os.fdatasync", lambda handle: None)


def region(without: str = "") -> World:
    found = {
        "pbx-01.w": SimNode("pbx", "a", calls=7),
        "pbx-02.w": SimNode("pbx", "a", calls=5),
        "pbx-03.w": SimNode("pbx", "b", running=False),
        "sip-01.w": SimNode("sip", "b", calls=0),
        "sip-02.w": SimNode("sip", "b", calls=4),
    }
    found.pop(without, None)
    return World(found, faults=Faults(apply=4.0), mean_call=5.0)


def nodes(world: World) -> list[Node]:
    return [
        Node(
            name,
            node.role,
            node.zone,
            disruption=node.disruption,
            changes=1,
            state="in_service" if node.running else "out_of_service",
            running=node.running,
            calls=world.calls(node),
        )
        for name, node in world.nodes.items()
    ]


def start(
    world: World,
    path: Path,
    lines: int = 10**9,
    before: bool = False,
    stop: Callable[[], str | None] = lambda: None,
) -> Rollout:
    journal = MortalJournal(path, "run", lambda: world.now)
    journal.lines, journal.before = lines, before
    world.advance(world.now + 1)  # what a process takes to start
    clock = Clock(world)
    jids = Jids(clock.time)
    fresh = not any(entry["type"] == "fleet" for entry in journal.entries)
    with virtual(clock):
        drive = Drive(SimMaster(world, clock, jids), journal, jids, clock.time)
        try:
            if fresh:
                drive.begin(nodes(world), SETTINGS)
            else:
                world.attempt += 1
                drive.resume()
            return drive.run(stop)
        finally:
            journal.close()


def facts(world: World) -> dict[str, Any]:
    return {
        name: (node.config, node.running, node.paused, sorted(node.withdrawn_on), node.applies)
        for name, node in world.nodes.items()
    }


def test_the_whole_rollout_restarts_every_node_once_and_cuts_nothing(tmp_path: Path) -> None:
    world = region()
    rollout = start(world, tmp_path / "journal.jsonl")
    assert {track.step for track in rollout.tracks.values()} == {DONE}
    assert [node.applies for node in world.nodes.values()] == [1, 1, 1, 1, 1]
    assert world.wrongs == []
    assert {role: group.least for role, group in world.groups.items()} == {"pbx": 2, "sip": 1}
    assert not any(node.paused or node.withdrawn_on for node in world.nodes.values())


@pytest.mark.usefixtures("_no_disk")
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
        assert world.wrongs == [], f"line {line}"
    assert points > 100


@pytest.mark.usefixtures("_no_disk")
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
    assert world.wrongs == []
    assert {track.step for track in rollout.tracks.values()} == {DONE}


def test_a_failed_apply_halts_leaves_that_node_out_and_names_it(tmp_path: Path) -> None:
    world = region()
    world.nodes["pbx-01.w"].ill = "boot"
    rollout = start(world, tmp_path / "journal.jsonl")
    assert "pbx-01.w" in rollout.halted
    track = rollout.tracks["pbx-01.w"]
    assert track.step == FAILED
    assert owed(track) == "drained, withdrawn on sip-01, sip-02"
    assert world.nodes["pbx-01.w"].paused
    assert world.nodes["pbx-01.w"].withdrawn_on == {"sip-01.w", "sip-02.w"}
    others = {name: one.step for name, one in rollout.tracks.items() if name != "pbx-01.w"}
    # The fresh one was its stage-mate and harms nobody; the rest was not begun.
    assert others.pop("pbx-03.w") == DONE
    assert set(others.values()) == {PENDING}

    world.nodes["pbx-01.w"].ill = ""
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
    assert rollout.tracks["pbx-01.w"].step in (FAILED, UNKNOWN, PENDING)
    assert not world.nodes["pbx-01.w"].withdrawn_on


def test_a_sole_proxy_with_calls_is_held_and_the_rest_goes_on(tmp_path: Path) -> None:
    world = region(without="sip-01.w")
    rollout = start(world, tmp_path / "journal.jsonl")
    assert rollout.tracks["sip-02.w"].step == HELD
    assert "no peer" in rollout.tracks["sip-02.w"].detail
    assert not rollout.halted
    assert world.nodes["sip-02.w"].applies == 0
    assert [world.nodes[f"pbx-0{one}.w"].applies for one in (1, 2, 3)] == [1, 1, 1]


@pytest.mark.parametrize("kept", [True, False], ids=["the minion kept it", "nobody kept it"])
def test_a_lost_apply_that_ran_is_recovered_and_not_repeated(
    tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, answer, lost = region(), World._answer, []

    def losing(
        self: World, minion: str, jid: str, value: Any, code: int, job: tuple[Any, ...]
    ) -> None:
        if job[0] == "state.apply" and minion == "pbx-02.w" and not lost:
            lost.append(jid)
            world._running.discard((jid, minion))
            if kept:
                world._kept[jid, minion] = {"value": value, "retcode": code}
        else:
            answer(self, minion, jid, value, code, job)

    monkeypatch.setattr(World, "_answer", losing)
    rollout = start(world, tmp_path / "journal.jsonl")
    assert lost
    assert {one.step for one in rollout.tracks.values()} == {DONE}
    assert world.nodes["pbx-02.w"].applies == 1
    assert world.wrongs == []


def test_a_stop_puts_back_what_was_not_applied_and_resume_goes_on(tmp_path: Path) -> None:
    world = region()
    world.mean_call = 1000.0

    def stop() -> str | None:
        return "stopped by a test" if world.nodes["pbx-01.w"].paused else None

    rollout = start(world, tmp_path / "journal.jsonl", stop=stop)
    assert rollout.halted == "stopped by a test"
    assert not any(node.paused or node.withdrawn_on for node in world.nodes.values())
    assert world.nodes["pbx-01.w"].applies == 0
    world.mean_call = 5.0
    world.nodes["pbx-01.w"].leaving = []
    rollout = start(world, tmp_path / "journal.jsonl")
    assert {one.step for one in rollout.tracks.values()} == {DONE}
    assert world.wrongs == []


@pytest.fixture(scope="module")
def worlds() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="worlds-") as name, simworlds.server(Path(name)) as way:
        yield way


def test_a_guardian_killed_for_real_resumes_to_the_same_end(worlds: Path) -> None:
    # A dozen of the points that `make evidence AREA=controller` kills it at; of every kind.
    lines, wanted = kill_everywhere.whole(worlds)
    assert lines > 300
    for place in range(12):
        line = 1 + int(lines * 0.95) * place // 11
        again = 20 if place % 4 == 3 else 0
        mode = mortal.MODES[place % 3]
        killed, wrongs = kill_everywhere.point(worlds, line, mode, wanted, again)
        assert killed
        assert wrongs == [], (line, mode)
