"""What the Salt link leans on, against the pinned Salt: look here first after an upgrade.

Where one fails, the code that its docstring names may be wrong, or no longer be needed.
"""

import os
import pwd
import time
from collections.abc import Iterator
from typing import Any

import pytest

from guardian.errors import GuardianError
from guardian.fleet.checks import change
from guardian.fleet.master import NO_KEY, Jids, Job, Master, Patience
from guardian.fleet.survey import RefusedError, survey
from tests.integration.conftest import HOSTS, one_agent
from tests.support.region import PUBLISHER, Region, until

JIDS = Jids(time.time)
PATIENCE = Patience(sweep=1, silence=3, answer=3, misses=3)


@pytest.fixture
def master(fresh: Region) -> Iterator[Master]:
    with Master(one_agent(fresh), JIDS, PATIENCE) as started:
        yield started


@pytest.fixture
def pbx(fresh: Region) -> str:
    return fresh.minion("pbx-01")


def publish(master: Master, jid: str, targets: list[str], fun: Any, *args: Any) -> dict[str, Any]:
    """What the master answers to one publication, which nobody watches."""
    answer: dict[str, Any] = master._ask(
        "publish", jid=jid, targets=targets, fun=fun, args=list(args), kwargs={}
    )
    return answer


def returned(master: Master, jid: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: master._ask("lookup", jid=jid), f"returns of {jid}", 30)
    return found


def test_the_version_is_the_pinned_one(master: Master) -> None:
    """setup.cfg pins it; these are its habits."""
    assert master.facts()["salt"] == "3008.3"


def test_a_job_id_published_twice_runs_once(master: Master, fresh: Region, pbx: str) -> None:
    """fleet.master publishes again when an answer was lost, and a resume does."""
    jid = JIDS.new()
    publish(master, jid, [pbx], "voice.checks")
    publish(master, jid, [pbx], "voice.checks")
    returned(master, jid)
    publish(master, jid, [pbx], "voice.checks")
    # A later job on the same minion is the proof that the others were passed over.
    master.run(Job(JIDS.new(), (pbx,), "test.ping"))
    assert fresh.log("checks") == [["pbx-01", "checks"]]


def test_a_list_reaches_those_with_keys_and_names_them(master: Master, pbx: str) -> None:
    """fleet.master: who was not reached is UNKNOWN at once, and nobody is left out silently."""
    ghost = "pbx-99.dev01-use2"
    assert publish(master, JIDS.new(), [pbx, ghost], "test.ping")["minions"] == [pbx]
    found = master.run(Job(JIDS.new(), (pbx, ghost), "test.ping"))
    assert {one: (answer.known, answer.value) for one, answer in found.items()} == {
        pbx: (True, True),
        ghost: (False, NO_KEY),
    }


def test_a_running_job_is_found_and_an_ended_one_is_cached(master: Master, pbx: str) -> None:
    """fleet.master resolves silence with both; find_job is {} when the job does not run."""
    job = Job(JIDS.new(), (pbx,), "test.sleep", (4,), cap=60)
    master.submit(job)

    def asked(fun: str) -> Any:
        return master.run(Job(JIDS.new(), (pbx,), fun, (job.jid,)))[pbx].value

    running = until(lambda: asked("saltutil.find_job"), "the job to run", 10)
    assert (running["jid"], running["fun"]) == (job.jid, "test.sleep")
    until(lambda: returned(master, job.jid), "its end", 20)
    assert asked("saltutil.find_job") == {}
    cached = asked("saltutil.find_cached_job")
    assert (cached["return"], cached.get("retcode", 0)) == (True, 0)


def test_a_state_run_beside_another_is_a_list_and_waits(
    master: Master, fresh: Region, pbx: str
) -> None:
    """fleet.checks.change: a list which says so is neither success nor failure."""
    fresh.node("pbx-01", slow=4)
    fresh.pillar({"gateways": 1})
    first = Job(JIDS.new(), (pbx,), "state.apply")
    master.submit(first)
    until(lambda: fresh.log("apply"), "the first run to begin", 20)
    jid = JIDS.new()
    publish(master, jid, [pbx], "state.apply")
    second = returned(master, jid)[pbx]
    assert isinstance(second["value"], list)
    assert second["retcode"] == 1
    assert change(second["value"]).busy
    until(lambda: returned(master, first.jid), "the first run to end", 20)


