"""Faults of minions, of the master and of what is between: what a deploy makes of each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from guardian.errors import FAILED, HALTED, OK, GuardianError
from guardian.fleet.master import Jids, Job, Master
from tests.integration.conftest import one_agent
from tests.support.faults import WHOLE, Fleet, Guardian, in_the_whole_matrix
from tests.support.region import Region, until

pytestmark = pytest.mark.timeout(240)
JIDS = Jids(time.time)


@pytest.fixture
def fleet(fresh: Region) -> Iterator[Fleet]:
    """A fleet that a deploy restarts; whatever was killed runs again afterwards."""
    fresh.pillar({"rtp": 20000})
    made = Fleet(fresh)
    yield made
    for name in ("master", *fresh.hosts):
        if name not in made.running:
            fresh.run(name)
    answering(fresh)


def answering(region: Region) -> None:
    """Wait until every minion answers its master."""

    def all_answer() -> bool:
        try:
            with Master(one_agent(region), JIDS) as master:
                minions = tuple(map(region.minion, region.hosts))
                found = master.run(Job(JIDS.new(), minions, "test.ping", cap=4))
                return all(outcome.known for outcome in found.values())
        except GuardianError:
            return False

    until(all_answer, "every minion", 90)


@contextmanager
def in_apply(fleet: Fleet, host: str = "pbx-01") -> Iterator[Guardian]:
    """A deploy that has this host in the midst of its state run."""
    with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
        until(lambda: fleet.applies(host) or guardian.process.poll() is not None, "the apply")
        assert fleet.applies(host), guardian.said
        yield guardian


def test_a_minion_that_is_dead_is_a_refusal_before_any_drain(fleet: Fleet) -> None:
    fleet.kill("pbx-02")
    code, said = fleet.deploy()
    assert code == FAILED, said
    assert "pbx-02.dev01-use2: does not answer the master" in said
    assert "nothing was changed" in said
    assert not fleet.region.log("drain", "withdraw", "apply")


def test_a_minion_that_dies_in_its_apply_is_unknown_and_halts(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", slow=60)
    with in_apply(fleet) as guardian:
        fleet.kill("pbx-01")
        assert guardian.ended() == HALTED, guardian.said
        said = guardian.said
    assert "pbx-01  drained, withdrawn on sip-01" in said
    assert "UNKNOWN" in said
    assert "its return was lost" in said
    assert f"guardian resume {fleet.workspace}" in said
    # A canary that is not known: nobody else was begun.
    assert fleet.applies("pbx-02") == 0
    assert fleet.out() == {"pbx-01"}
    fleet.region.node("pbx-01", slow=0)
    fleet.region.run("pbx-01")
    answering(fleet.region)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_minion_that_dies_after_its_apply_is_not_applied_again(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", slow=2)
    with in_apply(fleet) as guardian:
        until(lambda: fleet.region.node("pbx-01")["config"]["rtp"] == 20000, "its configuration")
        fleet.kill("pbx-01")
        assert guardian.ended() == HALTED, guardian.said
        assert "pbx-01  drained, withdrawn on sip-01" in guardian.said
    fleet.region.node("pbx-01", slow=0)
    fleet.region.run("pbx-01")
    answering(fleet.region)
    code, said = fleet.resume()
    assert code == OK, said
    assert fleet.applies("pbx-01") == 1
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_minion_that_restarts_in_its_apply_is_asked_what_is_left(fleet: Fleet) -> None:
    Fleet(fleet.region, apply_deadline=60)
    fleet.region.node("pbx-01", slow=60)
    with in_apply(fleet) as guardian:
        fleet.kill("pbx-01")
        fleet.region.run("pbx-01")
        assert guardian.ended() == HALTED, guardian.said
        assert "its return was lost and a test run says: 1 changes are left" in guardian.said
        assert "pbx-01  drained, withdrawn on sip-01" in guardian.said
    assert (fleet.out(), fleet.applies("pbx-02")) == ({"pbx-01"}, 0)
    fleet.region.node("pbx-01", slow=0)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_minion_that_restarts_itself_in_its_apply_is_waited_for(fleet: Fleet) -> None:
    Fleet(fleet.region, apply_deadline=60)
    fleet.region.node("pbx-01", slow=4)
    with in_apply(fleet) as guardian:
        # As a package's upgrade does: the service restarts, the state run that did it goes on.
        fleet.restart_alone("pbx-01")
        assert guardian.ended() == OK, guardian.said
    assert fleet.applies("pbx-01") == 1
    fleet.at_rest(20000)


@pytest.mark.parametrize("down", [5, *([0, 60] if WHOLE else [])])
def test_a_master_that_is_gone_for_a_while_loses_no_return(fleet: Fleet, down: float) -> None:
    Fleet(fleet.region, apply_deadline=120, call_deadline=60)
    fleet.region.node("pbx-01", slow=3)
    with in_apply(fleet) as guardian:
        fleet.kill("master")
        killed = time.monotonic()
        # The minion ends its run, if the master is away that long, and has nobody to tell.
        until(lambda: time.monotonic() - killed >= down, "the time it is down", 90)
        fleet.region.run("master")
        assert guardian.ended(200) == OK, guardian.said
    assert {fleet.applies(host) for host in fleet.region.hosts} == {1}
    fleet.at_rest(20000)


@pytest.mark.parametrize("fun", ["state.apply", *(["voice.undrain"] if WHOLE else [])])
def test_a_publication_that_timed_out_but_ran_is_not_repeated(fleet: Fleet, fun: str) -> None:
    fleet.through(lose=fun)
    code, said = fleet.deploy()
    assert code == OK, said
    assert {fleet.applies(host) for host in fleet.region.hosts} == {1}
    undrains = [one[0] for one in fleet.region.log("undrain")]
    assert sorted(undrains) == sorted(fleet.region.hosts)
    fleet.at_rest(20000)


def test_doubled_foreign_and_malformed_returns_change_nothing(fleet: Fleet) -> None:
    fleet.through(noise=True)
    code, said = fleet.deploy()
    assert code == OK, said
    assert "mallory" not in said
    journalled = [entry.get("target") for entry in fleet.journal("event")]
    assert fleet.region.minion("mallory") not in journalled
    assert {fleet.applies(host) for host in fleet.region.hosts} == {1}
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_state_run_that_is_under_way_is_waited_for(fleet: Fleet) -> None:
    Fleet(fleet.region, apply_deadline=60)
    fleet.region.node("pbx-01", calls=3)
    pbx = (fleet.region.minion("pbx-01"),)
    with (
        fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian,
        Master(one_agent(fleet.region), JIDS) as somebody,
    ):
        until(lambda: ["pbx-01", "drain"] in [one[:2] for one in fleet.region.log()], "the drain")
        job = Job(JIDS.new(), pbx, "state.single", ("cmd.run",), {"name": "sleep 6"})
        somebody.submit(job)
        assert guardian.ended() == OK, guardian.said
    busy = [entry for entry in fleet.journal("event") if (entry.get("data") or {}).get("busy")]
    assert busy, "the two runs did not meet"
    assert {fleet.applies(host) for host in fleet.region.hosts} == {1}
    fleet.at_rest(20000)


def test_a_node_without_a_key_is_a_refusal_before_any_drain(fleet: Fleet) -> None:
    fleet.region.hosts["fsx-01"] = "a"
    try:
        fleet.region.pillar({"rtp": 20000})
        code, said = fleet.deploy()
    finally:
        del fleet.region.hosts["fsx-01"]
    assert code == FAILED, said
    assert "fsx-01.dev01-use2: in pillar's fleet, but has no accepted key" in said
    assert not fleet.region.log("drain", "withdraw", "apply")
