"""The lock in S3: one winner, a loser who is told, and no way to two of them at once."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardian import locks
from guardian.config import Bucket, Master, Rollout, Workspace
from guardian.errors import HALTED, LOCKED, GuardianError
from guardian.locks import s3
from tests.support.aws import REGION, Aws, running

PLACE = Bucket("deploys", "guardian/", REGION)


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with running() as found:
        yield found


@pytest.fixture
def aws(server: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    server.reset()
    server.client("s3").create_bucket(
        Bucket=PLACE.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = {"state": tmp_path, "outputs": tmp_path, "runs": tmp_path / "runs"}
    master = Master((), "", "")
    return Workspace("prod-euw2", (), master, rollout=Rollout(), lock=PLACE, **place)


def elsewhere(workspace: Workspace, host: str) -> Workspace:
    """The same workspace, deployed from another host."""
    return replace(workspace, runs=workspace.runs.parent / host)


@pytest.mark.usefixtures("aws")
def test_a_second_host_is_told_who_where_and_since_when(workspace: Workspace) -> None:
    with locks.held(workspace, "deploy") as lease:
        lease.check()
        with (
            pytest.raises(GuardianError) as refused,
            locks.held(elsewhere(workspace, "other"), "deploy"),
        ):
            pytest.fail("both hold it")
    assert refused.value.code == LOCKED
    said = str(refused.value)
    assert f"prod-euw2 is locked by {locks.who()} since " in said
    assert "s3://deploys/guardian/prod-euw2/lock" in said
    assert "last heartbeat" in said
    assert locks.inspect(workspace) is None


@pytest.mark.usefixtures("aws")
def test_each_life_has_a_higher_fence(workspace: Workspace) -> None:
    fences = []
    for host in ("one", "two", "one"):
        with locks.held(elsewhere(workspace, host), "deploy") as lease:
            fences.append(lease.fence)
    assert fences == [1, 2, 3]


@pytest.mark.parametrize("fault", ["fail", "drop", "lose", "conflict"])
def test_a_put_that_goes_wrong_once_takes_the_lock_all_the_same(
    aws: Aws, workspace: Workspace, fault: str
) -> None:
    aws.fault(fault, "s3:PutObject", times=1)
    with locks.held(workspace, "deploy") as lease:
        lease.check()
        assert lease.fence == 1
        with pytest.raises(GuardianError), locks.held(elsewhere(workspace, "b"), "deploy"):
            pytest.fail("both hold it")
    assert locks.inspect(workspace) is None


def test_a_bucket_that_refuses_is_one_line_and_nothing_was_started(
    aws: Aws, workspace: Workspace
) -> None:
    aws.fault("deny", "s3:PutObject")
    with pytest.raises(GuardianError, match="s3:PutObject") as refused, locks.held(workspace, "x"):
        pytest.fail("held without a lock")
    assert "\n" not in str(refused.value)
    aws.heal()
    missing = replace(workspace, lock=Bucket("nowhere", "", REGION))
    with pytest.raises(GuardianError, match="NoSuchBucket"), locks.held(missing, "deploy"):
        pytest.fail("held without a bucket")


def test_a_stale_lock_is_not_stolen_and_freed_only_as_it_was_shown(
    aws: Aws, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "BEAT", 3600.0)
    lease = s3.held(PLACE, workspace.name, "deploy")
    lease.__enter__()
    alive = locks.inspect(workspace)
    assert alive is not None
    assert not alive.stale
    with pytest.raises(GuardianError, match="its holder is alive"):
        locks.free(workspace, alive.etag)
    # An hour passes on S3's clock, which alone counts.
    aws.fault("shift", "s3:GetObject", seconds=3600)
    with pytest.raises(GuardianError, match="`guardian unlock prod-euw2`") as refused:
        locks.held(elsewhere(workspace, "b"), "deploy").__enter__()
    assert refused.value.code == LOCKED
    found = locks.inspect(workspace)
    assert found is not None
    assert found.stale
    with pytest.raises(GuardianError, match="its holder is alive"):
        locks.free(workspace, '"another"')
    locks.free(workspace, found.etag)
    assert locks.inspect(workspace) is None
    with locks.held(elsewhere(workspace, "b"), "deploy") as next_life:
        assert next_life.fence == 2


def test_a_holder_whose_lock_was_taken_starts_nothing_more(
    aws: Aws, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "BEAT", 0.05)
    monkeypatch.setattr(s3, "_AGAIN", 0.05)
    with locks.held(workspace, "deploy") as lease:
        aws.client("s3").delete_object(Bucket=PLACE.bucket, Key="guardian/prod-euw2/lock")

        def lost() -> str:
            try:
                lease.check()
            except GuardianError as error:
                assert error.code == HALTED
                return str(error)
            return ""

        from tests.support.region import until

        said = until(lost, "the loss to be noticed", 20)
    assert "taken away by somebody who deleted it" in said
    assert "`guardian resume prod-euw2` goes on" in said


def test_a_holder_that_cannot_reach_s3_stops_before_anybody_may_free_it(
    workspace: Workspace, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3.QUIET < s3.STALE
    now = [s3._now()]
    monkeypatch.setattr(s3, "BEAT", 3600.0)
    with locks.held(workspace, "deploy") as lease:
        monkeypatch.setattr(s3, "_now", lambda: now[0])
        now[0] += s3.QUIET - 10
        lease.check()
        now[0] += 15
        with pytest.raises(GuardianError, match="no heartbeat reached it for"):
            lease.check()
        monkeypatch.undo()


def _race(environment: dict[str, str], workspace: Workspace, go: Any, said: Any, done: Any) -> None:
    os.environ.update(environment)
    go.wait()
    try:
        with locks.held(workspace, "deploy") as lease:
            said.put(("won", lease.fence))
            done.wait()
    except GuardianError as error:
        said.put((str(error), error.code))


def test_of_hosts_that_race_one_wins(aws: Aws, workspace: Workspace) -> None:
    spawn = multiprocessing.get_context("fork")
    said, go, done = spawn.Queue(), spawn.Event(), spawn.Event()
    racers = [
        spawn.Process(
            target=_race,
            args=(aws.environment, elsewhere(workspace, str(number)), go, said, done),
        )
        for number in range(6)
    ]
    for racer in racers:
        racer.start()
    go.set()
    found = [said.get(timeout=60) for _ in racers]
    done.set()
    for racer in racers:
        racer.join(60)
    assert sorted(code for text, code in found if text != "won") == [LOCKED] * 5
    assert [fence for text, fence in found if text == "won"] == [1]
    assert all(locks.who() in text for text, _ in found if text != "won")
