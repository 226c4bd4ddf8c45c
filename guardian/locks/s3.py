"""One deployer a workspace over many hosts: an object in S3, only ever written conditionally.

Each write names the version it replaces (If-Match; If-None-Match for the first), so of two writers
one fails, and a put that is late on the wire, or sent again since its answer was lost, undoes
nothing that came after it. No body comes twice (a token a life, a count a beat), so no ETag does;
whoever got no answer reads the object, and his own token there says that the put went through.

The object is never deleted, only marked free: its fence grows with every life of the lock.

A holder has lost it when the token is another's, or when no beat landed for QUIET seconds of a
clock that runs on while the host sleeps. QUIET < STALE, so he stops before anybody may free it.
Stale is Last-Modified against the Date of the same answer, both S3's: no clock of ours counts.
A person frees a stale lock; nobody takes it. What stays open: a process that sleeps between
`check` and what it does next, for longer than STALE, while its lock is freed. Its fence, in the
journal, tells the two runs apart.
"""

import json
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from guardian.config import Bucket
from guardian.errors import HALTED, LOCKED, GuardianError
from guardian.locks import Holder
from guardian.locks.local import who
from guardian.secrets import aws

BEAT, QUIET, STALE = 10.0, 45.0, 60.0
_PATIENCE, _AGAIN = 20.0, 2.0
# The condition did not hold, two writers met, or there is nothing to match: read, then decide.
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404"})


class _PassingError(Exception):
    """S3 gave no answer, or a wish to be asked again: what was sent may have gone through."""


@dataclass(frozen=True)
class _Found:
    """The object as one answer of S3 showed it; `age` is since the last write, by S3's clock."""

    body: dict[str, Any]
    etag: str
    date: datetime
    age: float

    @property
    def token(self) -> str:
        return "" if self.body.get("free") else str(self.body.get("token", ""))


class _Object:
    """The lock's object. `read` and `write` raise _PassingError, or GuardianError for good."""

    def __init__(self, place: Bucket, workspace: str) -> None:
        self._place, self._key = place, f"{place.prefix}{workspace}/lock"
        self.url = f"s3://{place.bucket}/{self._key}"

    def read(self) -> _Found:
        try:
            answer = self._client().get_object(Bucket=self._place.bucket, Key=self._key)
            raw = answer["Body"].read()
        except ClientError as problem:
            if aws.code(problem) != "NoSuchKey":
                raise self._trouble(problem) from None
            return _Found({}, "", _date(problem.response), 0.0)
        except (BotoCoreError, OSError) as problem:
            raise self._trouble(problem) from None
        try:
            body = json.loads(raw)
            if not (isinstance(body, dict) and isinstance(body["fence"], int)):
                raise ValueError
        except (ValueError, KeyError):
            raise GuardianError(
                f"{self.url}: no lock of guardian's; nothing was started, see what wrote it"
            ) from None
        date = _date(answer)
        return _Found(body, answer["ETag"], date, (date - answer["LastModified"]).total_seconds())

    def write(self, body: dict[str, Any], replaces: str) -> str | None:
        """Replace that version; the new ETag, or None when it is not there any more."""
        condition = {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        try:
            answer = self._client().put_object(
                Bucket=self._place.bucket, Key=self._key, Body=json.dumps(body), **condition
            )
        except ClientError as problem:
            if aws.code(problem) in _LOST_RACE:
                return None
            raise self._trouble(problem) from None
        except BotoCoreError as problem:
            raise self._trouble(problem) from None
        return str(answer["ETag"])

    def _client(self) -> Any:
        return aws.client("s3", self._place.region)

    def _trouble(self, problem: Exception) -> Exception:
        slow = isinstance(problem, ClientError) and aws.code(problem) == "RequestTimeout"
        if slow or aws.passing(problem) or isinstance(problem, OSError):
            return _PassingError(_word(problem))
        why = f"{self.url}: {_word(problem)}"
        if isinstance(problem, ClientError) and aws.denied(problem):
            # Without ListBucket, S3 denies what is only missing.
            why += "; it takes s3:GetObject and s3:PutObject on it, s3:ListBucket on the bucket"
        return GuardianError(f"{why}; guardian.yaml names it under `lock`")


class _Lease:
    """One life of the lock: taken, kept by a thread that beats, freed."""

    def __init__(self, place: _Object, workspace: str) -> None:
        self._object, self._workspace = place, workspace
        self._token, self._tried = uuid.uuid4().hex, False
        self._body: dict[str, Any] = {}
        self._etag, self._lost, self._trouble = "", "", ""
        self._seen = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)

    @property
    def fence(self) -> int:
        return int(self._body["fence"])

    def check(self) -> None:
        """GuardianError (exit 30) when the lock is lost, or nothing shows that it is not."""
        why, quiet = self._lost, _now() - self._seen
        if not why and quiet > QUIET:
            why = f"no heartbeat reached it for {quiet:.0f} s" + (
                f" ({self._trouble})" if self._trouble else ""
            )
        if why:
            raise GuardianError(
                f"{self._object.url}: {why}; the lock may be another's, so nothing more was "
                f"started; `guardian resume {self._workspace}` goes on",
                HALTED,
            )

    def take(self, what: str) -> None:
        """Become its holder; GuardianError (exit 21) names who is."""
        until = _now() + _PATIENCE
        while True:
            begun = _now()
            try:
                found = self._object.read()
                if found.token == self._token:  # an earlier put went through, its answer did not
                    self._body, self._etag = found.body, found.etag
                    self._seen = begun - found.age - 1
                    return
                if found.token:
                    raise GuardianError(_refusal(self._object, self._workspace, found), LOCKED)
                self._body = {
                    "fence": int(found.body.get("fence", 0)) + 1,
                    "token": self._token,
                    "beat": 0,
                    "by": who(),
                    "what": what,
                    "since": found.date.strftime("%Y-%m-%d %H:%M:%SZ"),
                }
                self._tried, self._seen = True, _now()
                if etag := self._object.write(self._body, found.etag):
                    self._etag = etag
                    return
            except _PassingError as problem:
                if _now() > until:
                    raise GuardianError(
                        f"{self._object.url}: {problem}; the lock cannot be taken, nothing was "
                        "started"
                    ) from None
            time.sleep(random.uniform(0.05, 0.3))

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def _keep(self) -> None:
        wait = BEAT
        while not self._lost and not self._over.wait(wait):
            wait = BEAT if self._beat() else _AGAIN

    def _beat(self) -> bool:
        body, begun = {**self._body, "beat": self._body["beat"] + 1}, _now()
        try:
            if etag := self._object.write(body, self._etag):
                self._body, self._etag, self._seen, self._trouble = body, etag, begun, ""
                return True
            found = self._object.read()
        except (_PassingError, GuardianError) as problem:
            self._trouble = str(problem)
            return False
        if found.token != self._token:
            by = found.body.get("freed_by") or found.body.get("by") or "somebody who deleted it"
            self._lost = f"taken away by {by}"
        else:
            # A put of ours landed late: when, only S3 can say.
            self._body, self._etag = found.body, found.etag
            self._seen = max(self._seen, begun - found.age - 1)
        return False

    def free(self) -> None:
        """Mark it free, if it is ours; what cannot be freed is said, and goes stale."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._tried or self._lost:
            return
        until, problem = _now() + _PATIENCE, ""
        while _now() < until:
            try:
                found = self._object.read()
                if found.token != self._token:
                    return
                if self._object.write({**found.body, "free": True}, found.etag):
                    return
            except _PassingError as passing:
                problem = str(passing)
            except GuardianError as error:
                problem = str(error)
                break
            time.sleep(random.uniform(0.05, 0.3))
        print(
            f"warning: {self._object.url} could not be freed ({problem}); once it is stale, "
            f"`guardian unlock {self._workspace}` frees it",
            file=sys.stderr,
        )


@contextmanager
def held(place: Bucket, workspace: str, what: str) -> Iterator[_Lease]:
    """Hold the lock while the block runs; GuardianError (exit 21) names who holds it."""
    lease = _Lease(_Object(place, workspace), workspace)
    try:
        lease.take(what)
        lease.start()
        yield lease
    finally:
        lease.free()


def inspect(place: Bucket, workspace: str) -> Holder | None:
    """Who holds the lock by S3's account, or None."""
    target = _Object(place, workspace)
    try:
        found = target.read()
    except _PassingError as problem:
        raise GuardianError(f"{target.url}: {problem}; try again") from None
    if not found.token:
        return None
    return Holder(_words(found), target.url, found.age > STALE, found.etag)


