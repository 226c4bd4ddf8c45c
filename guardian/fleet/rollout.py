"""The rollout: a pure state machine. Events go in, calls to make come out; no I/O, no clock.

The same events in the same order give the same calls under the same keys, so a journal of events
is the whole state, and a killed run goes on from its last line.

    pending -> withdraw -> drain -> apply -> checks -> undrain -> trial -> restore -> soak -> done
               `- only to restart a node in service -' `- only if drained -----'

A canary is judged against its peers over its soak; between waves every changed node is checked.
A failure or an unknown halts: nothing new is started, nodes not applied yet are put back, applied
ones are checked and put back, and a node that failed stays drained and withdrawn, and is named.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from guardian.config import Rollout as Settings
from guardian.fleet import judge, waves
from guardian.fleet.capacity import Budget
from guardian.fleet.sets import FRESH, Set
from guardian.fleet.track import (
    APPLY,
    BASELINE,
    BEFORE_APPLY,
    CHECKS,
    DONE,
    DRAIN,
    END_CALLS,
    FAILED,
    GATE,
    HELD,
    JUDGE,
    MEASURE,
    PENDING,
    PULL,
    RESTORE,
    SIZE,
    SOAK,
    TRIAL,
    UNCHANGED,
    UNDRAIN,
    UNKNOWN,
    WITHDRAW,
    Call,
    Event,
    Node,
    Note,
    Track,
)

FLEET = "fleet"
SET = "set:"
_PEERS = 10
# A drain is looked at less often the longer it takes, so that a long one costs little.
_PATIENCE, _LONGEST_LOOK = 0.1, 30.0
_FUNCTIONS = {
    SIZE: "voice.capacity",
    MEASURE: "voice.load",
    GATE: "voice.checks",
    WITHDRAW: "voice.withdraw",
    DRAIN: "voice.drain",
    PULL: "voice.drain",
    END_CALLS: "voice.end_calls",
    APPLY: "state.apply",
    CHECKS: "voice.checks",
    SOAK: "voice.checks",
    UNDRAIN: "voice.undrain",
    TRIAL: "voice.trial",
    RESTORE: "voice.restore",
    BASELINE: "voice.measures",
    JUDGE: "voice.measures",
}


class Rollout:
    """The machine. `handle` an event, make the calls it returns, feed back what they gave."""

    def __init__(self, run: str, nodes: Iterable[Node], settings: Settings) -> None:
        self._run, self.settings = run, settings
        self.proxies = settings.proxies
        self._budget = Budget(settings.max_out, settings.headroom, settings.sole_node)
        self.tracks = {node.minion: Track(node, calls=node.calls) for node in nodes}
        self.halted = self.no_drain = ""
        self.notes: list[Note] = []
        self.in_flight: dict[str, Call] = {}
        self._sets: dict[str, Set] = {}
        for track in self.tracks.values():
            track.out = _out(track.node)
            role = track.node.role
            self._sets.setdefault(role, Set(role, [])).tracks.append(track)
        found = [track.node for track in self.tracks.values()]
        self._canaries = {node.minion for node in waves.canaries(found)}
        self._stages = waves.stages(found, settings)
        self.stage = 0
        self._open = [sum(len(queue) for queue in stage.values()) for stage in self._stages]
        self._stage_of = {
            minion: number
            for number, stage in enumerate(self._stages)
            for queue in stage.values()
            for minion in queue
        }
        self._gate = _Gate()
        self._busy: dict[str, int] = {}
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
        while self._due and self._waits(self._due[0][1]) != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def handle(self, event: Event) -> list[Call]:
        """Take one event; the calls to make now."""
        self._out = []
        if event.kind == "begin":
            self._begin()
        elif event.kind == "returned":
            self._returned(event)
        elif event.kind == "round":
            self._round(event)
        elif event.kind == "tick":
            self._tick(event.now)
        elif event.kind == "stop":
            self._halt(str(event.data.get("why", "stopped")), event.now)
        elif event.kind == "peak":
            self.no_drain = str(event.data.get("why", ""))
        elif event.kind == "resume":
            self._resume(event.now)
        self._fill(event.now)
        return self._out

    # Starting

    def _begin(self) -> None:
        self._begun = True
        for track in self.tracks.values():
            node = track.node
            if node.minion not in self._stage_of:
                marked = f"drained by {node.marked}, left so" if node.marked else ""
                self._settle(track, UNCHANGED, node.left_out or marked)
            elif node.debt:
                # Owed from the start, so that a halt before its turn still names it.
                track.drained = True
                if node.role != self.proxies:
                    track.withdrawn = set(self._proxies())

    def _fill(self, now: float) -> None:
        """Start whoever may start, in this stage and, when all of it is settled, in the next."""
        if not self._begun or (self._repaying and self._flight):
            return
        self._repaying = False
        while not self.halted and self._entered(now):
            for role, queue in self._stages[self.stage].items():
                self._fill_role(role, queue, now)
            if self._open[self.stage]:
                return

    def _entered(self, now: float) -> bool:
        """Go on to the stage that has work; false when there is none or its gate is not passed."""
        while self.stage < len(self._stages) and not self._open[self.stage]:
            if self._gated(now):
                return False
            self.stage += 1
            if self.stage < len(self._stages) and self._open[self.stage]:
                self._note("", "wave", self.stage_name())
        return self.stage < len(self._stages)

    def _fill_role(self, role: str, queue: deque[str], now: float) -> None:
        while queue and not self.halted and self._flight < self.settings.in_flight:
            track = self.tracks[queue[0]]
            if not self._may_start(role, track, now):
                return
            queue.popleft()
            if track.step == PENDING:  # or it was settled instead
                self._start(track, now)

    def stage_name(self) -> str:
        """The stage in words; proxies go after those behind them."""
        return waves.name(self.stage)

    def _may_start(self, role: str, track: Track, now: float) -> bool:
        """Whether a node's turn is now; also true when it was settled without one."""
        node = track.node
        # One canary of a role at a time, unless it is not in service: that one harms nobody.
        if self.stage < 2 and node.running and self._busy.get(role):
            return False
        if not node.disruptive or track.owed:
            return True
        if node.marked:
            why = f"drained by {node.marked} and carries calls; left alone"
            return self._settle(track, HELD, why)
        if self.no_drain:
            return self._settle(track, HELD, f"needs a restart, but {self.no_drain}")
        group = self._sets[role]
        if group.asking or group.blocked:
            return False
        if now < track.mute_until:
            self._settle(track, FAILED, f"measure: {track.lost}")
            self._halt(f"{node.minion}: {track.detail}", now)
            return True
        if not group.fresh(now):
            self._look(group, now)
            return False
        why_not = group.refusal(self._budget, track)
        return True if why_not is None else self._refused(group, track, why_not, now)

    def _look(self, group: Set, now: float) -> None:
        """Ask a whole set at once: whoever wants to leave it is served by the answers."""
        unsized = group.unsized(now)
        group.step = SIZE if unsized else MEASURE
        targets = tuple(unsized or group.askable(now))
        group.looks += 1
        group.asking = f"{SET}{group.role}/{group.step}/{group.looks}"
        group.due = None
        self._make(group.asking, group.step, targets)

    def _refused(self, group: Set, track: Track, why: str, now: float) -> bool:
        peers = [peer for peer in group.tracks if peer is not track]
        if any(peer.active for peer in peers):
            track.stuck_since = None  # a place comes free by itself
        elif track.stuck_since is None:
            track.stuck_since = now
        waited = 0.0 if track.stuck_since is None else now - track.stuck_since
        hope = any(not peer.out or peer.active or peer.step == PENDING for peer in peers)
        if not hope or waited >= self.settings.capacity_deadline:
            return self._settle(track, HELD, f"needs a restart, but {why}")
        if track.detail != why:
            track.detail = why
            self._note(track.node.minion, "waits", why)
        group.blocked = True
        self._wake(group, SET + group.role, now + max(self.settings.poll, FRESH))
        return False

    def _start(self, track: Track, now: float) -> None:
        node = track.node
        self._flight += 1
        self._busy[node.role] = self._busy.get(node.role, 0) + 1
        track.detail, track.stuck_since = "", None
        watch = [BASELINE, SOAK, JUDGE]
        back = [UNDRAIN, TRIAL, RESTORE] if track.owed or node.debt else []
        if node.disruptive:
            out, back = [WITHDRAW, DRAIN], [UNDRAIN, TRIAL, RESTORE]
            track.path = [*out, APPLY, CHECKS, *back, *watch]
            track.out = True
            track.drained_calls = max(track.drained_calls, track.calls)
        else:
            track.path = [APPLY, CHECKS, *back, *watch] if node.changes else [CHECKS, *back, SOAK]
        self._next(track, now)

    def _proxies(self) -> list[str]:
        peers = self._sets[self.proxies].tracks if self.proxies in self._sets else []
        return [track.node.minion for track in peers if track.node.running or track.step == DONE]

    # Steps

    def _next(self, track: Track, now: float) -> None:
        while track.path:
            step = track.path.pop(0)
            if self._enter(track, step, now):
                return
        if track.verdict == PENDING:
            self._requeue(track)
            self._note(track.node.minion, "put back", track.detail)
            track.detail = ""
        else:
            self._settle(track, track.verdict or DONE, track.detail)

    def _enter(self, track: Track, step: str, now: float) -> bool:
        """Begin a step; false when there is nothing to do in it."""
        node, settings = track.node, self.settings
        proxy = node.role == self.proxies
        judged = node.minion in self._canaries and settings.soak and settings.judge_calls
        needed = {
            # All of them: of one put back half way, some proxies give it calls again.
            WITHDRAW: not proxy and not set(self._proxies()) <= track.withdrawn,
            RESTORE: bool(track.withdrawn),
            UNDRAIN: track.drained,
            TRIAL: bool(settings.trial_calls and (proxy or track.withdrawn)),
            BASELINE: bool(judged),
            SOAK: bool(settings.soak),
            JUDGE: bool(judged and track.baseline),
        }
        if not needed.get(step, True):
            if step == TRIAL:
                self._back(track)
            return False
        track.step, track.since = step, now
        self._note(node.minion, step)
        if step == SOAK:
            self._wake(track, node.minion, now + settings.soak)
        else:
            self._call(track)
        return True

    def _call(self, track: Track) -> None:
        step, minion, settings = track.step, track.node.minion, self.settings
        targets: tuple[str, ...] = (minion,)
        args: tuple[str, ...] = ()
        kwargs: dict[str, Any] = {}
        if step == WITHDRAW:
            targets = tuple(self._proxies())
            track.out = True
            track.withdrawn |= set(targets)
            args, kwargs = (minion,), {"by": self._run}
        elif step in (DRAIN, PULL):
            track.out = track.drained = True
            kwargs = {"by": self._run}
        elif step == APPLY:
            track.suspect = True
        elif step == END_CALLS:
            kwargs = {"by": self._run}
        elif step == TRIAL:
            targets, args = (self._caller(track),), (minion,)
            kwargs = {"calls": settings.trial_calls}
        elif step == RESTORE:
            targets, args = tuple(sorted(track.withdrawn)), (minion,)
        elif step == BASELINE:
            targets = (minion, *self._fresh_peers(track))
        elif step == JUDGE:
            targets = tuple(track.baseline)
        track.calls_made += 1
        track.key = f"{minion}/{step}/{track.calls_made}"
        track.waiting, track.problem, track.lost = set(targets), "", ""
        self._make(track.key, step, targets, args, kwargs)

    def _make(
        self,
        key: str,
        step: str,
        targets: tuple[str, ...],
        args: tuple[str, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        settings = self.settings
        cap = settings.apply_deadline if step == APPLY else settings.call_deadline
        call = Call(key, step, targets, _FUNCTIONS[step], args, kwargs or {}, cap)
        self.in_flight[key] = call
        self._out.append(call)

    def _caller(self, track: Track) -> str:
        """Who tries calls to a node: a proxy by itself, others by a proxy, if need be a drained."""
        if track.node.role == self.proxies:
            return track.node.minion
        return min(track.withdrawn, key=lambda one: (self.tracks[one].out, one))

    def _fresh_peers(self, track: Track) -> list[str]:
        """Peers in service that this rollout has not changed, those of the same zone first."""
        fresh = [
            peer.node
            for peer in self._sets[track.node.role].tracks
            if not (peer is track or peer.out or peer.lost or peer.applied or peer.active)
        ]
        fresh.sort(key=lambda node: (node.zone != track.node.zone, node.minion))
        return [node.minion for node in fresh[:_PEERS]]

    # Answers

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
        elif track.step == RESTORE:
            track.withdrawn.discard(event.target)
        if track.waiting:
            return
        self.in_flight.pop(track.key, None)
        track.key = ""
        if track.lost:
            track.detail = f"{track.step}: {track.lost}"
            self._settle(track, UNKNOWN, track.detail)
            self._halt(f"{track.node.minion}: {track.detail}", event.now)
            return
        self._judge(track, event)

    def _judge(self, track: Track, event: Event) -> None:
        """All targets answered; what that means for the step."""
        step, now, settings = track.step, event.now, self.settings
        if step == APPLY and event.data.get("busy"):
            self._again(track, now, settings.apply_deadline, "another state run does not end")
        elif step in (CHECKS, TRIAL) and track.problem:
            self._again(track, now, settings.checks_deadline, track.problem)
        elif track.problem:
            self._fail(track, track.problem, now)
        elif self.halted and step in BEFORE_APPLY and not track.verdict:
            self._turn_back(track, PENDING, "not started, the run was halted", now)
        elif step == DRAIN:
            self._drained(track, event)
        elif step == END_CALLS:
            track.ended += int(event.data.get("ended") or 0)
            track.path.insert(0, DRAIN)
            self._next(track, now)
        else:
            if step == APPLY:
                track.applied = True
                self._sets[track.node.role].sized.discard(track.node.minion)
            if step == CHECKS:
                track.suspect = False
            if step == UNDRAIN:
                track.drained = False
            if step in (UNDRAIN, RESTORE, CHECKS, TRIAL):
                self._back(track)
            self._next(track, now)

    def _back(self, track: Track) -> None:
        """A node that owes nothing and is to be tried no more serves again."""
        if track.owed or track.node.marked or TRIAL in track.path:
            return
        track.out, track.mute_until = False, 0.0
        self._sets[track.node.role].blocked = False

    def _again(self, track: Track, now: float, deadline: float, why: str) -> None:
        if now - track.since >= deadline:
            self._fail(track, why, now)
        else:
            self._wake(track, track.node.minion, now + self.settings.poll)

    def _drained(self, track: Track, event: Event) -> None:
        settings, now = self.settings, event.now
        left = track.left = int(event.data.get("calls") or 0)
        passed = now - track.since
        late = passed >= settings.drain_deadline
        track.drained_calls = max(track.drained_calls, left)
        if event.data.get("drained"):
            track.drained_seconds += passed
            self._next(track, now)
        elif late and settings.on_deadline == "skip":
            why = f"{_calls(left)} still up after {settings.drain_deadline:g} s of drain"
            self._turn_back(track, HELD, why, now)
        elif late and settings.on_deadline == "force":
            track.drained_seconds += passed
            self._note(track.node.minion, END_CALLS, f"{_calls(left)}, by force")
            self._enter(track, END_CALLS, now)
        else:
            overdue = ", past the deadline; `guardian stop` puts it back" if late else ""
            self._note(track.node.minion, DRAIN, f"{_calls(left)} left{overdue}")
            look = max(settings.poll, min(passed * _PATIENCE, _LONGEST_LOOK))
            self._wake(track, track.node.minion, now + look)

    def _round(self, event: Event) -> None:
        """Many were asked at once, and have answered or will not."""
        subject = event.key.partition("/")[0]
        track, group = self.tracks.get(subject), self._sets.get(subject.removeprefix(SET))
        if subject == FLEET and event.key == self._gate.key:
            self._gate_answered(event)
        elif track is not None and event.key == track.key:
            self._measured(track, event)
        elif group is not None and subject == SET + group.role and event.key == group.asking:
            group.heard(event)
            group.blocked = False
        else:
            return
        self.in_flight.pop(event.key, None)

    # A canary against its peers

    def _measured(self, track: Track, event: Event) -> None:
        track.key, now, minion = "", event.now, track.node.minion
        track.waiting = set()
        good = {one: found for one, found in event.data.items() if found["known"] and found["ok"]}
        if minion not in good:
            why = str(event.data[minion].get("why", "no answer"))
            # No data is no pass; but it went through its checks, so its calls are left to it.
            self._again(track, now, self.settings.checks_deadline, f"{why}; left in service")
            return
        if track.step == BASELINE:
            track.baseline = good
            self._next(track, now)
            return
        peers = [(track.baseline[one], good[one]) for one in good if one != minion]
        found = judge.verdict(
            (track.baseline[minion], good[minion]),
            peers,
            margin=self.settings.judge_margin,
            least=self.settings.judge_calls,
        )
        self._note(minion, JUDGE, found.why)
        if found.good:
            self._next(track, now)
        else:
            self._pull(track, f"{JUDGE}: worse than its peers: {found.why}", now)

    def _pull(self, track: Track, detail: str, now: float) -> None:
        """Take an applied node from calls without cutting any: withdrawn, and left to drain."""
        group = self._sets[track.node.role]
        stays = None if track.out else group.refusal(self._budget, track)
        track.verdict, track.detail, track.problem = FAILED, detail, ""
        if stays is None:
            track.path = [WITHDRAW, PULL]
        else:
            track.path, track.detail = [], f"{detail}; left in service: {stays}"
        self._next(track, now)
        self._halt(f"{track.node.minion}: {detail}", now)

    # Health between waves

    def _gated(self, now: float) -> bool:
        """Whether the next wave must wait for the nodes changed so far."""
        gate = self._gate
        if self.stage % 2 == 0 or self.stage in gate.passed:
            return False
        if not any(self._open[self.stage + 1 :]):
            return False
        if gate.key or gate.due is not None:
            return True
        proxies = set(self._proxies())
        targets = tuple(
            minion
            for minion, track in self.tracks.items()
            if not track.out and (track.applied or minion in proxies)
        )
        if not any(self.tracks[minion].applied for minion in targets):
            return False
        if gate.since is None:
            gate.since = now
        gate.asked += 1
        gate.key = f"{FLEET}/{GATE}/{gate.asked}"
        self._make(gate.key, GATE, targets)
        return True

    def _gate_answered(self, event: Event) -> None:
        gate, now = self._gate, event.now
        gate.key = ""
        bad = [
            f"{minion}: {found.get('why', 'no answer')}"
            for minion, found in sorted(event.data.items())
            if not (found["known"] and found["ok"])
        ]
        if not bad:
            self._note("", GATE, f"{len(event.data)} nodes healthy after {self.stage_name()}")
            gate.passed.add(self.stage)
            gate.since = None
        elif gate.since is not None and now - gate.since >= self.settings.checks_deadline:
            gate.since = None
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            self._halt(f"after {self.stage_name()}: {bad[0]}{more}", now)
        else:
            self._wake(gate, FLEET, now + self.settings.poll)

    # Ends

    def _fail(self, track: Track, why: str, now: float) -> None:
        detail = f"{track.step}: {why}"
        first = not track.verdict
        track.problem = ""
        if track.step in BEFORE_APPLY and first:
            self._turn_back(track, FAILED, detail, now)
        elif track.step == TRIAL and first:
            self._pull(track, detail, now)
        else:
            track.out = track.out or track.step not in (BASELINE, JUDGE)
            self._settle(track, FAILED, f"{track.detail}; {detail}" if track.detail else detail)
        self._halt(f"{track.node.minion}: {detail}", now)

    def _turn_back(self, track: Track, verdict: str, detail: str, now: float) -> None:
        """Undo what was owed so far, then end as `verdict`."""
        track.verdict, track.detail = verdict, detail
        # One that failed before gets no calls unseen, whoever stops the run that would mend it.
        track.path = [CHECKS, UNDRAIN, TRIAL, RESTORE] if track.suspect else [UNDRAIN, RESTORE]
        self._next(track, now)

    def _halt(self, why: str, now: float) -> None:
        if self.halted:
            return
        self.halted = why
        self._note("", "halt", why)
        for track in self.tracks.values():
            idle = track.active and not track.key and not track.verdict
            if idle and track.step in BEFORE_APPLY:
                track.due = None
                self._turn_back(track, PENDING, "not started, the run was halted", now)

    def _settle(self, track: Track, step: str, detail: str) -> bool:
        if track.active:
            self._flight -= 1
            self._busy[track.node.role] -= 1
        track.step, track.detail, track.due, track.key = step, detail, None, ""
        track.verdict, track.path = "", []
        self._sets[track.node.role].blocked = False
        if step in (DONE, HELD) and track.node.minion in self._stage_of:
            self._open[self._stage_of[track.node.minion]] -= 1
        self._note(track.node.minion, step, detail)
        return True

    def _requeue(self, track: Track) -> None:
        self._flight -= 1
        self._busy[track.node.role] -= 1
        track.step, track.path, track.verdict, track.due = PENDING, [], "", None
        track.out = _out(track.node)
        stage = self._stages[self._stage_of[track.node.minion]]
        stage[track.node.role].append(track.node.minion)

    # Time and second chances

    def _waits(self, subject: str) -> float | None:
        if subject == FLEET:
            return self._gate.due
        if subject.startswith(SET):
            return self._sets[subject.removeprefix(SET)].due
        return self.tracks[subject].due

    def _wake(self, what: "Track | Set | _Gate", subject: str, at: float) -> None:
        what.due = at
        heappush(self._due, (at, subject))

    def _tick(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, subject = heappop(self._due)
            if subject == FLEET:
                self._gate.due = None
            elif subject.startswith(SET):
                group = self._sets[subject.removeprefix(SET)]
                group.due, group.blocked = None, False
            else:
                track = self.tracks[subject]
                track.due = None
                if track.active:
                    self._call(track)

    def _resume(self, now: float) -> None:
        """Nodes that owe or are owed go first; those held or failed get another chance after."""
        self.halted = self.no_drain = ""
        self._repaying = True
        self._gate.forget()
        for group in self._sets.values():
            # What was asked before is asked anew: the answers would be old.
            self.in_flight.pop(group.asking, None)
            group.forget()
        for key in [key for key in self.in_flight if key.startswith(f"{FLEET}/")]:
            del self.in_flight[key]
        again = [track for track in self.tracks.values() if track.step in (FAILED, UNKNOWN, HELD)]
        for track in again:
            minion, role = track.node.minion, track.node.role
            if track.step == HELD:
                self._open[self._stage_of[minion]] += 1
            self.stage = min(self.stage, self._stage_of[minion])
            owed = track.owed and track.step != HELD
            track.step, track.detail, track.verdict = PENDING, "", ""
            track.stuck_since, track.baseline = None, {}
            if owed:
                self._start(track, now)
            else:
                track.out = _out(track.node)
                self._stages[self._stage_of[minion]][role].appendleft(minion)

    def _note(self, minion: str, step: str, detail: str = "") -> None:
        self.notes.append(Note(minion, step, detail))


class _Gate:
    """The check of all changed nodes that a wave waits for."""

    def __init__(self) -> None:
        self.asked = 0
        self.passed: set[int] = set()
        self.forget()

    def forget(self) -> None:
        """Ask anew; what was asked is not waited for."""
        self.key = ""
        self.since: float | None = None
        self.due: float | None = None


def _out(node: Node) -> bool:
    return node.state != "in_service" or not node.running


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"
