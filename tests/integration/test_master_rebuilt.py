"""A master is lost and rebuilt from the repository and a backup of its keys."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardian.fleet.master import Jids, Job, Master
from tests.integration.conftest import one_agent
from tests.support import aws
from tests.support.region import REPOSITORY, Region, region, until

HOSTS = {"sip-01": "a", "pbx-01": "a", "pbx-02": "b"}
JIDS = Jids(time.time)


@pytest.fixture
def rebuilt_region() -> Iterator[Region]:
    with (
        tempfile.TemporaryDirectory(prefix="gr") as directory,
        region(Path(directory), HOSTS) as one,
    ):
        until(lambda: _accepted(one) == len(HOSTS), "the keys", 60)
        yield one


def _accepted(one: Region) -> int:
    return len(list((one.root / "master" / "etc/salt/pki/master/minions").glob("*")))


def runner(one: Region, *words: str, environment: dict[str, str] | None = None) -> Any:
    """What a runner of this repository returns; its one line when it fails."""
    command = [Path(sys.executable).with_name("salt-run"), "-c", one.root / "etc", "--out=json"]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    return json.loads(done.stdout) if not done.returncode else done.stdout + done.stderr


def ping(one: Region) -> bool:
    with Master(one_agent(one), JIDS) as master:
        everyone = tuple(map(one.minion, HOSTS))
        found = master.run(Job(JIDS.new(), everyone, "test.ping", cap=40))
    return all(outcome.value is True for outcome in found.values())


def test_minions_and_a_deploy_go_on_with_a_master_that_was_rebuilt(rebuilt_region: Region) -> None:
    one, master = rebuilt_region, rebuilt_region.root / "master"
    until(lambda: ping(one), "the minions", 60)
    keys = one.root / "keys.tar.gz"
    told = runner(one, "master_keys.backup", str(keys))
    assert (told["minions"], keys.stat().st_mode & 0o777) == (len(HOSTS), 0o600)

    for host in HOSTS:
        one.node(host, config={"rtp": 16384, "gateways": 0})
    one.node("pbx-01", calls=1, stuck=True)
    one.pillar({"rtp": 20000})
    deploying = guardian(one, "deploy", "--only", "fleet", "--yes")
    until(lambda: one.log("drain"), "the first drain", 60)
    one.kill("master")
    deploying.kill()
    deploying.wait()
    shutil.rmtree(master)  # keys, job cache, everything
    (master / "var/cache/salt/master/proc").mkdir(parents=True)  # as docs/masters.md says

    assert runner(one, "master_keys.restore", str(keys)) == {**told, "where": str(keys)}
    assert "another key already" not in str(runner(one, "master_keys.restore", str(keys)))
    one.run("master")
    until(lambda: ping(one), "the minions, which nobody accepted", 90)
    pending = list((master / "etc/salt/pki/master/minions_pre").glob("*"))
    assert pending == []

    one.node("pbx-01", stuck=False)
    resumed = guardian(one, "resume")
    assert resumed.wait(120) == 0
    assert sorted(one.log("apply")) == sorted([host, "apply", "restart"] for host in HOSTS)
    assert all(not one.node(host)["paused"] for host in HOSTS)


def test_keys_of_another_master_and_what_is_no_backup_are_refused(tmp_path: Path) -> None:
    one = Region(tmp_path, {})
    pki = tmp_path / "master" / "etc/salt/pki/master"
    (pki / "minions").mkdir(parents=True)
    (tmp_path / "master" / "var/cache/salt/master/proc").mkdir(parents=True)
    for name in ("master.pem", "master.pub", "minions/pbx-01.dev01-use2"):
        (pki / name).write_text(name)
    (pki / "minions_pre").mkdir()
    (pki / "minions_pre" / "stranger").write_text("not accepted")
    options = {
        "root_dir": str(tmp_path / "master"),
        "user": "root",
        "runner_dirs": [str(REPOSITORY / "_runners")],
    }
    one._write(tmp_path / "etc" / "master", options)
    with aws.running() as cloud:
        cloud.client("s3").create_bucket(
            Bucket="keys", CreateBucketConfiguration={"LocationConstraint": aws.REGION}
        )
        environment = {**os.environ, **cloud.environment}
        place = "s3://keys/euw2.tar.gz"
        assert "kms_key" in str(runner(one, "master_keys.backup", place, environment=environment))
        runner(one, "master_keys.backup", place, "kms_key=alias/masters", environment=environment)
        kept = cloud.client("s3").head_object(Bucket="keys", Key="euw2.tar.gz")
        assert kept["ServerSideEncryption"] == "aws:kms"
        shutil.rmtree(pki)
        told = runner(one, "master_keys.restore", place, environment=environment)
        assert told["minions"] == 1
        assert sorted(str(path.relative_to(pki)) for path in pki.rglob("*") if path.is_file()) == [
            "master.pem", "master.pub", "minions/pbx-01.dev01-use2",
        ]  # fmt: skip
        assert (pki / "master.pem").stat().st_mode & 0o777 == 0o400
        (pki / "master.pem").unlink()
        (pki / "master.pem").write_text("of another master")
        refused = runner(one, "master_keys.restore", place, environment=environment)
    assert "another key already" in str(refused)
    assert (pki / "master.pem").read_text() == "of another master"
    (tmp_path / "half").write_bytes(b"half of one")
    assert "is no backup" in str(runner(one, "master_keys.restore", str(tmp_path / "half")))


def guardian(one: Region, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "guardian", *words, one.workspace],
        env={**os.environ, "GUARDIAN_CONFIG": str(one.config())},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
