"""Whether a node may be taken out: enough peers, and room for the calls with some to spare."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A node of one dispatcher set; `capacity` and `calls` in calls."""

    minion: str
    available: bool
    capacity: int
    calls: int


@dataclass(frozen=True)
class Budget:
    """Per cent of a set that may be out at once (at least one node), and of room kept free."""

    max_out: int
    headroom: int
    sole_node: str


def refusal(budget: Budget, members: Iterable[Member], leaving: str) -> str | None:
    """Why `leaving` may not be taken out of its set now, or None when it may.

    Never the last one while it carries calls, never more than N-1, never below the calls that are
    up. A capacity that is not known is no capacity.
    """
    found = list(members)
    stay = [one for one in found if one.available and one.minion != leaving]
    own = next((one for one in found if one.minion == leaving), None)
    if not stay:
        calls = own.calls if own else 0
        if budget.sole_node == "when_idle" and calls == 0:
            return None
        return f"no peer is in service that could carry its {_count(calls)}"
    out = sum(1 for one in found if not one.available)
    allowed = max(1, min(len(found) - 1, len(found) * budget.max_out // 100))
    if out >= allowed:
        return f"{out} of {len(found)} in its set are out already, {allowed} may be"
    room = sum(one.capacity for one in stay) * (100 - budget.headroom) // 100
    calls = sum(one.calls for one in found)
    if room < calls:
        return f"its peers have room for {_count(room)} and {_count(calls)} are up"
    return None


def _count(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls} calls"
