"""One place that asks AWS, whatever number of processes want something.

An answer comes from the sealed cache, or from a flight: one process at a time, for each service,
region and identity, asks for what all waiting ones want, in as few calls as AWS allows.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guardian.secrets import place, queue
from guardian.secrets.aws import Caller
from guardian.secrets.bucket import Bucket
from guardian.secrets.declarations import Source
from guardian.secrets.failures import BUSY, DENIED, NOT_FOUND, SecretError
from guardian.secrets.readers import PLAIN, READERS, TREE
from guardian.secrets.store import Entry, Store
from guardian.secrets.wants import Answer, Parameter, Want

PATIENCE = 20.0  # seconds that a compilation waits for AWS, in all
QUOTA = 40  # calls a second that AWS grants Parameter Store by default
_GATHER = 0.02  # a flight waits so long for others to join it
_NEGATIVE = 15.0  # seconds that a refusal is remembered
_FAILURE = 10.0  # and that AWS was unwell, so that a thousand minions do not each find out
_LONG = PATIENCE / 2  # trouble this long concerns all who ask, not only who had little time
_Lane = tuple[str, str, str]


class Broker:
    """Answers wants from a sealed cache on tmpfs, or from AWS.

    ``ttl``: seconds that a value is fresh; ``stale``: seconds more that one may be served for what
    is optional, while AWS is unwell; ``rate``: calls a second of all processes. ValueError when an
    option makes no sense or ``cache`` is no place for secrets.
    """

    def __init__(
        self,
        cache: str = "/run/guardian/secrets",
        region: str = "",
        ttl: float = 300,
        stale: float = 900,
        rate: float = 30,
    ) -> None:
        for name, value, low, high in (
            ("ttl", ttl, 1, 86400),
            ("stale", stale, 0, 86400),
            ("rate", rate, 1, QUOTA - 8),
        ):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise ValueError(f"aws_secrets: {name} must be a number from {low} to {high}")
        self._region, self._ttl, self._stale = region, ttl, stale
        self._store = Store(cache)
        self._bucket = functools.partial(Bucket, rate=rate)

    def get(self, wants: Sequence[Want], optional: Collection[Want] = ()) -> dict[Want, Answer]:
        """Return a value or an error for each want.

        Those in ``optional`` may get a stale value while AWS is unwell. Raises ValueError when the
        cache cannot be read or written.
        """
        try:
            return self._answers(wants, optional)
        except OSError as problem:
            where, why = self._store.directory, os.strerror(problem.errno or 0)
            raise ValueError(f"{where}: {why}; mend or remove it") from None

    def note(self, minion_id: str, sources: Iterable[Source]) -> None:
        """Remember what a minion has a use for; the last word counts."""
        self._store.note(minion_id, [source.key for source in sources])

    def users(self, source: str) -> set[str]:
        """Return the ids of minions that have a use for a source, ``kind:name``."""
        return {minion for minion, keys in self._store.users().items() if source in keys}

    def sources(self) -> set[str]:
        """Return every source that a minion has a use for, ``kind:name``."""
        return {key for keys in self._store.users().values() for key in keys}

    def forget(self, sources: Iterable[str]) -> None:
        """Ask AWS anew for these, ``kind:name`` or a path of parameters: they have changed.

        Answers under way count as old too, and so do refusals; so does every path above a
        parameter that was read as a whole.
        """
        for source in sources:
            kind, colon, name = source.partition(":")
            if not colon or kind == TREE:
                self._store.forget(f"{TREE}:{(name or kind).rstrip('/')}")
                continue
            self._store.forget(source)
            if name.startswith("/"):
                for parent in Path(name).parents:
                    self._store.forget(f"{TREE}:{parent}")

    def tree(self, path: str) -> list[Parameter]:
        """Return every parameter below a path that is no SecureString; SecretError when it fails.

        A stale answer is served while AWS is unwell.
        """
        want = Want(Source(TREE, path.rstrip("/")), self._region)
        answer = self.get([want], [want])[want]
        if isinstance(answer, SecretError):
            if answer.reason == NOT_FOUND:
                return []
            raise SecretError(answer.reason, f"parameters below {path}: {answer}")
        return [Parameter(*row) for row in json.loads(answer)]

    def pinned(self, selectors: list[str]) -> dict[str, Parameter]:
        """Return those of some ``name:version`` that exist; SecretError when AWS does not say."""
        wants: dict[Want, str] = {}
        for selector in selectors:
            name, _, version = selector.rpartition(":")
            wants[Want(Source(PLAIN, name, version), self._region)] = selector
        found = {}
        for want, answer in self.get(list(wants)).items():
            if not isinstance(answer, SecretError):
                found[wants[want]] = Parameter(*json.loads(answer))
            elif answer.reason in (BUSY, DENIED):
                raise SecretError(answer.reason, f"parameter {wants[want]}: {answer}")
        return found

    def _answers(self, wants: Sequence[Want], optional: Collection[Want]) -> dict[Want, Answer]:
        deadline = time.monotonic() + PATIENCE
        found = self._known(wants)
        lanes: dict[_Lane, list[Want]] = defaultdict(list)
        for want in dict.fromkeys(wants):
            if want not in found:
                lanes[_lane(want)].append(want)
        for lane, missing in lanes.items():
            found |= self._fly(lane, missing, deadline)
        for want, answer in found.items():
            busy = isinstance(answer, SecretError) and answer.reason == BUSY
            if busy and want in optional and (old := self._value(want, self._ttl + self._stale)):
                found[want] = old
        return {want: found[want] for want in wants}

    def _known(self, wants: Iterable[Want]) -> dict[Want, Answer]:
        """Return the answers that are fresh."""
        found: dict[Want, Answer] = {}
        for want in wants:
            value = self._value(want, self._ttl)
            if value is not None:
                found[want] = value
            elif (miss := self._store.miss(want.name)) and miss.at > self._forgotten(want):
                found[want] = SecretError(miss.reason, miss.value)
        return found

    def _value(self, want: Want, age: float) -> str | None:
        entry = self._store.value(want.name)
        if entry is None or entry.at < time.monotonic() - age or entry.at <= self._forgotten(want):
            return None
        return entry.value

    def _forgotten(self, want: Want) -> float:
        return self._store.forgotten(want.source.key)

    def _fly(self, lane: _Lane, missing: list[Want], deadline: float) -> dict[Want, Answer]:
        """Have wants answered by a flight, one's own or that of another process."""
        closed = json.dumps(lane)
        if (miss := self._store.miss(closed)) is not None:
            return dict.fromkeys(missing, SecretError(miss.reason, miss.value))
        digest = self._store.digest(closed)
        waiting = self._store.directory / "wanted" / digest
        ticket = queue.Ticket(waiting, missing)
        try:
            lock = self._store.directory / f"{digest}.lock"
            with place.locked(lock, deadline, ticket.answered) as ours:
                found = self._known(missing)
                left = [want for want in missing if want not in found]
                if not left:
                    return found
                if not ours:  # answered, and old or forgotten again by now: take what there was
                    return found | self._fly(lane, left, deadline)
                return found | self._lead(lane, left, waiting, deadline)
        except SecretError as problem:
            return {**dict.fromkeys(missing, problem), **self._known(missing)}
        finally:
            ticket.close()

    def _lead(
        self, lane: _Lane, own: list[Want], waiting: Path, deadline: float
    ) -> dict[Want, Answer]:
        """Ask AWS for one's own wants and those of all who wait; keep the answers."""
        time.sleep(_GATHER)
        tickets = list(queue.waiting(waiting))
        others = [want for _, wants in tickets for want in wants]
        known = self._known(others)
        group = list(dict.fromkeys([*own, *(want for want in others if want not in known)]))
        flight = _Flight(self._store, lane, deadline, self._bucket)
        flight.read(group, self._spare(group))
        self._store.purge(self._ttl + self._stale)
        for file, _ in tickets:
            file.unlink(missing_ok=True)
        return {want: flight.found[want] for want in own}

    def _spare(self, group: Sequence[Want]) -> list[Want]:
        """Return what may fill the calls up: values soon too old that somebody still wants."""
        lane, now = _lane(group[0]), time.monotonic()
        chosen = []
        for entry in self._store.older(self._ttl / 2):
            want = Want.named(entry.name)
            wanted = entry.wanted > now - 2 * self._ttl
            if wanted and _lane(want) == lane and want not in group:
                chosen.append(want)
                if len(chosen) == 9:
                    break
        return chosen