def free(place: Bucket, workspace: str, expect_etag: str) -> None:
    """Free the lock of a stale holder, unless it changed since it was shown with that ETag."""
    target, until = _Object(place, workspace), _now() + _PATIENCE
    while True:
        try:
            found = target.read()
            if not found.token:
                return
            if found.age <= STALE or found.etag != expect_etag:
                raise GuardianError(
                    f"{target.url}: not freed, its holder is alive: {_words(found)}", LOCKED
                )
            if target.write({**found.body, "free": True, "freed_by": who()}, expect_etag):
                return
        except _PassingError as problem:
            if _now() > until:
                raise GuardianError(f"{target.url}: {problem}; not freed, try again") from None
        time.sleep(random.uniform(0.05, 0.3))


def _refusal(target: _Object, workspace: str, found: _Found) -> str:
    said = f"{workspace} is locked by {_words(found)}, in {target.url}; "
    if found.age > STALE:
        return said + f"it may be dead: `guardian unlock {workspace}` shows it and frees it"
    return said + f"`guardian stop {workspace}` on its host ends it"


def _words(found: _Found) -> str:
    by, since, what = (_plain(found.body.get(key, "?")) for key in ("by", "since", "what"))
    return f"{by} since {since} ({what}), last heartbeat {max(found.age, 0):.0f} s ago"


def _plain(text: object) -> str:
    """What another host wrote goes to a terminal: printable, and no novel."""
    return "".join(one if one.isprintable() else "?" for one in str(text)[:80])


def _word(problem: Exception) -> str:
    if isinstance(problem, ClientError):
        return f"{aws.code(problem)} from {problem.operation_name}"
    return f"S3 cannot be reached ({type(problem).__name__})"


def _date(answer: dict[str, Any]) -> datetime:
    header = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(header).astimezone(UTC)
    except ValueError:
        raise _PassingError("an answer without a date") from None


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
