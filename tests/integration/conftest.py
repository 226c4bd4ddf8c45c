"""One region of real minions for all of these tests: starting it is most of their time."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardian.errors import GuardianError
from guardian.fleet.master import Jids, Job, Master
from tests.support.region import Region, region, until

HOSTS = {"sip-01": "a", "pbx-01": "a", "pbx-02": "b"}


@pytest.fixture(scope="session")
def shared_region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    # Unix sockets have short names: not under pytest's long directories.
    with (
        tempfile.TemporaryDirectory(prefix="gl") as directory,
        region(Path(directory), HOSTS) as one,
    ):
        command = one_agent(one)
        jids = Jids(time.time)
        with Master(command, jids) as master:

            def answering() -> bool:
                try:
                    accepted = master.minions()["accepted"]
                    if len(accepted) < len(HOSTS):
                        return False
                    job = Job(jids.new(), tuple(accepted), "test.ping", cap=5)
                    return all(found.known for found in master.run(job).values())
                except GuardianError:
                    return False

            until(answering, "the minions", 90)
            master.run(Job(jids.new(), tuple(map(one.minion, HOSTS)), "saltutil.sync_all"))
        yield one


def one_agent(one: Region) -> list[str]:
    """The command that starts an agent for this region."""
    config = str(one.root / "etc" / "master")
    return [sys.executable, "-m", "guardian.fleet.agent", "--config", config]


@pytest.fixture
def fresh(shared_region: Region) -> Iterator[Region]:
    """The region with every node in service, idle, and as pillar wants it."""
    for host in HOSTS:
        path = shared_region.root / "nodes" / f"{shared_region.minion(host)}.json"
        path.unlink(missing_ok=True)
        wanted = {"rtp": 16384, "gateways": 0}
        shared_region.node(host, running=True, paused=False, calls=0, config=wanted)
    shared_region.pillar({})
    shared_region.forget()
    shutil.rmtree(shared_region.root / "runs", ignore_errors=True)
    shared_region.config()
    yield shared_region
