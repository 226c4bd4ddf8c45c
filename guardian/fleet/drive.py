"""Drives a rollout: journals each event before it is fed and each call before it is made.

The journal alone is enough to go on: replayed events give the machine, and a call whose intent has
no outcome is looked up by its job id before anything is done again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from guardian.config import Rollout as Settings
from guardian.errors import GuardianError
from guardian.fleet.checks import change, read
from guardian.fleet.master import Jids, Job, Link, Outcome
from guardian.fleet.rollout import Rollout
from guardian.fleet.sampler import Sampler
from guardian.fleet.survey import OWNER
from guardian.fleet.track import APPLY, DRAIN, ROUNDS, Call, Event, Node, Note
from guardian.journal import Entry, Journal

# Of the machine: another one would make other calls of the same events.
MACHINE = 2
_FIELDS = tuple(one.name for one in fields(Event))
_DEFAULTS: dict[str, Any] = {"key": "", "target": "", "known": True, "ok": True, "data": {}}


@dataclass(frozen=True)
class _Flight:
    """A published job: the call it serves and what it is for."""

    call: Call
    purpose: str  # call, retry, attached, recheck


class Drive:
    """One rollout over one master. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        link: Link,
        journal: Journal,
        jids: Jids,
        clock: Callable[[], float],
        show: Callable[[Note, Rollout], None] = lambda note, rollout: None,
    ) -> None:
        self._link, self._journal, self._jids = link, journal, jids
        self._clock, self._show = clock, show
        self._flights: dict[str, _Flight] = {}
        self._rounds: dict[str, dict[str, Any]] = {}
        self._resuming = False
        self._repeated: set[str] = set()
        self._looked: set[str] = set()
        self.rollout = Rollout("", [], Settings())
        self._sampler = Sampler(link, jids, journal)

    def begin(self, nodes: list[Node], settings: Settings) -> None:
        """Freeze the list of nodes and start."""
        entry = self._journal.add(
            "fleet",
            machine=MACHINE,
            nodes=[asdict(node) for node in nodes],
            settings=asdict(settings),
        )
        self.rollout = _rollout(self._journal.run, entry)
        self._feed(Event("begin", self._clock()))

    def resume(self) -> None:
        """Rebuild the machine from the journal, then settle every call that has no outcome."""
        self._resuming = True
        self.rollout, jids = replay(self._journal.run, self._journal.entries)
        self.rollout.notes.clear()
        open_calls = list(self.rollout.in_flight.values())
        kind = "resume" if self._begun() else "begin"
        self._feed(Event(kind, self._clock()))
        for call in open_calls:
            track = self.rollout.tracks.get(call.minion)
            if track is None or track.key != call.key:
                continue  # asked of many: it is asked anew
            waiting = tuple(sorted(track.waiting))
            jid = jids.get(call.key)
            if jid is None or call.step != APPLY:
                # Never published, or harmless to publish again.
                self._dispatch(call, waiting, "call")
            else:
                self._flights[jid] = _Flight(call, "attached")
                self._link.attach(_job(call, jid, waiting))

    def run(
        self, stop: Callable[[], str | None], no_drain: Callable[[], str] = lambda: ""
    ) -> Rollout:
        """Until nothing is left to do, or it halted and what was in flight has ended.

        `stop` says why to halt, `no_drain` why no further node may be taken out of service.
        """
        rollout = self.rollout
        while not rollout.finished:
            if not rollout.halted and (why := stop()):
                self._feed(Event("stop", self._clock(), data={"why": why}))
                continue
            if not rollout.halted and (why := no_drain()) != rollout.no_drain:
                self._feed(Event("peak", self._clock(), data={"why": why}))
                continue
            self._sampler.tend(self._clock(), rollout)
            due = rollout.next_due()
            now = self._clock()
            if due is not None and due <= now:
                self._feed(Event("tick", now))
                continue
            for outcome in self._link.poll(min(0.5, due - now) if due is not None else 0.5):
                self._outcome(outcome)
        return rollout

    def _begun(self) -> bool:
        return any(entry["type"] == "event" for entry in self._journal.entries)

    def _feed(self, event: Event) -> None:
        self._journal.add("event", **_thin(event))
        calls = self.rollout.handle(event)
        for note in self.rollout.notes:
            self._show(note, self.rollout)
        self.rollout.notes.clear()
        for call in calls:
            self._dispatch(call, call.targets, "call")

    def _dispatch(self, call: Call, targets: tuple[str, ...], purpose: str) -> None:
        jid = self._jids.new()
        # A drain is looked at hundreds of times, and looking again changes nothing.
        if call.step != DRAIN or call.minion not in self._looked:
            intent = {"key": call.key, "jid": jid, "targets": list(targets), "purpose": purpose}
            self._journal.add("intent", **intent)
        if call.step == DRAIN:
            self._looked.add(call.minion)
        self._flights[jid] = _Flight(call, purpose)
        job = _job(call, jid, targets)
        if purpose == "recheck":
            job = Job(jid, targets, "state.apply", (), {"test": True}, call.cap)
        self._link.submit(job)

    def _outcome(self, outcome: Outcome) -> None:
        flight = self._flights.get(outcome.jid)
        if flight is None:
            self._sampler.take(outcome)
            return
        call, one = flight.call, (outcome.minion,)
        if call.step in ROUNDS:
            self._answered(call, outcome)
        elif flight.purpose == "recheck":
            self._rechecked(call, outcome)
        elif outcome.known:
            self._return(call, outcome)
        elif call.step == APPLY:
            # Never run again blindly: ask what is left to change first.
            self._dispatch(call, one, "recheck")
        elif flight.purpose == "call":
            self._dispatch(call, one, "retry")
        else:
            self._return(call, outcome)

    def _answered(self, call: Call, outcome: Outcome) -> None:
        """Keep an answer until the round is whole; silence is one, too."""
        answers = self._rounds.setdefault(call.key, {})
        reading = read(call.fun, outcome)
        answers[outcome.minion] = {"known": reading.known, "ok": reading.ok, **reading.data}
        if len(answers) == len(call.targets):
            del self._rounds[call.key]
            self._feed(Event("round", self._clock(), call.key, data=answers))

    def _rechecked(self, call: Call, outcome: Outcome) -> None:
        found = change(outcome.value) if outcome.known else None
        if found is not None and not found.problem and not found.busy and not found.changes:
            self._feed(self._event(call, outcome.minion, True, True, {"recovered": True}))
        elif found is not None and found.busy:
            self._dispatch(call, (outcome.minion,), "recheck")
        elif found is not None and self._resuming and call.key not in self._repeated:
            self._repeated.add(call.key)
            self._dispatch(call, (outcome.minion,), "attached")
        else:
            why = f"{found.changes} changes are left" if found else "no answer"
            data = {"why": f"its return was lost and a test run says: {why}"}
            self._feed(self._event(call, outcome.minion, False, False, data))

    def _return(self, call: Call, outcome: Outcome) -> None:
        reading = read(call.fun, outcome)
        self._feed(self._event(call, outcome.minion, reading.known, reading.ok, dict(reading.data)))

    def _event(self, call: Call, minion: str, known: bool, ok: bool, data: dict[str, Any]) -> Event:
        return Event("returned", self._clock(), call.key, minion, known, ok, data)


