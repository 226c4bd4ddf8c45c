"""The client of a master's agent: jobs under our own ids, and silence resolved to an answer.

A job is published to a frozen list. What does not return is asked for: running (wait on),
finished but lost (recovered from the master's or the minion's job cache), or UNKNOWN, which is
never taken for success and never run again blindly.
"""

import base64
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from guardian.errors import FAILED, GuardianError
from guardian.fleet.stream import Stream

NO_KEY = "the master has no accepted key of it, so it was not asked"
_TEND = 0.1  # seconds between looks at what is silent
_STREAM = 6  # times the silence: how long returns of others put off asking after who is late
_CHUNK = 512 * 1024  # of an archive, a request


@dataclass(frozen=True)
class Job:
    """One function on a frozen list of minions; `cap` seconds after which it is given up."""

    jid: str
    targets: tuple[str, ...]
    fun: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    cap: float = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of a job on one minion; `known` is false for UNKNOWN, then `value` says why."""

    jid: str
    minion: str
    known: bool
    value: Any
    retcode: int = 0


@dataclass(frozen=True)
class Patience:
    """Seconds between looks at the job cache, before asking after silence, for an answer to that;
    and how many such questions may go unanswered. Both times grow with the number of minions: one
    master compiles pillar for all, and asking a busy one makes it busier."""

    sweep: float = 5.0
    silence: float = 10.0
    answer: float = 6.0
    misses: int = 5

    def silence_of(self, minions: int) -> float:
        return self.silence + min(20.0, 0.4 * (minions - 1))

    def answer_of(self, minions: int) -> float:
        return self.answer + min(54.0, 1.0 * (minions - 1))


class Link(Protocol):
    """What a deployment needs of a master; the simulator in the tests is another one."""

    def fleet(self, workspace: str) -> dict[str, dict[str, str]]: ...
    def renew(self, workspace: str) -> None: ...
    def release(self, commit: str, archive: Path | None) -> None: ...
    def submit(self, job: Job) -> None: ...
    def attach(self, job: Job) -> None: ...
    def poll(self, timeout: float) -> list[Outcome]: ...


def gathered(link: Link, job: Job) -> dict[str, Outcome]:
    """Publish one job and wait for all of it; outcomes by minion, every target named."""
    link.submit(job)
    found: dict[str, Outcome] = {}
    while len(found) < len(job.targets):
        for outcome in link.poll(5.0):
            if outcome.jid == job.jid:
                found[outcome.minion] = outcome
    return found


class Jids:
    """Job ids in Salt's form (20 digits of UTC time), each one later than the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._last = clock, 0

    def new(self) -> str:
        now = self._clock()
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
        self._last = max(self._last + 1, int(f"{stamp}{int(now % 1 * 1e6):06d}"))
        return str(self._last)


@dataclass
class _Watch:
    """A job with minions that have not returned yet."""

    job: Job
    waiting: set[str]
    since: float
    ask_at: float
    sweep_at: float
    published: str = ""
    misses: dict[str, int] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # has a question that is not answered yet
    gone: set[str] = field(default_factory=set)  # does not run it: to be asked what it kept
    gone_at: float = 0.0


@dataclass
class _Probe:
    """A question about a job: is it running (find_job), or what did it return (cached)."""

    watch: _Watch
    waiting: set[str]
    until: float
    cached: bool


