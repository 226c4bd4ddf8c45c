"""What a rollout speaks of: nodes, calls to make for them, events, and where each one stands."""

from dataclasses import dataclass, field
from typing import Any

SIZE, MEASURE, GATE = "size", "measure", "gate"  # of a set of nodes, of the fleet
WITHDRAW, DRAIN, END_CALLS, APPLY = "withdraw", "drain", "end_calls", "apply"
CHECKS, UNDRAIN, TRIAL, RESTORE = "checks", "undrain", "trial", "restore"
BASELINE, SOAK, JUDGE, PULL = "baseline", "soak", "judge", "pull"
PENDING, DONE, UNCHANGED, HELD = "pending", "done", "unchanged", "held"
FAILED, UNKNOWN = "failed", "unknown"
SETTLED = frozenset({DONE, UNCHANGED, HELD, FAILED, UNKNOWN})

# Asked of many at once; their answers are one event.
ROUNDS = frozenset({SIZE, MEASURE, GATE, BASELINE, JUDGE})
# Before these are over nothing was applied, so the way back is short.
BEFORE_APPLY = frozenset({WITHDRAW, DRAIN, END_CALLS})


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
    left_out: str = ""

    @property
    def work(self) -> bool:
        """Whether a rollout has anything to do to it."""
        return bool(self.changes or self.debt) and not self.left_out

    @property
    def disruptive(self) -> bool:
        """Whether it must be taken out of service before its change."""
        restarts = self.changes > 0 and self.disruption == "restart"
        return restarts and self.state != "out_of_service"


@dataclass(frozen=True)
class Call:
    """A function to run on minions; `key` names this very call, over restarts, too."""

    key: str
    step: str
    targets: tuple[str, ...]
    fun: str
    args: tuple[str, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    cap: float = 60.0

    @property
    def minion(self) -> str:
        """The node it is for; `set:<role>` or `fleet` when it is for many."""
        return self.key.partition("/")[0]


@dataclass(frozen=True)
class Note:
    """A transition, for whoever watches."""

    minion: str
    step: str
    detail: str = ""


@dataclass(frozen=True)
class Event:
    """What happened: begin, returned, round, tick, stop, peak, resume; `now` is of any clock.

    `returned` carries key, target, whether the outcome is known, whether it is good, and data;
    `round` the key and, by target, all of that. `peak` says in `why` why no node may be drained
    from now on, or nothing.
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
    stuck_since: float | None = None
    out: bool = False
    mute_until: float = 0.0  # it was asked and silent, so it is not asked before that
    drained: bool = False
    withdrawn: set[str] = field(default_factory=set)
    applied: bool = False
    suspect: bool = False  # an apply was begun, and no checks have passed since
    verdict: str = ""
    detail: str = ""
    calls: int = 0
    capacity: int | None = 0
    registrations: int = 0
    registrations_capacity: int | None = None
    baseline: dict[str, Any] = field(default_factory=dict)
    left: int = 0
    ended: int = 0
    drained_calls: int = 0
    drained_seconds: float = 0.0

    @property
    def active(self) -> bool:
        return self.step not in SETTLED and self.step != PENDING

    @property
    def owed(self) -> bool:
        return self.drained or bool(self.withdrawn)