def test_a_test_run_succeeds_with_results_of_none(master: Master, fresh: Region, pbx: str) -> None:
    """fleet.checks judges results: a return code says nothing of what would change."""
    fresh.pillar({"rtp": 20000})
    found = master.run(Job(JIDS.new(), (pbx,), "state.apply", (), {"test": True}))[pbx]
    assert found.retcode == 0
    assert [entry["result"] for entry in found.value.values()] == [None]


def test_a_job_of_several_functions_breaks_state_runs(master: Master, pbx: str) -> None:
    """Why _modules/survey.py exists: once this fails, a compound job would do instead."""
    several = JIDS.new()
    publish(master, several, [pbx], ["test.sleep", "test.ping"], [4], [])
    running = Job(JIDS.new(), (pbx,), "saltutil.find_job", (several,))
    until(lambda: master.run(running)[pbx].value or _again(running), "the job to run", 10)
    found = master.run(Job(JIDS.new(), (pbx,), "state.apply", (), {"test": True}))[pbx]
    assert "not list" in str(found.value)
    assert found.retcode
    until(lambda: returned(master, several), "its end", 20)
    assert returned(master, several)[pbx]["value"] == {"test.sleep": True, "test.ping": True}


def _again(job: Job) -> None:
    """A job id runs once, so that asking again needs another."""
    object.__setattr__(job, "jid", JIDS.new())


def agent_as(user: str, fresh: Region) -> list[str]:
    """The agent as a user who is in the group of the master's sockets, and nothing else."""
    who = pwd.getpwnam(user)
    drop = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--groups=0"]
    return [*drop, "env", "HOME=/nonexistent", "PYTHONDONTWRITEBYTECODE=1", *one_agent(fresh)]


@pytest.fixture
def publisher(fresh: Region) -> Iterator[Master]:
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    with Master(agent_as(PUBLISHER, fresh), JIDS, PATIENCE) as started:
        yield started


def test_one_allowed_function_lets_a_whole_job_through(publisher: Master, pbx: str) -> None:
    """docs/masters.md: publisher_acl is no fence against who may publish; the agent is."""
    with pytest.raises(GuardianError, match="Authorization error"):
        publish(publisher, JIDS.new(), [pbx], "grains.get", "id")
    jid = JIDS.new()
    publish(publisher, jid, [pbx], ["saltutil.find_job", "grains.get"], [jid], ["id"])
    assert returned(publisher, jid)[pbx]["value"]["grains.get"] == pbx


def test_a_user_of_publisher_acl_surveys_and_publishes(
    publisher: Master, fresh: Region, pbx: str
) -> None:
    """fleet.agent and fleet.survey need no key list, no root, and no more than is documented."""
    assert publisher.facts()["user"] == PUBLISHER
    assert {fact["key"] for fact in publisher.fleet(fresh.workspace).values()} == {"unknown"}
    nodes = survey(publisher, JIDS, fresh.workspace, lambda text: None)
    assert [node.minion for node in nodes] == sorted(map(fresh.minion, HOSTS))
    drain = Job(JIDS.new(), (pbx,), "voice.drain", (0,))
    assert publisher.run(drain)[pbx].value["drained"]
    with Master(agent_as(PUBLISHER, fresh), JIDS, PATIENCE) as second:
        second.attach(drain)
        (cached,) = until(lambda: second.poll(1), "the job cache", 10)
    assert (cached.known, cached.value["drained"]) == (True, True)


def test_a_user_of_publisher_acl_is_refused_a_node_without_a_key(
    publisher: Master, fresh: Region
) -> None:
    """fleet.survey: what `publish` says it reached is all that such a user learns of keys."""
    try:
        fresh.hosts["fsx-01"] = "a"
        fresh.pillar({})
        with pytest.raises(RefusedError, match=r"fsx-01\.dev01-use2: .*no accepted key"):
            survey(publisher, JIDS, fresh.workspace, lambda text: None)
    finally:
        del fresh.hosts["fsx-01"]


def test_no_other_user_gets_anything(fresh: Region) -> None:
    """A user whom publisher_acl does not name has no key to publish with."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    pbx = fresh.minion("pbx-01")
    with (
        Master(agent_as("daemon", fresh), JIDS, PATIENCE) as master,
        pytest.raises(GuardianError, match="Authentication error"),
    ):
        publish(master, JIDS.new(), [pbx], "test.ping")
