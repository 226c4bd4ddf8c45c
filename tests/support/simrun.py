"""Rollouts of simulated regions made from a seed, and what must hold of every one of them."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from guardian.config import Rollout as Settings
from guardian.fleet.drive import Drive
from guardian.fleet.master import Jids, Job
from guardian.fleet.rollout import DONE, HELD, UNCHANGED, Node, Note, Rollout
from guardian.fleet.survey import OWNER
from guardian.journal import Journal
from guardian.ui.summary import owed
from tests.support.simmaster import Clock, SimMaster, virtual
from tests.support.simulator import Faults, SimNode, World

WEEK = 7 * 86_400.0
ATTEMPTS = 6
_DISRUPTIVE = ("voice.withdraw", "voice.drain", "state.apply")
SETTINGS = Settings(trial_calls=3, judge_calls=50)


def region(seed: int, size: int = 1000, *, calm: bool = False) -> World:
    """A region of that size; what is in it, how slow, and what goes wrong come from the seed."""
    dice = Random(seed)
    proxies = dice.randrange(2, 9)
    nodes: dict[str, SimNode] = {}
    media = max(2, size // 12)
    change = dice.choice(["restart", "restart", "mixed", "reload"])
    for number in range(size):
        role = "sip" if number < proxies else "fsx" if number < proxies + media else "pbx"
        node = SimNode(role, dice.choice("abc"), calls=0 if role == "sip" else dice.randrange(20))
        node.disruption = change if change != "mixed" else dice.choice(["restart", "reload"])
        node.capacity = None if role == "sip" else 60
        if change == "mixed" and dice.random() < 0.3:
            node.config = 1
        nodes[f"{role}-{number:05d}.w"] = node
    for role in ("sip", "pbx"):
        names = [name for name, node in nodes.items() if node.role == role]
        for number in range(0, len(names) - 1, 2):
            if dice.random() < 0.1 and len(names) > 2:
                nodes[names[number]].pair = nodes[names[number + 1]].pair = f"p{number}"
    faults = Faults(
        latency=dice.choice([0.05, 0.2, 1.0]),
        apply=dice.choice([5.0, 20.0, 60.0]),
        lost_on_bus=dice.choice([0, 5, 50]),
        doubled=dice.choice([0, 20]),
        flaps=dice.choice([0, 5]),
    )
    if calm or seed % 4 == 0:
        return World(nodes, seed=seed, faults=faults)
    names = list(nodes)
    for name in dice.sample(names, dice.randrange(4)):
        nodes[name].running, nodes[name].calls = False, 0
    for name in dice.sample(names, dice.randrange(3)):
        nodes[name].ill = dice.choice(["boot", "failing", "gateways"])
    for name in dice.sample(names, dice.randrange(3)):
        if nodes[name].running:
            nodes[name].paused, nodes[name].calls = True, 0
            nodes[name].mark = dice.choice(["guardian earlier", "ann@desk"])
    rough = dice.random() < 0.5
    faults = Faults(
        faults.latency,
        faults.apply,
        lost_on_bus=faults.lost_on_bus,
        doubled=faults.doubled,
        flaps=faults.flaps,
        lost_return=dice.choice([0, 1, 3]) if rough else 0,
        lost_publish=dice.choice([0, 0, 1]) if rough else 0,
        late_publish=dice.choice([0, 2]) if rough else 0,
        away=((after := dice.uniform(5, 900), after + dice.choice([5.0, 60.0])),) if rough else (),
    )
    world = World(nodes, seed=seed, faults=faults)
    for name in dice.sample(names, dice.randrange(4)):
        after = dice.uniform(0, 1200)
        world.dies(name, after, after + dice.uniform(5, 300) if dice.random() < 0.5 else None)
    return world


def found(world: World) -> list[Node]:
    """The nodes as a survey finds them."""
    known = {one.name for one in fields(Node)}
    nodes = []
    for name, node in sorted(world.nodes.items()):
        changes = int(node.config != world.wanted or not node.running)
        debt = node.mark.startswith(OWNER)
        facts: dict[str, Any] = {
            "minion": name,
            "role": node.role,
            "zone": node.zone,
            "pair": node.pair,
            "disruption": node.disruption if changes else "none",
            "changes": changes,
            "state": world._in_service(name)["state"],
            "running": node.running,
            "calls": world.calls(node),
            "debt": debt,
            "marked": "" if debt else node.mark,
        }
        nodes.append(Node(**{key: value for key, value in facts.items() if key in known}))
    return nodes


class _Watched(SimMaster):
    """A link that says what was told to nodes that had not begun when the run was halted."""

    drive: Drive | None = None

    def submit(self, job: Job) -> None:
        assert self.drive is not None
        if job.fun in _DISRUPTIVE and not job.kwargs.get("test"):
            for target in job.targets:
                minion = str(job.args[0]) if job.fun == "voice.withdraw" else target
                if self.drive.rollout.halted and minion not in self.begun:
                    self._world._wrong(f"{minion}: {job.fun} after the halt")
        super().submit(job)

    begun: set[str]


@dataclass
class Result:
    """A rollout, over all its attempts."""

    world: World
    rollout: Rollout
    clock: Clock
    wrongs: list[str]
    attempts: int = 1
    halts: list[str] = field(default_factory=list)
    steps: int = 0
    lines: int = 0
    stages: list[list[str]] = field(default_factory=list)


def roll(
    world: World,
    settings: Settings = SETTINGS,
    *,
    seed: int = 0,
    cpu: bool = False,
    sync: bool = False,
    keep: Path | None = None,
    attempts: int = ATTEMPTS,
) -> Result:
    """Roll a region to its end: when it halts, mend something and resume, `attempts` at most."""
    dice, clock, jids = Random(seed), Clock(world, cpu=cpu), Jids(lambda: world.now)
    result = Result(world, Rollout("", [], settings), clock, world.wrongs)
    last: dict[str, str] = {}

    begun: set[str] = set()
    halts: list[bool] = []

    def show(note: Note, _: Rollout) -> None:
        if not note.minion:
            if note.step == "wave":
                result.stages.append([])
            halts.append(note.step == "halt")
            return
        if not any(halts):
            begun.add(note.minion)
        if note.minion not in last or last[note.minion] != note.step:
            result.steps += 1
        if note.minion not in last and result.stages:
            result.stages[-1].append(note.minion)
        last[note.minion] = note.step

    result.stages.append([])
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roll-")))
        if not sync:
            stack.enter_context(mock.patch("os.fdatasync", lambda handle: None))
        stack.enter_context(virtual(clock))
        nodes = found(world)
        for attempt in range(1, attempts + 1):
            journal = Journal(directory / "journal.jsonl", "run", clock.time)
            link = _Watched(world, clock, jids)
            halts.clear()
            begun.clear()
            link.begun = begun
            drive = link.drive = Drive(link, journal, jids, clock.time, show)
            clock.settle()
            if attempt == 1:
                drive.begin(nodes, settings)
            else:
                drive.resume()
            rollout = drive.run(_patience(world))
            clock.settle()
            result.lines = len(journal.entries)
            journal.close()
            result.rollout, result.attempts = rollout, attempt
            result.halts.append(rollout.halted)
            _forgotten(world, rollout)
            if not rollout.halted:
                break
            if attempt < attempts:
                _mend(world, dice, everything=attempt >= attempts - 2)
        if keep is not None:
            shutil.copy(directory / "journal.jsonl", keep)
    if attempts == ATTEMPTS:
        _ended(result)
    return result


def _patience(world: World) -> Callable[[], str | None]:
    until = world.now + WEEK
    return lambda: "it does not end" if world.now > until else None


def _mend(world: World, dice: Random, *, everything: bool) -> None:
    """What an operator does between a halt and `guardian resume`."""
    world.advance(world.now + 60)
    world.attempt += 1
    for node in world.nodes.values():
        if everything or dice.random() < 0.7:
            node.dead = False
            node.ill = ""
    if everything:
        world.faults = Faults(world.faults.latency, world.faults.apply)


def _forgotten(world: World, rollout: Rollout) -> None:
    """Whoever is out of service is named when a run has ended."""
    for name, node in world.nodes.items():
        theirs = node.mark and not node.mark.startswith(OWNER)
        if (node.paused or node.withdrawn_on) and not theirs and not owed(rollout.tracks[name]):
            world._wrong(f"{name}: left out and not named ({rollout.tracks[name].step})")


def _ended(result: Result) -> None:
    world, rollout = result.world, result.rollout
    if rollout.halted:
        world._wrong(f"it still halts when everything is mended: {rollout.halted}")
        return
    steps = Counter(track.step for track in rollout.tracks.values())
    if set(steps) - {DONE, HELD, UNCHANGED}:
        world._wrong(f"it ended with {dict(steps)}")
    for name, track in rollout.tracks.items():
        node = world.nodes[name]
        if track.step == DONE and (node.config != world.wanted or not node.running):
            world._wrong(f"{name}: done, and not as wanted")