class _Flight:
    """One round of questions to one service, in one region, as one identity."""

    def __init__(
        self, store: Store, lane: _Lane, deadline: float, bucket: functools.partial[Bucket]
    ) -> None:
        self.found: dict[Want, Answer] = {}
        self._store, self._lane, self._deadline = store, lane, deadline
        service, region, assume = lane
        paced = bucket(store.directory / "pace")
        self._call = Caller(service, region, assume, deadline, paced.take, paced.drain)

    def read(self, group: Sequence[Want], spare: Sequence[Want]) -> None:
        """Read a group and keep the answers; ``spare`` comes along where a call has room."""
        began = time.monotonic()
        kinds: dict[str, list[Want]] = defaultdict(list)
        for want in group:
            kinds[want.source.kind].append(want)
        try:
            for kind, wants in kinds.items():
                _, read = READERS[kind]
                room = [one for one in spare if one.source.kind == kind][: -len(wants) % 10]
                for want, answer in read(self._call, wants + room):
                    self._keep(want, answer, began, want not in room)
        except SecretError as problem:
            self._fail(problem, group, began)

    def _keep(self, want: Want, answer: Answer, began: float, wanted: bool) -> None:
        self.found[want] = answer
        now = time.monotonic()
        since = began if wanted else self._wanted(want)
        if isinstance(answer, SecretError):
            self._store.put(
                Entry(want.name, began, since, str(answer), answer.reason, now + _NEGATIVE)
            )
        else:
            self._store.put(Entry(want.name, began, since, answer))

    def _wanted(self, want: Want) -> float:
        entry = self._store.value(want.name)
        return entry.wanted if entry else 0.0

    def _fail(self, problem: SecretError, group: Sequence[Want], began: float) -> None:
        """Remember that AWS was unwell: of the wants, and of all this lane if it was so for long.

        A process that had little time left itself says nothing about the others' chances.
        """
        now = time.monotonic()
        for want in group:
            if want not in self.found:
                self.found[want] = problem
        if now - began < _LONG:
            return
        name = json.dumps(self._lane)
        self._store.put(Entry(name, began, began, str(problem), problem.reason, now + _FAILURE))


def from_opts(opts: Mapping[str, Any]) -> Broker | None:
    """Return the broker that a master's options describe, None where ``aws_secrets`` is not used.

    Raises ValueError as Broker does.
    """
    for entry in opts.get("ext_pillar", []):
        options = entry.get("aws_secrets")
        if isinstance(options, dict):
            names = ("cache", "region", "ttl", "stale", "rate")
            return Broker(**{name: options[name] for name in names if name in options})
    return None


def _lane(want: Want) -> _Lane:
    return READERS[want.source.kind][0], want.region, want.assume
