"""A commit to deploy: its tree, for the stacks, and its archive, for the master to serve."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from guardian.config import Config
from guardian.errors import GuardianError, UsageError


@dataclass(frozen=True)
class Release:
    """A commit (40 hex digits), unpacked in `tree` and packed in `archive`."""

    commit: str
    tree: Path
    archive: Path


def resolve(root: Path, revision: str) -> str:
    """The commit that a revision of the checkout names; UsageError when there is none."""
    if revision.startswith("-"):
        raise UsageError(f"--at {revision[:60]!r}: no revision of {root}")
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None:
        raise UsageError(f"--at {revision[:60]!r}: no commit of {root}; `git log` shows them")
    return found.strip()


def head(root: Path) -> str:
    """The commit that is checked out, or `unknown` where there is no git."""
    return (_git(root, "rev-parse", "HEAD") or "unknown").strip()


def changed(root: Path) -> list[str]:
    """Files of the checkout that are not as they are committed."""
    lines = (_git(root, "status", "--porcelain", "--untracked-files=no") or "").splitlines()
    return [line[3:] for line in lines]


def export(root: Path, commit: str, into: Path) -> Release:
    """Unpack a commit of the checkout into a new directory; GuardianError when that fails."""
    tree, archive = into / "tree", into / "release.tar"
    try:
        tree.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise GuardianError(f"{tree}: {error.strerror}; nothing was started") from None
    if _git(root, "archive", "--format=tar", f"--output={archive}", commit) is None:
        raise GuardianError(f"{root}: git cannot pack {commit[:12]}; nothing was started")
    done = subprocess.run(["tar", "-xf", archive, "-C", tree], capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["tar failed"])[-1]
        raise GuardianError(f"{commit[:12]} cannot be unpacked: {why}; nothing was started")
    return Release(commit, tree, archive)


def stacks_of(config: Config, tree: Path) -> Config:
    """The same configuration with the stacks of another tree; GuardianError if one is not there.

    A stack that lies outside of the checkout is no part of its commits, and stays.
    """
    moved = dict(config.stacks)
    for name, stack in config.stacks.items():
        if not stack.path.is_relative_to(config.root):
            continue
        path = tree / stack.path.relative_to(config.root)
        if not path.is_dir():
            raise GuardianError(
                f"stack {name}: that commit has no {stack.path.relative_to(config.root)}; "
                "deploy --only fleet, or a commit that has it"
            )
        moved[name] = replace(stack, path=path)
    return replace(config, stacks=moved)


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
