"""Dispatcher sets: who gets new calls, and who is asked whether he is alive.

Measured: a reload keeps states unless told otherwise, pings lift Probing but never Inactive, and
removing a destination leaves its calls routable. The table's `state` counts only where
`persistent_state` is on, and of rows that are new; only states that changed are written back.
"""

import ipaddress
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import sip
from dbtext import Database

ACTIVE, INACTIVE, PROBING = "Active", "Inactive", "Probing"
LETTERS = {"a": ACTIVE, "i": INACTIVE, "p": PROBING}
_NUMBERS = {ACTIVE: "0", INACTIVE: "1", PROBING: "2"}
_STATES = {number: state for state, number in _NUMBERS.items()}


@dataclass
class Destination:
    """One row of a set with the state only the running daemon knows."""

    number: int
    uri: str
    weight: int
    priority: int
    attributes: str
    description: str
    state: str = ACTIVE
    failures: int = 0
    unsaved: bool = False

    @property
    def address(self) -> tuple[str, int]:
        return sip.Uri.parse(self.uri).address

    def become(self, state: str) -> None:
        self.failures = 0
        if state != self.state:
            self.state, self.unsaved = state, True


class Dispatcher:
    """The sets by id, in the order of their rows."""

    def __init__(
        self,
        database: Database,
        table: str,
        threshold: int,
        good_codes: set[int],
        *,
        persistent: bool = True,
    ) -> None:
        self._database, self._table = database, table
        self._threshold, self._good_codes = threshold, good_codes
        self._persistent = persistent
        self.sets: dict[int, list[Destination]] = {}
        self._turns: dict[int, itertools.count[int]] = {}
        database.check_version(table, "dispatcher")
        self.reload(inherit=False)

    def reload(self, *, inherit: bool = True) -> None:
        """Take over the table; ValueError leaves the old sets in force."""
        known = {(number, d.uri): d for number, found in self.sets.items() for d in found}
        sets: dict[int, list[Destination]] = {}
        for row in self._database.rows(self._table):
            number = int(row["setid"])
            new = Destination(
                number,
                row["destination"],
                int(row["weight"] or 1),
                int(row["priority"] or 0),
                row["attrs"],
                row["description"],
                _STATES[row["state"] or "0"] if self._persistent else ACTIVE,
            )
            ipaddress.ip_address(new.address[0])  # the lab has no DNS to ask
            old = known.get((number, new.uri))
            if old and inherit:
                new.state, new.failures, new.unsaved = old.state, old.failures, old.unsaved
            sets.setdefault(number, []).append(new)
        self.sets = sets

    def save(self) -> None:
        """Write the states that changed since the last time back to the table."""
        for one in itertools.chain(*self.sets.values()):
            if one.unsaved and self._persistent:
                row = {"setid": str(one.number), "destination": one.uri}
                self._database.update(self._table, row, "state", _NUMBERS[one.state])
            one.unsaved = False

    def choose(self, number: int, algorithm: int, call_id: str) -> list[Destination]:
        """The active destinations of a set, the chosen one first."""
        active = [d for d in self.sets.get(number, []) if d.state == ACTIVE]
        if not active:
            return []
        weighted = [d for d in active for _ in range(max(1, d.weight))]
        if algorithm == 4:
            turn = next(self._turns.setdefault(number, itertools.count()))
        else:
            turn = sum(call_id.encode())  # 0: the same Call-ID goes the same way
        first = weighted[turn % len(weighted)]
        at = active.index(first)
        return active[at:] + active[:at]

    def find(self, number: int, address: str) -> Destination | None:
        return next((d for d in self.sets.get(number, []) if d.uri == address), None)

    def mark(self, address: tuple[str, int], state: str) -> None:
        """Set a destination's state from the script, in every set; never out of Inactive."""
        for destination in itertools.chain(*self.sets.values()):
            if destination.address == address and destination.state != INACTIVE:
                destination.become(state)

    def probed(self, destination: Destination, status: int) -> None:
        """Take note of a ping's answer (408 for silence)."""
        if destination.state == INACTIVE:
            return
        if 200 <= status < 300 or status in self._good_codes:
            destination.become(ACTIVE)
            return
        destination.failures += 1
        if destination.failures >= self._threshold:
            destination.become(PROBING)

    def ping_all(self, ping: Callable[[Destination], None], *, everyone: bool) -> None:
        """Ping who is probing, and in probing mode 1 who is active too."""
        for destination in itertools.chain(*self.sets.values()):
            if destination.state == PROBING or (everyone and destination.state == ACTIVE):
                ping(destination)
