"""The nodes of a role, and what was heard of them: enough to say who may be taken out now."""

from dataclasses import dataclass, field

from guardian.fleet.capacity import Budget, Member, refusal
from guardian.fleet.track import MEASURE, SIZE, Event, Track

# Of a large set a look serves for longer, so that no more than so many are asked a second.
ASKED_A_SECOND = 30
# Seconds for which one look at a set serves whoever wants to leave it, and for which one who was
# silent is not waited for again; looks in a row that may stay without any answer.
FRESH, SILENT, UNHEARD = 10.0, 60.0, 3


@dataclass
class Set:
    """Tracks of one role. `asking` is the key of the look that is under way, `step` its kind.

    `blocked`: who is next may not leave, and nothing has changed since that was found out.
    """

    role: str
    tracks: list[Track]
    asking: str = ""
    step: str = ""
    looks: int = 0
    until: float = -1.0
    unheard: int = 0
    sized: set[str] = field(default_factory=set)
    due: float | None = None
    blocked: bool = False

    def fresh(self, now: float) -> bool:
        """Whether what is known of the set is young enough to act on."""
        return now < self.until and not self.unsized(now)

    def unsized(self, now: float) -> list[str]:
        """Who has not said its capacity since it was last restarted."""
        return [minion for minion in self.askable(now) if minion not in self.sized]

    def askable(self, now: float) -> list[str]:
        """Who can be asked: in service, and not silent just now."""
        return [one.node.minion for one in self.tracks if not one.out and now >= one.mute_until]

    def forget(self) -> None:
        """Look anew at all of it: what is known is old."""
        self.asking, self.until, self.unheard = "", -1.0, 0
        self.due, self.blocked = None, False
        for track in self.tracks:
            track.mute_until = 0.0

    def heard(self, event: Event) -> None:
        """Take the answers of a look; who does not answer offers no capacity."""
        self.asking, step = "", self.step
        good = [one for one in event.data.values() if one["known"] and one["ok"]]
        self.unheard = 0 if good else self.unheard + 1
        if 0 < self.unheard < UNHEARD:
            return  # the master or the way to it was away: that says nothing of the nodes
        for track in self.tracks:
            answer = event.data.get(track.node.minion)
            if step == MEASURE and track.out:
                # It gives no new calls to peers that they do not have by now.
                track.calls = track.registrations = 0
            if answer is None:
                continue
            track.lost = ""
            if not (answer["known"] and answer["ok"]):
                track.mute_until = event.now + SILENT
                track.lost = str(answer.get("why", "no answer"))
                track.capacity = track.registrations_capacity = 0
                self.sized.discard(track.node.minion)
            elif step == SIZE:
                self.sized.add(track.node.minion)
                track.capacity = answer.get("calls")
                track.registrations_capacity = answer.get("registrations")
            else:
                track.calls = int(answer.get("calls") or 0)
                track.registrations = int(answer.get("registrations") or 0)
        if step == MEASURE:
            self.until = event.now + max(FRESH, len(self.tracks) / ASKED_A_SECOND)

    def refusal(self, budget: Budget, leaving: Track) -> str | None:
        """Why a node may not be taken out of the set now, or None."""
        members = [
            Member(
                minion=one.node.minion,
                available=not one.out,
                capacity=one.capacity,
                calls=one.calls,
                zone=one.node.zone,
                pair=one.node.pair,
                registrations=one.registrations,
                registrations_capacity=one.registrations_capacity,
            )
            for one in self.tracks
        ]
        return refusal(budget, members, leaving.node.minion)
