"""Looks at what a fleet carries while it is rolled, for the record: nothing waits for it."""

from guardian.fleet.checks import read
from guardian.fleet.master import Jids, Job, Link, Outcome
from guardian.fleet.rollout import Rollout
from guardian.journal import Journal

FUNCTION = "voice.load"
_CAP = 20.0
_NAMED = 200  # nodes up to which each one's calls are recorded, too


class Sampler:
    """Asks every `sample` seconds, 0 for never, and journals what came back by the next time."""

    def __init__(self, link: Link, jids: Jids, journal: Journal) -> None:
        self._link, self._jids, self._journal = link, jids, journal
        self._next = 0.0
        self._jid = ""
        self._waiting: set[str] = set()
        self._calls: dict[str, dict[str, int]] = {}

    def tend(self, now: float, rollout: Rollout) -> None:
        """Write down the last look and take the next, when it is time."""
        every = rollout.settings.sample
        if not every or now < self._next:
            return
        self._next = now + every
        if self._calls:
            self._write(rollout)
        self._calls = {}
        self._waiting = {minion for minion, one in rollout.tracks.items() if one.node.running}
        if self._waiting:
            self._jid = self._jids.new()
            targets = tuple(sorted(self._waiting))
            self._link.submit(Job(self._jid, targets, FUNCTION, cap=min(_CAP, every)))

    def take(self, outcome: Outcome) -> None:
        """An answer, if it is one to the last look."""
        if outcome.jid != self._jid or outcome.minion not in self._waiting:
            return
        self._waiting.discard(outcome.minion)
        reading = read(FUNCTION, outcome)
        if reading.known and reading.ok:
            self._calls[outcome.minion] = dict(reading.data)

    def _write(self, rollout: Rollout) -> None:
        calls: dict[str, int] = {}
        registrations: dict[str, int] = {}
        for minion, found in self._calls.items():
            role = rollout.tracks[minion].node.role
            calls[role] = calls.get(role, 0) + found["calls"]
            registrations[role] = registrations.get(role, 0) + found["registrations"]
        few = len(rollout.tracks) <= _NAMED
        nodes = {minion: found["calls"] for minion, found in self._calls.items()} if few else {}
        out = sum(1 for track in rollout.tracks.values() if track.out)
        self._journal.add("load", calls=calls, registrations=registrations, out=out, nodes=nodes)
