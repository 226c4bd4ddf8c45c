"""Commits as they are deployed: found by name, unpacked, and the stacks of theirs."""

import subprocess
from pathlib import Path

import pytest

from guardian import release
from guardian.config import Config, Stack
from guardian.errors import GuardianError, UsageError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "terraform/net").mkdir(parents=True)
    (root / "terraform/net/main.tf").write_text("# one\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    done = subprocess.run(
        ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def config(root: Path, **stacks: Path) -> Config:
    found = {name: Stack(name, path) for name, path in stacks.items()}
    return Config(root / "guardian.yaml", root, stacks=found)


def test_a_commit_is_what_it_was_whatever_the_checkout_is_now(
    checkout: Path, tmp_path: Path
) -> None:
    commit = release.resolve(checkout, "HEAD")
    (checkout / "terraform/net/main.tf").write_text("# two\n")
    assert release.changed(checkout) == ["terraform/net/main.tf"]
    found = release.export(checkout, commit, tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    moved = release.stacks_of(
        config(checkout, net=checkout / "terraform/net", own=elsewhere), found.tree
    )
    assert (moved.stacks["net"].path / "main.tf").read_text() == "# one\n"
    assert moved.stacks["own"].path == elsewhere
    assert release.head(checkout) == found.commit == commit


@pytest.mark.parametrize("revision", ["no-such", "--output=x", "HEAD:terraform"])
def test_what_names_no_commit_is_refused(checkout: Path, revision: str) -> None:
    with pytest.raises(UsageError, match="--at ") as refused:
        release.resolve(checkout, revision)
    assert "\n" not in str(refused.value)


def test_a_commit_without_the_stack_is_refused(checkout: Path, tmp_path: Path) -> None:
    later = checkout / "terraform/later"
    later.mkdir()
    found = release.export(checkout, release.head(checkout), tmp_path / "run")
    with pytest.raises(GuardianError, match="stack late: that commit has no terraform/later"):
        release.stacks_of(config(checkout, late=later), found.tree)


def test_without_git_the_commit_is_unknown(tmp_path: Path) -> None:
    assert release.head(tmp_path) == "unknown"
    with pytest.raises(GuardianError, match="git cannot pack"):
        release.export(tmp_path, "0" * 40, tmp_path / "run")