def replay(run: str, entries: list[Entry]) -> tuple[Rollout, dict[str, str]]:
    """The machine as the journal left it, and the last job id of each call by its key."""
    rollout = Rollout(run, [], Settings())
    jids: dict[str, str] = {}
    for entry in entries:
        if entry["type"] == "intent" and entry["purpose"] in ("call", "attached"):
            jids[entry["key"]] = entry["jid"]
    for _, rollout in steps(run, entries):
        rollout.notes.clear()
    return rollout, jids


def steps(run: str, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Rollout]]:
    """Each entry that moves the machine, with the machine after it and its notes of that step.

    Whoever reads clears the notes. GuardianError when another guardian wrote the journal.
    """
    rollout = Rollout(run, [], Settings())
    for entry in entries:
        if entry["type"] == "fleet":
            rollout = _rollout(run, entry)
        elif entry["type"] == "event":
            rollout.handle(_event(entry))
        else:
            continue
        yield entry, rollout


def _job(call: Call, jid: str, targets: tuple[str, ...]) -> Job:
    return Job(jid, targets, call.fun, call.args, call.kwargs, call.cap)


def _rollout(run: str, entry: Entry) -> Rollout:
    if entry.get("machine") != MACHINE:
        raise GuardianError(
            f"run {run}: rolled by another version of guardian; put back by hand what it left "
            "(voice.undrain and voice.restore, docs/operating.md), then deploy anew"
        )
    nodes = [Node(**{**node, "why": tuple(node["why"])}) for node in entry["nodes"]]
    settings = Settings(**{**entry["settings"], "waves": tuple(entry["settings"]["waves"])})
    return Rollout(f"{OWNER}{run}", nodes, settings)


def _thin(event: Event) -> dict[str, Any]:
    """Only what is not a default: most of a journal is events."""
    found = {}
    for name in _FIELDS:
        value = getattr(event, name)
        if value != _DEFAULTS.get(name):
            found[name] = value
    return found


def _event(entry: Entry) -> Event:
    return Event(**{name: entry[name] for name in _FIELDS if name in entry})
