"""Whether a canary is as good as its peers, over the same minutes: they are untouched, it is not.

Pure. What a node measures (`voice.measures`) are counters since its daemon's start.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Measures = Mapping[str, Any]
# One-sided, one in a hundred by chance: at few calls a difference in per cent says little.
_SURE = 2.33
_FEW_REGISTRATIONS = 20
_LOST = 0.5


@dataclass(frozen=True)
class Verdict:
    """Whether it may stay, and why: figures, for the journal and the screen."""

    good: bool
    why: str


@dataclass(frozen=True)
class Tally:
    """Calls attempted and failed during a soak."""

    attempts: int
    failed: int

    @property
    def share(self) -> float:
        return self.failed / self.attempts if self.attempts else 0.0

    def __str__(self) -> str:
        return f"{self.failed} of {self.attempts} calls failed ({self.share:.1%})"


def verdict(
    canary: tuple[Measures, Measures],
    peers: Sequence[tuple[Measures, Measures]],
    *,
    margin: int,
    least: int,
) -> Verdict:
    """Judge a canary by its measures before and after a soak and those of its fresh peers.

    It must not have restarted, lack a gateway its peers have, or have lost its registrations. Once
    both sides had `least` calls, it may not fail `margin` points more of them, beyond chance.
    """
    before, after = canary
    if str(before["since"]) != str(after["since"]):
        return Verdict(False, "its daemon restarted by itself during the soak")
    steady = [(one, two) for one, two in peers if str(one["since"]) == str(two["since"])]
    # What the change broke is down before the soak, too: peers tell, not the time before.
    known = [two["gateways_down"] for _, two in steady] or [before["gateways_down"]]
    down = set(after["gateways_down"]).difference(*known)
    if down:
        return Verdict(False, f"gateway {', '.join(sorted(down))} is down, and not on its peers")
    had, has = int(before["registrations"]), int(after["registrations"])
    if had >= _FEW_REGISTRATIONS and has < had * _LOST and not _all_lost(steady):
        return Verdict(False, f"registrations fell from {had} to {has} during the soak")
    own, others = tally(before, after), tally_of(steady)
    if own.attempts < least or others.attempts < least:
        fewer = "it" if own.attempts < least else "its peers"
        number = min(own.attempts, others.attempts)
        return Verdict(True, f"{number} calls on {fewer} are too few to compare; gates held")
    what = f"{own}; {len(steady)} peers: {others}"
    worse = own.share - others.share
    if worse * 100 > margin and _deviations(own, others) > _SURE:
        return Verdict(False, what)
    return Verdict(True, what)


def tally(before: Measures, after: Measures) -> Tally:
    """Calls between two measures of one node; none when its counters went back."""
    attempts, failed = (int(after[key]) - int(before[key]) for key in ("attempts", "failed"))
    return Tally(max(0, attempts), max(0, min(failed, attempts)))


def tally_of(nodes: Sequence[tuple[Measures, Measures]]) -> Tally:
    """The same for several nodes in all."""
    each = [tally(*one) for one in nodes]
    return Tally(sum(one.attempts for one in each), sum(one.failed for one in each))


def _all_lost(peers: Sequence[tuple[Measures, Measures]]) -> bool:
    had = sum(int(one["registrations"]) for one, _ in peers)
    has = sum(int(two["registrations"]) for _, two in peers)
    return had >= _FEW_REGISTRATIONS and has < had * _LOST


def _deviations(own: Tally, others: Tally) -> float:
    """By how many standard deviations the shares differ (two proportions, pooled)."""
    both = (own.failed + others.failed) / (own.attempts + others.attempts)
    spread = math.sqrt(both * (1 - both) * (1 / own.attempts + 1 / others.attempts))
    return (own.share - others.share) / spread if spread else 0.0
