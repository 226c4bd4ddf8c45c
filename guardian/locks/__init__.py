"""One deployer a workspace: a lock on this host, and one in S3 where several hosts deploy."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from guardian.config import Workspace
from guardian.errors import GuardianError
from guardian.locks import local
from guardian.locks.local import who

__all__ = ["Holder", "Lease", "free", "held", "holder", "inspect", "who"]


class Lease(Protocol):
    """What a holder holds. `fence` grows with every life of the lock."""

    @property
    def fence(self) -> int: ...

    def check(self) -> None:
        """GuardianError (exit 30) when the lock was lost, or cannot be shown to be ours still."""


@dataclass(frozen=True)
class Holder:
    """Who holds a workspace, in words. `stale`: gave no sign of life for long, by S3's own time."""

    text: str
    where: str
    stale: bool = False
    etag: str = ""


@dataclass(frozen=True)
class _Local:
    fence: int

    def check(self) -> None:
        """The kernel keeps a flock for as long as this process lives: it cannot be lost."""


@contextmanager
def held(workspace: Workspace, what: str) -> Iterator[Lease]:
    """Hold a workspace while the block runs; GuardianError (exit 21) names who holds it.

    The lock on this host first: it costs nothing, and tells two people on it from each other.
    """
    with local.held(workspace.runs, workspace.name, what):
        if workspace.lock is None:
            yield _Local(local.next_fence(workspace.runs))
            return
        from guardian.locks import s3

        with s3.held(workspace.lock, workspace.name, what) as lease:
            yield lease


def inspect(workspace: Workspace) -> Holder | None:
    """Who holds a workspace now, or None; GuardianError when S3 cannot be asked."""
    if workspace.lock is not None:
        from guardian.locks import s3

        return s3.inspect(workspace.lock, workspace.name)
    text = local.holder(workspace.runs)
    return Holder(text, str(workspace.runs / "lock")) if text else None


def holder(workspace: Workspace) -> str | None:
    """The same in words, for a screen: an S3 that cannot be asked is said, not raised."""
    if text := local.holder(workspace.runs):
        return text
    try:
        found = inspect(workspace)
    except GuardianError as error:
        return f"nobody on this host; elsewhere unknown: {error}"
    return found.text if found else None


def free(workspace: Workspace, expect_etag: str) -> None:
    """Free the lock in S3 of a holder that is stale, as `inspect` showed it and not a beat later.

    GuardianError (exit 21) when the holder lives. A lock on this host needs no freeing: the kernel
    frees it when its holder dies.
    """
    if workspace.lock is None:
        raise GuardianError(
            f"{workspace.name}: its lock is this host's, which ends with its holder; "
            f"`guardian stop {workspace.name}` ends a deploy"
        )
    from guardian.locks import s3

    s3.free(workspace.lock, workspace.name, expect_etag)
