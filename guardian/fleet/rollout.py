"""The rollout: a pure state machine. Events go in, calls to make come out; no I/O, no clock.

The same events in the same order give the same calls under the same keys, so a journal of events
is the whole state, and a killed run goes on from its last line.

    pending -> size -> measure -> withdraw -> drain -> apply -> checks -> undrain -> restore
               `-- only to restart a node in service -'                        -> soak -> done

A failure or an unknown halts: nothing new is started, nodes not applied yet are put back, applied
ones are checked and put back, and a node that failed stays drained and withdrawn, and is named.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from guardian.config import Rollout as Settings
from guardian.fleet.capacity import Budget, Member, refusal

SIZE, MEASURE, WITHDRAW, DRAIN, APPLY = "size", "measure", "withdraw", "drain", "apply"
CHECKS, UNDRAIN, RESTORE, SOAK = "checks", "undrain", "restore", "soak"
PENDING, DONE, UNCHANGED, HELD = "pending", "done", "unchanged", "held"
FAILED, UNKNOWN = "failed", "unknown"
SETTLED = frozenset({DONE, UNCHANGED, HELD, FAILED, UNKNOWN})

# Before these are over nothing was applied, so the way back is short.
_BEFORE_APPLY = frozenset({SIZE, MEASURE, WITHDRAW, DRAIN})


@dataclass(frozen=True)
class Node:
    """A minion as it was found before the rollout; the list of them is frozen.

    `state` is voice.in_service's. `debt`: an earlier run took it out and owes putting it back.
    `marked`: somebody else drained it (who), so it is left as it is. `left_out`: why this rollout
    does not touch it. Of nodes with one `pair` only one is ever out.
    """

    minion: str
    role: str
    zone: str = ""
    disruption: str = "none"
    changes: int = 0
    state: str = "in_service"
    running: bool = True
    calls: int = 0
    debt: bool = False
    marked: str = ""
    why: tuple[str, ...] = ()
    pair: str = ""
    registrations: int = 0
    left_out: str = ""


@dataclass(frozen=True)
class Call:
    """A function to run on minions; `key` names this very call, over restarts, too."""

    key: str
    minion: str
    step: str
    targets: tuple[str, ...]
    fun: str
    args: tuple[str, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    cap: float = 60.0


@dataclass(frozen=True)
class Note:
    """A transition, for whoever watches."""

    minion: str
    step: str
    detail: str = ""


@dataclass(frozen=True)
class Event:
    """What happened: begin, returned, tick, stop, resume; `now` in seconds of any one clock.

    `returned` carries key, target, whether the outcome is known, whether it is good, and data.
    """

    kind: str
    now: float
    key: str = ""
    target: str = ""
    known: bool = True
    ok: bool = True
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Track:
    """Where one node stands and what is owed to it."""

    node: Node
    step: str = PENDING
    path: list[str] = field(default_factory=list)
    key: str = ""
    calls_made: int = 0
    waiting: set[str] = field(default_factory=set)
    problem: str = ""
    lost: str = ""
    due: float | None = None
    since: float = 0.0
    pending_since: float | None = None
    out: bool = False
    drained: bool = False
    withdrawn: set[str] = field(default_factory=set)
    applied: bool = False
    verdict: str = ""
    detail: str = ""
    calls: int = 0
    capacity: int = 0
    left: int = 0
    drained_calls: int = 0
    drained_seconds: float = 0.0

    @property
    def active(self) -> bool:
        return self.step not in SETTLED and self.step != PENDING

    @property
    def owed(self) -> bool:
        return self.drained or bool(self.withdrawn)


class Rollout:
    """The machine. `handle` an event, make the calls it returns, feed back what they gave."""

    def __init__(self, run: str, nodes: Iterable[Node], settings: Settings) -> None:
        self._run, self._settings = run, settings
        self.proxies = settings.proxies
        self._budget = Budget(settings.max_out, settings.headroom, settings.sole_node)
        self.tracks = {node.minion: Track(node, calls=node.calls) for node in nodes}
        self.halted = ""
        self.notes: list[Note] = []
        self._sets: dict[str, list[Track]] = {}
        for track in self.tracks.values():
            track.out = not track.node.running or track.node.state != "in_service"
            self._sets.setdefault(track.node.role, []).append(track)
        self._stages = _stages(list(self.tracks.values()), settings)
        self.stage = 0
        self._open = [sum(len(queue) for queue in stage.values()) for stage in self._stages]
        self._stage_of = {
            track.node.minion: number
            for number, stage in enumerate(self._stages)
            for queue in stage.values()
            for track in queue
        }
        self._busy: dict[str, int] = {}
        self._measuring: set[str] = set()
        self._flight = 0
        self._repaying = False
        self._due: list[tuple[float, str]] = []
        self._out: list[Call] = []
        self._begun = False

    @property
    def finished(self) -> bool:
        """Nothing is in flight and nothing more will be started."""
        if not self._begun or self._flight:
            return False
        return bool(self.halted) or self.stage >= len(self._stages)

    def next_due(self) -> float | None:
        """When the next tick is due, if any is."""
        while self._due and self.tracks[self._due[0][1]].due != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def handle(self, event: Event) -> list[Call]:
        """Take one event; the calls to make now."""
        self._out = []
        if event.kind == "begin":
            self._begin(event.now)
        elif event.kind == "returned":
            self._returned(event)
        elif event.kind == "tick":
            self._tick(event.now)
        elif event.kind == "stop":
            self._halt(str(event.data.get("why", "stopped")), event.now)
        elif event.kind == "resume":
            self._resume(event.now)
        self._fill(event.now)
        return self._out

    # Starting

    def _begin(self, now: float) -> None:
        self._begun = True
        for track in self.tracks.values():
            if track.node.minion not in self._stage_of:
                marked = track.node.marked
                self._settle(track, UNCHANGED, f"drained by {marked}, left so" if marked else "")
            elif track.node.debt:
                # Owed from the start, so that a halt before its turn still names it.
                track.drained = True
                if track.node.role != self._settings.proxies:
                    track.withdrawn = set(self._proxies())

    def _fill(self, now: float) -> None:
        if not self._begun or self.halted or (self._repaying and self._flight):
            return
        self._repaying = False
        while self.stage < len(self._stages) and not self._open[self.stage]:
            self.stage += 1
            if self.stage < len(self._stages) and self._open[self.stage]:
                self.notes.append(Note("", "wave", self.stage_name()))
        if self.stage >= len(self._stages):
            return
        for role, queue in self._stages[self.stage].items():
            for _ in range(len(queue)):
                if self._flight >= self._settings.in_flight:
                    return
                track = queue[0]
                if track.due is not None or not self._may_start(role, track):
                    break
                queue.popleft()
                self._start(track, now)
                if self.halted:
                    return

    def stage_name(self) -> str:
        """The stage in words; proxies go after those behind them."""
        number, half = divmod(self.stage, 2)
        who = "proxies" if half else "nodes"
        return f"canary {who}" if number == 0 else f"wave {number}, {who}"

    def _may_start(self, role: str, track: Track) -> bool:
        disruptive = self._disruptive(track)
        # One canary of a role at a time, unless it is not in service: that one harms nobody.
        if self.stage < 2 and track.node.running and self._busy.get(role):
            return False
        # One asks at a time: what it hears holds for the whole set.
        return not (disruptive and role in self._measuring)

    def _disruptive(self, track: Track) -> bool:
        node = track.node
        return node.changes > 0 and node.disruption == "restart" and node.state != "out_of_service"

    def _start(self, track: Track, now: float) -> None:
        node = track.node
        self._flight += 1
        self._busy[node.role] = self._busy.get(node.role, 0) + 1
        if track.pending_since is None:
            track.pending_since = now
        back = [UNDRAIN, RESTORE] if track.owed or node.debt else []
        if self._disruptive(track):
            if node.marked:
                self._settle(track, HELD, f"drained by {node.marked} and carries calls; left alone")
                return
            track.path = [WITHDRAW, DRAIN, APPLY, CHECKS, UNDRAIN, RESTORE, SOAK]
            if track.owed:  # it is out already: no budget to ask
                self._next(track, now)
                return
            track.path[:0] = [SIZE, MEASURE]
            self._measuring.add(node.role)
        elif node.changes:
            track.path = [APPLY, CHECKS, *back, SOAK]
        else:
            track.path = [CHECKS, *back, SOAK]
        self._next(track, now)

    def _proxies(self) -> list[str]:
        peers = self._sets.get(self._settings.proxies, [])
        return [track.node.minion for track in peers if track.node.running or track.step == DONE]

    # Steps

    def _next(self, track: Track, now: float) -> None:
        while track.path:
            step = track.path.pop(0)
            if self._enter(track, step, now):
                return
        if track.verdict == PENDING:
            self._requeue(track)
            self._note(track, "put back", track.detail)
            track.detail = ""
        else:
            self._settle(track, track.verdict or DONE, track.detail)

    def _enter(self, track: Track, step: str, now: float) -> bool:
        """Begin a step; false when there is nothing to do in it."""
        proxy = track.node.role == self._settings.proxies
        if step == WITHDRAW and (proxy or not self._proxies()):
            track.out = True
            return False
        if step == RESTORE and not track.withdrawn:
            return False
        if step == UNDRAIN and not track.drained:
            return False
        if step == SOAK and not self._settings.soak:
            return False
        track.step, track.since = step, now
        self._note(track, step)
        if step == SOAK:
            self._wake(track, now + self._settings.soak)
        else:
            self._call(track)
        return True

    def _call(self, track: Track) -> None:
        step, minion, settings = track.step, track.node.minion, self._settings
        cap = settings.call_deadline
        targets: tuple[str, ...] = (minion,)
        args: tuple[str, ...] = ()
        kwargs: dict[str, Any] = {}
        if step in (SIZE, MEASURE):
            fun = "voice.capacity" if step == SIZE else "voice.load"
            peers = self._sets[track.node.role]
            targets = tuple(peer.node.minion for peer in peers if not peer.out)
        elif step == WITHDRAW:
            track.out = True
            targets = tuple(self._proxies())
            track.withdrawn = set(targets)
            fun, args, kwargs = "voice.withdraw", (minion,), {"by": self._run}
        elif step == DRAIN:
            track.out = track.drained = True
            fun, kwargs = "voice.drain", {"by": self._run}
        elif step == APPLY:
            fun, cap = "state.apply", settings.apply_deadline
        elif step == UNDRAIN:
            fun = "voice.undrain"
        elif step == RESTORE:
            targets = tuple(sorted(track.withdrawn))
            fun, args = "voice.restore", (minion,)
        else:
            fun = "voice.checks"
        track.calls_made += 1
        track.key = f"{minion}/{step}/{track.calls_made}"
        track.waiting, track.problem, track.lost = set(targets), "", ""
        self._out.append(Call(track.key, minion, step, targets, fun, args, kwargs, cap))

    def _returned(self, event: Event) -> None:
        track = self.tracks.get(event.key.partition("/")[0])
        if track is None or track.key != event.key or event.target not in track.waiting:
            return
        track.waiting.discard(event.target)
        who = "" if event.target == track.node.minion else f"on {event.target}: "
        if not event.known:
            track.lost = track.lost or f"{who}{event.data.get('why', 'no return')}"
        elif not event.ok:
            track.problem = track.problem or f"{who}{event.data.get('why', 'failed')}"
        elif track.step == SIZE:
            self.tracks[event.target].capacity = int(event.data.get("calls", 0))
        elif track.step == MEASURE:
            self.tracks[event.target].calls = int(event.data.get("calls", 0))
        elif track.step == RESTORE:
            track.withdrawn.discard(event.target)
        if track.waiting:
            return
        track.key = ""
        if track.lost and track.step in (SIZE, MEASURE):
            # No data is no pass; but nothing was done to this node.
            self._fail(track, track.lost, event.now)
            return
        if track.lost:
            track.detail = f"{track.step}: {track.lost}"
            self._settle(track, UNKNOWN, track.detail)
            self._halt(f"{track.node.minion}: {track.detail}", event.now)
            return
        self._judge(track, event)

    def _judge(self, track: Track, event: Event) -> None:
        """All targets answered; what that means for the step."""
        step, now, settings = track.step, event.now, self._settings
        if step == APPLY and event.data.get("busy"):
            self._again(track, now, settings.apply_deadline, "another state run does not end")
        elif step in (CHECKS, SOAK) and track.problem:
            left = settings.checks_deadline if step == CHECKS else 0.0
            self._again(track, now, left, track.problem)
        elif track.problem:
            self._fail(track, track.problem, now)
        elif self.halted and step in _BEFORE_APPLY and not track.verdict:
            self._turn_back(track, PENDING, "not started, the run was halted", now)
        elif step == MEASURE:
            self._measured(track, now)
        elif step == DRAIN:
            self._drained(track, event)
        else:
            if step == APPLY:
                track.applied = True
            if step == UNDRAIN:
                track.drained = False
            if step == RESTORE or (step == UNDRAIN and not track.withdrawn):
                track.out = False
            if step == CHECKS and not track.owed and not track.node.marked:
                track.out = False
            self._next(track, now)

    def _again(self, track: Track, now: float, deadline: float, why: str) -> None:
        if now - track.since >= deadline:
            self._fail(track, why, now)
        else:
            self._wake(track, now + self._settings.poll)

    def _measured(self, track: Track, now: float) -> None:
        self._measuring.discard(track.node.role)
        members = [
            Member(peer.node.minion, not peer.out, peer.capacity, 0 if peer.out else peer.calls)
            for peer in self._sets[track.node.role]
        ]
        why = refusal(self._budget, members, track.node.minion)
        if why is None:
            track.drained_calls = track.calls
            self._next(track, now)
            return
        peers = [peer for peer in self._sets[track.node.role] if peer is not track]
        coming = any(peer.active or (peer.step == PENDING and peer.out) for peer in peers)
        room = any(not peer.out for peer in peers)
        waited = now - (now if track.pending_since is None else track.pending_since)
        if (coming or room) and waited < self._settings.capacity_deadline:
            self._note(track, "waits", why)
            self._requeue(track)
            self._wake(track, now + self._settings.poll)
        else:
            self._settle(track, HELD, f"needs a restart, but {why}")

    def _drained(self, track: Track, event: Event) -> None:
        settings, now = self._settings, event.now
        left = track.left = int(event.data.get("calls") or 0)
        late = now - track.since >= settings.drain_deadline
        track.drained_calls = max(track.drained_calls, left)
        if event.data.get("drained"):
            track.drained_seconds = now - track.since
            self._next(track, now)
        elif late and settings.on_deadline == "skip":
            why = f"{_calls(left)} still up after {settings.drain_deadline:g} s of drain"
            self._turn_back(track, HELD, why, now)
        else:
            overdue = ", past the deadline; `guardian stop` puts it back" if late else ""
            self._note(track, DRAIN, f"{_calls(left)} left{overdue}")
            self._wake(track, now + settings.poll)

    def _measured_out(self, track: Track) -> None:
        if track.step in (SIZE, MEASURE):
            self._measuring.discard(track.node.role)

    # Ends

    def _fail(self, track: Track, why: str, now: float) -> None:
        detail = f"{track.step}: {why}"
        first = not track.verdict
        track.problem = ""
        self._measured_out(track)
        if track.step in (WITHDRAW, DRAIN) and first:
            self._turn_back(track, FAILED, detail, now)
        else:
            track.out = True
            self._settle(track, FAILED, f"{track.detail}; {detail}" if track.detail else detail)
        self._halt(f"{track.node.minion}: {detail}", now)

    def _turn_back(self, track: Track, verdict: str, detail: str, now: float) -> None:
        """Undo what was owed so far, then end as `verdict`."""
        self._measured_out(track)
        track.verdict, track.detail = verdict, detail
        track.path = [UNDRAIN, RESTORE]
        self._next(track, now)

    def _halt(self, why: str, now: float) -> None:
        if self.halted:
            return
        self.halted = why
        self._note(None, "halt", why)
        for track in self.tracks.values():
            idle = track.active and not track.key and not track.verdict
            if idle and track.step in _BEFORE_APPLY:
                track.due = None
                self._turn_back(track, PENDING, "not started, the run was halted", now)

    def _settle(self, track: Track, step: str, detail: str) -> None:
        if track.active or (track.step == PENDING and step == HELD):
            self._flight -= 1
            self._busy[track.node.role] -= 1
        self._measured_out(track)
        track.step, track.detail, track.due, track.key = step, detail, None, ""
        track.verdict, track.path = "", []
        if step in (DONE, HELD) and track.node.minion in self._stage_of:
            self._open[self._stage_of[track.node.minion]] -= 1
        self._note(track, step, detail)

    def _requeue(self, track: Track) -> None:
        self._flight -= 1
        self._busy[track.node.role] -= 1
        track.step, track.path, track.verdict, track.due = PENDING, [], "", None
        track.out = track.node.state != "in_service" or not track.node.running
        stage = self._stage_of[track.node.minion]
        self._stages[stage].setdefault(track.node.role, deque()).append(track)

    # Time and second chances

    def _wake(self, track: Track, at: float) -> None:
        track.due = at
        heappush(self._due, (at, track.node.minion))

    def _tick(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, minion = heappop(self._due)
            track = self.tracks[minion]
            track.due = None
            if track.active:
                self._call(track)

    def _resume(self, now: float) -> None:
        """Nodes that owe or are owed go first; those held or failed get another chance after."""
        self.halted = ""
        self._repaying = True
        again = [track for track in self.tracks.values() if track.step in (FAILED, UNKNOWN, HELD)]
        for track in again:
            minion = track.node.minion
            if track.step == HELD:
                self._open[self._stage_of[minion]] += 1
            self.stage = min(self.stage, self._stage_of[minion])
            owed = track.owed and track.step != HELD
            track.step, track.detail, track.verdict = PENDING, "", ""
            track.pending_since = None
            if owed:
                self._start(track, now)
            else:
                track.out = track.node.state != "in_service" or not track.node.running
                self._stages[self._stage_of[minion]][track.node.role].appendleft(track)

    def _note(self, track: Track | None, step: str, detail: str = "") -> None:
        self.notes.append(Note(track.node.minion if track else "", step, detail))


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"


def _stages(tracks: list[Track], settings: Settings) -> list[dict[str, deque[Track]]]:
    """Canaries (one a role and zone), then the waves; of each, proxies after those behind them.

    Two stages each, so that a proxy is never taken out while it is needed to withdraw a peer.
    """
    work = [track for track in tracks if track.node.changes or track.node.debt]
    # What is not in service first: it harms nobody, and the others may need it as a peer.
    work.sort(key=lambda track: (track.node.running, track.node.minion))
    canaries: dict[tuple[str, str], Track] = {}
    for track in work:
        canaries.setdefault((track.node.role, track.node.zone), track)
    chosen = {track.node.minion for track in canaries.values()}
    by_role: dict[str, list[Track]] = {}
    for track in work:
        if track.node.minion not in chosen:
            by_role.setdefault(track.node.role, []).append(track)
    # Spread the roles evenly over the waves.
    rest = sorted(
        ((place / len(queue), track.node.minion, track)
         for queue in by_role.values() for place, track in enumerate(queue)),
        key=lambda entry: entry[:2],
    )  # fmt: skip
    groups = [list(canaries.values())]
    for wave in settings.waves:
        width = len(rest) if wave == 100 else max(1, len(work) * wave // 100)
        groups.append([track for _, _, track in rest[:width]])
        rest = rest[width:]
    stages: list[dict[str, deque[Track]]] = []
    for group in groups:
        for proxies in (False, True):
            stage: dict[str, deque[Track]] = {}
            for track in group:
                if (track.node.role == settings.proxies) == proxies:
                    stage.setdefault(track.node.role, deque()).append(track)
            stages.append(stage)
    return stages
