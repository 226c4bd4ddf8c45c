"""Commits as they are deployed: found by name, unpacked, and the stacks of theirs."""

import io
import subprocess
from pathlib import Path

import pytest

from guardian import release
from guardian.config import Config, Master, Rollout, Stack, Workspace
from guardian.deploy import Pipeline
from guardian.errors import GuardianError, UsageError
from guardian.journal import Journal
from guardian.ui.progress import Progress


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


def pipeline(root: Path, runs: Path, **master: object) -> Pipeline:
    place = Master((), "/srv/guardian", "", **master)  # type: ignore[arg-type]
    space = Workspace("lab-local", (), place, runs, runs, runs, Rollout())
    return Pipeline(Config(root, root), space, Progress(io.StringIO(), io.StringIO()))


def test_a_run_is_of_the_commit_it_began_with(checkout: Path, tmp_path: Path) -> None:
    one = pipeline(checkout, tmp_path, releases="/srv/releases")
    one._pin()
    assert one.at == one._commit() == release.head(checkout)
    (checkout / "terraform/net/main.tf").write_text("# two\n")
    with pytest.raises(GuardianError, match=r"terraform/net/main.tf is not committed"):
        pipeline(checkout, tmp_path, releases="/srv/releases")._pin()
    live = pipeline(checkout, tmp_path, releases="/srv/releases", live=True)
    live._pin()
    assert live.at == ""


def test_a_resume_is_of_the_same_commit(checkout: Path, tmp_path: Path) -> None:
    one = pipeline(checkout, tmp_path / "runs", releases="/srv/releases")
    began = release.head(checkout)
    journal = Journal(tmp_path / "runs/20261125T000000Z/journal.jsonl", "run", lambda: 1.0)
    journal.add("run", workspace="lab-local", at=began, commit=began, only="stacks")
    journal.close()
    (checkout / "terraform/net/main.tf").write_text("# two\n")
    git(checkout, "commit", "-qam", "two")
    assert one.resume() == 0
    assert one.at == one._commit() == began
    assert one._release is not None
    assert one._release.commit == began


def test_only_the_fleet_needs_no_stack_of_that_commit(checkout: Path, tmp_path: Path) -> None:
    one = pipeline(checkout, tmp_path, releases="/srv/releases")
    later = checkout / "terraform/later"
    one.config = config(checkout, late=later)
    one.at, one.only = release.head(checkout), "fleet"
    one._pack(tmp_path)
    assert one._release is not None


def test_the_way_back_is_the_last_good_commit_and_a_damaged_record_hides_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    one = pipeline(checkout, tmp_path, releases="/srv/releases")

    def ran(name: str, commit: str, code: int) -> Path:
        path = tmp_path / name / "journal.jsonl"
        journal = Journal(path, name, lambda: 1.0)
        journal.add("run", commit=commit)
        journal.add("end", code=code, why="", seconds=1)
        journal.close()
        return path

    ran("1", "a" * 40, 0)
    ran("2", "b" * 40, 30)
    now = ran("3", release.head(checkout), 30).parent
    assert one._way_back(now) == "a" * 40
    damaged = ran("2", "b" * 40, 30)
    damaged.write_bytes(damaged.read_bytes().replace(b'"seq":1,', b'"seq":9,'))
    assert one._way_back(now) == ""
    assert pipeline(checkout, tmp_path)._way_back(now) == ""
