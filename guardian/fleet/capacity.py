"""Whether a node may be taken out: enough peers, and room for the calls with some to spare."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A node of one dispatcher set; capacities in calls and registrations, None without limit."""

    minion: str
    available: bool
    capacity: int | None
    calls: int
    zone: str = ""
    pair: str = ""
    registrations: int = 0
    registrations_capacity: int | None = None


@dataclass(frozen=True)
class Budget:
    """Per cent of a set that may be out at once (at least one node), and of room kept free."""

    max_out: int
    headroom: int
    sole_node: str


def refusal(budget: Budget, members: Sequence[Member], leaving: str) -> str | None:
    """Why `leaving` may not be taken out of its set now, or None when it may.

    Never the last one while it carries calls, never more than N-1, never both of a pair, never the
    last of a zone that had others, never below the calls and registrations that are up.
    """
    own = next(one for one in members if one.minion == leaving)
    stay = [one for one in members if one.available and one is not own]
    if not stay:
        if budget.sole_node == "when_idle" and own.calls == 0:
            return None
        return f"no peer is in service that could carry its {_count(own.calls, 'call')}"
    out = sum(1 for one in members if not one.available)
    allowed = max(1, min(len(members) - 1, len(members) * budget.max_out // 100))
    if out >= allowed:
        return f"{out} of {len(members)} in its set are out already, {allowed} may be"
    for one in members:
        if own.pair and one.pair == own.pair and not one.available and one is not own:
            return f"{one.minion.partition('.')[0]}, the other of pair {own.pair}, is out"
    zone = [one for one in members if one.zone == own.zone]
    if len(zone) > 1 and not any(one.available for one in zone if one is not own):
        return f"it is the last in service in zone {own.zone}"
    return _room(budget, members, stay)


def _room(budget: Budget, members: Sequence[Member], stay: Sequence[Member]) -> str | None:
    needs = (
        ("call", [one.capacity for one in stay], sum(one.calls for one in members)),
        (
            "registration",
            [one.registrations_capacity for one in stay],
            sum(one.registrations for one in members),
        ),
    )
    for what, capacities, up in needs:
        limits = [one for one in capacities if one is not None]
        if len(limits) < len(capacities):
            continue  # one without a limit takes them all
        room = sum(limits) * (100 - budget.headroom) // 100
        if room < up:
            return f"its peers have room for {_count(room, what)} and {_count(up, what)} are up"
    return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