class Master(Stream):
    """A started agent. Not for several threads: one owner submits and polls."""

    def __init__(
        self,
        command: Sequence[str],
        jids: Jids,
        patience: Patience | None = None,
        *,
        releases: str = "",
        tree: str = "",
    ) -> None:
        self._jids = jids
        self._patience = patience or Patience()
        self._releases, self._tree = releases, tree
        self._watches: dict[str, _Watch] = {}
        self._probes: dict[str, _Probe] = {}
        self._done: deque[Outcome] = deque()
        self._tend_at = 0.0
        super().__init__(command)

    def __enter__(self) -> "Master":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def minions(self) -> dict[str, list[str]]:
        """Minion ids by the state of their key."""
        found: dict[str, list[str]] = self._ask("minions")
        return found

    def fleet(self, workspace: str) -> dict[str, dict[str, str]]:
        """Who there should be, by minion id: role, zone, pair, and the state of its key."""
        found: dict[str, dict[str, str]] = self._ask("fleet", workspace=workspace)
        return found

    def facts(self) -> dict[str, Any]:
        """What a deploy leans on there: versions, clock, room, the served tree."""
        found: dict[str, Any] = self._ask("facts", releases_root=self._releases)
        return found

    def release(self, commit: str, archive: Path | None) -> None:
        """Have the master serve a commit (`archive` is its `git archive`), or its live tree."""
        if not self._releases:
            raise GuardianError(
                "master.releases is not set, so the master cannot serve a commit: docs/masters.md"
            )
        digest = ""
        if archive is not None:
            raw = archive.read_bytes()
            digest = hashlib.sha256(raw).hexdigest()
            for offset in range(0, len(raw), _CHUNK):
                data = base64.b64encode(raw[offset : offset + _CHUNK]).decode()
                self._ask("upload", root=self._releases, commit=commit, offset=offset, data=data)
        self._ask(
            "release",
            root=self._releases,
            commit=commit if archive is not None else "",
            digest=digest,
            tree=self._tree,
        )

    def renew(self, workspace: str) -> None:
        """Have the master ask AWS anew for what it gives the workspace's minions."""
        self._ask("renew", workspace=workspace)

    def submit(self, job: Job) -> None:
        """Publish a job; its outcomes come from `poll`, one a minion, each exactly once."""
        watch = self._watch(job, self._patience.silence_of(len(job.targets)))
        self._publish(watch, job)

    def attach(self, job: Job) -> None:
        """Find out what became of a job that an earlier process may have published."""
        self._watch(job, 0.0)

    def poll(self, timeout: float) -> list[Outcome]:
        """Outcomes so far, after at most `timeout` seconds; looks after silent jobs meanwhile."""
        until = time.monotonic() + timeout
        while True:
            self._tend()
            if self._done:
                found = list(self._done)
                self._done.clear()
                return found
            left = until - time.monotonic()
            if left <= 0:
                return []
            self._take(min(left, 0.5))

    def run(self, job: Job) -> dict[str, Outcome]:
        """Publish one job and wait for all of it; see `gathered`."""
        return gathered(self, job)

    def _reconnected(self) -> None:
        """Look at once for what was missed: the job cache has it."""
        for watch in self._watches.values():
            watch.sweep_at = 0

    def _watch(self, job: Job, silence: float) -> _Watch:
        now = time.monotonic()
        sweep = now + (self._patience.sweep if silence else 0)
        watch = _Watch(job, set(job.targets), now, now + silence, sweep)
        self._watches[job.jid] = watch
        return watch

    def _publish(self, watch: _Watch, job: Job) -> None:
        # The same id twice runs once, so an answer that was lost may be asked for again.
        for pause in (0.5, 2.0, None):
            try:
                answer = self._ask(
                    "publish",
                    jid=job.jid,
                    targets=list(job.targets),
                    fun=job.fun,
                    args=list(job.args),
                    kwargs=job.kwargs,
                )
                watch.published = ""
                reached = set((answer or {}).get("minions", job.targets))
                for minion in sorted(watch.waiting - reached):
                    self._unknown(watch, minion, NO_KEY)
                return
            except GuardianError as error:
                if error.code != FAILED:
                    raise
                watch.published = str(error)
                if pause is None:
                    return
                time.sleep(pause)

    def _returned(self, jid: str, minion: str, value: Any, retcode: Any) -> None:
        if (probe := self._probes.get(jid)) is not None:
            if minion in probe.waiting:
                probe.waiting.discard(minion)
                probe.watch.asked.discard(minion)
                # The first answer tells that the rest need not be waited for as long.
                probe.until = time.monotonic() + 2 * self._patience.answer
                self._answered(probe, minion, value)
            return
        watch = self._watches.get(jid)
        # Late, doubled and foreign returns are nobody's.
        if watch is None or minion not in watch.waiting:
            return
        # While some return, a busy master or machine makes the others late: asking would add to it.
        now, silence = time.monotonic(), self._patience.silence_of(len(watch.waiting))
        if now < watch.since + _STREAM * silence:
            watch.ask_at = max(watch.ask_at, now + silence)
        self._settle(
            watch, Outcome(jid, minion, True, value, retcode if isinstance(retcode, int) else 1)
        )

    def _settle(self, watch: _Watch, outcome: Outcome) -> None:
        watch.waiting.discard(outcome.minion)
        if not watch.waiting:
            self._watches.pop(watch.job.jid, None)
        self._done.append(outcome)

    def _tend(self) -> None:
        """Look after every job, not oftener than needed: a thousand returns come one by one."""
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + _TEND
        for watch in list(self._watches.values()):
            if now >= watch.sweep_at:
                watch.sweep_at = now + self._patience.sweep
                self._sweep(watch)
            if watch.waiting and now - watch.since > watch.job.cap:
                for minion in sorted(watch.waiting):
                    self._unknown(watch, minion, f"no return within {watch.job.cap:g} s")
            elif watch.gone and now >= watch.gone_at:
                self._ask_gone(watch)
            elif watch.waiting and now >= watch.ask_at:
                left, patience = len(watch.waiting), self._patience
                watch.ask_at = now + patience.silence_of(left) + patience.answer_of(left)
                # One question at a time to each: more would only keep it busy.
                if free := watch.waiting - watch.asked - watch.gone:
                    self._probe(watch, free, cached=False)
        for jid, probe in list(self._probes.items()):
            if not probe.waiting or now >= probe.until:
                del self._probes[jid]
                probe.watch.asked -= probe.waiting
                for minion in sorted(probe.waiting):
                    self._unanswered(probe.watch, minion)

    def _sweep(self, watch: _Watch) -> None:
        waiting = sorted(watch.waiting)
        for minion, found in self._ask("lookup", jid=watch.job.jid, minions=waiting).items():
            self._returned(watch.job.jid, minion, found.get("value"), found.get("retcode"))

    def _probe(self, watch: _Watch, minions: Iterable[str], *, cached: bool) -> None:
        fun = "saltutil.find_cached_job" if cached else "saltutil.find_job"
        targets = tuple(sorted(minions))
        jid = self._jids.new()
        try:
            self._ask(
                "publish", jid=jid, targets=list(targets), fun=fun, args=[watch.job.jid], kwargs={}
            )
        except GuardianError as error:
            if error.code != FAILED:
                raise
            # The master itself is away: that says nothing about its minions.
            watch.published = str(error)
            return
        until = time.monotonic() + self._patience.answer_of(len(targets))
        self._probes[jid] = _Probe(watch, set(targets), until, cached)
        watch.asked |= set(targets)

    def _answered(self, probe: _Probe, minion: str, value: Any) -> None:
        watch = probe.watch
        if minion not in watch.waiting:
            return
        watch.misses.pop(minion, None)
        if probe.cached:
            if isinstance(value, dict) and "return" in value:
                retcode = value.get("retcode", 0)
                self._returned(watch.job.jid, minion, value["return"], retcode)
            elif watch.absent.get(minion, 0) > 1:
                why = watch.published or "not running there, and no return was kept"
                self._unknown(watch, minion, why)
        elif isinstance(value, dict) and value:
            watch.absent.pop(minion, None)
        else:
            # Twice, since a job may be between the minion's queue and its process.
            watch.absent[minion] = watch.absent.get(minion, 0) + 1
            now, left = time.monotonic(), len(watch.waiting)
            watch.ask_at = min(watch.ask_at, now + self._patience.answer_of(left))
            if not watch.gone:  # those who say so within a second are asked together
                watch.gone_at = now + min(1.0, 0.1 * (left - 1))
            watch.gone.add(minion)

    def _ask_gone(self, watch: _Watch) -> None:
        """Ask who does not run the job, and has not returned, what it kept of it."""
        gone, watch.gone = watch.gone, set()
        self._sweep(watch)
        if gone := gone & watch.waiting - watch.asked:
            self._probe(watch, gone, cached=True)

    def _unanswered(self, watch: _Watch, minion: str) -> None:
        if minion not in watch.waiting:
            return
        watch.misses[minion] = watch.misses.get(minion, 0) + 1
        watch.ask_at = min(watch.ask_at, time.monotonic() + 1)
        if watch.misses[minion] >= self._patience.misses:
            self._unknown(watch, minion, "the minion does not answer")

    def _unknown(self, watch: _Watch, minion: str, why: str) -> None:
        self._settle(watch, Outcome(watch.job.jid, minion, False, why, 1))
