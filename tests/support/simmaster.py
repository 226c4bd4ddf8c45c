"""guardian's own link (`guardian.fleet.master.Master`) to a simulated region, on a virtual clock.

Only the agent and the time are replaced: silence, lost returns and reconnections are resolved by
the very code that does so in production. Nothing sleeps; the clock jumps to what happens next.
"""

import time as real
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from guardian.errors import GuardianError
from guardian.fleet import master
from guardian.fleet.master import Jids, Master
from tests.support.simulator import START, MasterAwayError, World


class Clock:
    """The world's time; with `cpu`, the processor time that guardian used is added to it."""

    strftime, gmtime = staticmethod(real.strftime), staticmethod(real.gmtime)

    def __init__(self, world: World, *, cpu: bool = False) -> None:
        self._world, self._cpu = world, cpu
        self.carried: deque[dict[str, Any]] = deque()
        self.spent = 0.0  # processor seconds of guardian, the world's own excepted
        self._mark = real.process_time()

    def time(self) -> float:
        """Seconds since 1970."""
        self.settle()
        return self._world.now

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""
        return self.time() - START

    def sleep(self, seconds: float) -> None:
        """Let time pass; what the bus carries meanwhile waits for the link to look."""
        self.carried.extend(self._world.advance(self._world.now + seconds))

    def settle(self) -> None:
        """Put the processor time since the last look on the clock, if that is wanted."""
        if not self._cpu:
            return
        now = real.process_time()
        self.spent += now - self._mark
        # Returns that fall into it are delivered when the link looks next.
        self._world.now += now - self._mark
        self._mark = now

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is done here is the world's work, not guardian's."""
        self.settle()
        try:
            yield
        finally:
            if self._cpu:
                self._mark = real.process_time()


class SimMaster(Master):
    """A Master whose agent is a World in this process; use it within `virtual`."""

    def __init__(self, world: World, clock: Clock, jids: Jids) -> None:
        self._world, self._time = world, clock
        super().__init__(["simulated"], jids)

    def close(self) -> None:
        """Nothing to end."""

    def _start(self, patience: float = 30.0) -> None:
        self._time.carried.clear()

    def _ask(self, operation: str, **fields: Any) -> Any:
        with self._time.outside():
            try:
                if operation in ("renew", "release"):
                    return None
                if operation == "fleet":
                    return self._world.fleet()
                return getattr(self._world, operation)(**fields)
            except MasterAwayError as error:
                raise GuardianError(f"master: {operation}: {error}") from None

    def _take(self, timeout: float, number: int | None = None) -> dict[str, Any] | None:
        if not self._time.carried:
            with self._time.outside():
                due, now = self._world.due(), self._world.now
                until = now + timeout if due is None else min(now + timeout, max(due, now))
                self._time.carried.extend(self._world.advance(until))
        if self._time.carried:
            event = self._time.carried.popleft()
            self._returned(event["jid"], event["minion"], event["value"], event["retcode"])
        return None


@contextmanager
def virtual(clock: Clock) -> Iterator[None]:
    """Give the link this clock."""
    with mock.patch.object(master, "time", clock):
        yield
