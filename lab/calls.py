"""Calls through the proxy, held and new, and the truth about each one."""

import csv
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lab.names import HUB_ADDRESS, LabError, Names

SCENARIO = Path(__file__).with_name("sipp") / "caller.xml"
# Messages of the scenario from this index on belong to a call that was up.
_FIRST_INDEX_OF_A_CALL_THAT_WAS_UP = 5
_INDEX = re.compile(r"\(index (\d+)\)|message [^:]*:(\d+)")
_ABORTED = re.compile(r"[Aa]borting call")
_UP_SECONDS = 30.0
_END_SECONDS = 90.0


@dataclass(frozen=True)
class Counts:
    """What became of the calls: `held` is the fewest that were up at once while watched."""

    held: int
    new_calls: int
    dropped: int
    failed: int


class _Sipp:
    """One SIPp: so many new calls a second, each held for so long, never more than `limit` up."""

    def __init__(
        self,
        names: Names,
        kind: str,
        target: str,
        number: str,
        port: int,
        rate: float,
        limit: int,
        seconds: float,
    ) -> None:
        self.directory = names.directory / "calls"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.errors = self.directory / f"{kind}.errors"
        self.statistics = self.directory / f"{kind}.csv"
        for file in (self.errors, self.statistics):
            file.unlink(missing_ok=True)
        with (self.directory / f"{kind}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "ip", "netns", "exec", names.hub,
                    "sipp", target, "-sf", str(SCENARIO), "-s", number,
                    "-i", HUB_ADDRESS, "-mi", HUB_ADDRESS, "-p", str(port), "-mp", str(port + 500),
                    "-r", str(max(1, round(rate * 10))), "-rp", "10000", "-l", str(limit),
                    "-d", str(round(seconds * 1000)), "-recv_timeout", "20000",
                    "-trace_err", "-error_file", str(self.errors),
                    "-trace_stat", "-stf", str(self.statistics), "-fd", "1", "-nostdin",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.directory, start_new_session=True,
            )  # fmt: skip

    def rows(self) -> list[dict[str, str]]:
        """SIPp's statistics, a row a second; a row being written is left out."""
        if not self.statistics.exists():
            return []
        text = self.statistics.read_text()
        whole = text[: text.rfind("\n") + 1].splitlines()
        return list(csv.DictReader(whole, delimiter=";"))

    def up(self) -> int:
        rows = self.rows()
        return int(rows[-1]["CurrentCall"]) if rows else 0

    def total(self) -> int:
        rows = self.rows()
        return int(rows[-1]["TotalCallCreated"]) if rows else 0

    def aborted(self) -> Counter[str]:
        """{"dropped": calls that had been up, "failed": those never set up}."""
        if not self.errors.exists():
            return Counter()
        return count_aborted(self.errors.read_text(errors="replace").splitlines())

    def failures(self) -> int:
        rows = self.rows()
        return int(rows[-1]["FailedCall(C)"]) if rows else 0

    def finish(self) -> None:
        """Make no new calls, let those that are up end by themselves, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise LabError(f"calls did not end within {_END_SECONDS:.0f} s") from None

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def count_aborted(lines: Iterable[str]) -> Counter[str]:
    """Sort SIPp's error lines into dropped and failed, by the message a call stopped at."""
    counts: Counter[str] = Counter()
    for line in lines:
        if not _ABORTED.search(line):
            continue
        found = _INDEX.search(line)
        # Without an index (a BYE nobody answers) the call was up: an INVITE's timeout names one.
        index = int(found[1] or found[2]) if found else _FIRST_INDEX_OF_A_CALL_THAT_WAS_UP
        counts["dropped" if index >= _FIRST_INDEX_OF_A_CALL_THAT_WAS_UP else "failed"] += 1
    return counts


class Calls:
    """A context manager: `held` calls up and `rate` new ones a second to `number` by the proxy.

    Held calls last `seconds` each and are replaced as they end, so that a drain can finish and
    there are always that many. `counts()` may be asked at any time; after the block it is final.
    """

    def __init__(
        self,
        names: Names,
        proxy: str,
        *,
        held: int = 50,
        rate: float = 5.0,
        seconds: float = 12.0,
        number: str = "echo",
    ) -> None:
        self._names, self._target, self._number = names, f"{proxy}:5060", number
        self._held, self._rate, self._seconds = held, rate, seconds
        self._watched_from = 0
        self._watched_to: int | None = None

    def __enter__(self) -> "Calls":
        # A tenth more than asked, so that those between hanging up and calling again do not count.
        limit = round(self._held * 1.15) + 2
        # Spread over a call's length, so that they do not all end at once.
        rate = limit / self._seconds * 1.5
        to = self._target, self._number
        self._long = _Sipp(self._names, "held", *to, 6100, rate, limit, self._seconds)
        self._short = _Sipp(
            self._names, "new", *to, 6200, self._rate, round(self._rate * 10) + 10, 1.0
        )
        self._await_held()
        return self

    def _await_held(self) -> None:
        deadline = time.monotonic() + _UP_SECONDS
        while self._long.up() < self._held:
            if self._long.process.poll() is not None or time.monotonic() > deadline:
                aborted = self._long.aborted()
                self._finish()
                raise LabError(
                    f"only {self._long.up()} of {self._held} calls came up ({aborted['failed']}"
                    f" refused): see {self._long.errors}"
                )
            time.sleep(0.2)
        self._watched_from = len(self._long.rows())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._watched_to = len(self._long.rows())
        self._finish()

    def _finish(self) -> None:
        """End both in good order: a caller that is killed leaves its calls up for ever."""
        for sipp in (self._long, self._short):
            sipp.finish()

    def up_now(self) -> int:
        return self._long.up() + self._short.up()

    def counts(self) -> Counts:
        """What has become of the calls so far."""
        rows = self._long.rows()[self._watched_from : self._watched_to]
        both = (self._long, self._short)
        aborted = self._long.aborted() + self._short.aborted()
        unexplained = sum(sipp.failures() for sipp in both) - aborted.total()
        return Counts(
            held=min((int(row["CurrentCall"]) for row in rows), default=self._long.up()),
            new_calls=sum(sipp.total() for sipp in both),
            dropped=aborted["dropped"],
            # What SIPp counts as failed without saying why is not to be lost.
            failed=aborted["failed"] + max(0, unexplained),
        )
