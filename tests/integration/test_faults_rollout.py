"""Faults of nodes and of the controller itself in a rollout: who stays out, and what mends it."""

import os
import signal
import subprocess

import pytest

from guardian.errors import FAILED, HALTED, INTERRUPTED, OK
from tests.support.faults import WHOLE, Fleet, in_the_whole_matrix
from tests.support.region import Region, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fleet(fresh: Region) -> Fleet:
    """A fleet that a deploy restarts."""
    fresh.pillar({"rtp": 20000})
    return Fleet(fresh)


def begun(fleet: Fleet, host: str, function: str) -> bool:
    return [host, function] in [entry[:2] for entry in fleet.region.log()]


def paused_together(fleet: Fleet) -> int:
    """How many of the PBX were ever out at once, of the calls that the nodes got."""
    out: set[str] = set()
    most = 0
    for host, function, *_ in fleet.region.log("drain", "undrain"):
        if host.startswith("pbx-"):
            (out.add if function == "drain" else out.discard)(host)
            most = max(most, len(out))
    return most


@in_the_whole_matrix
def test_a_drain_that_never_ends_is_waited_for_and_can_be_stopped(fleet: Fleet) -> None:
    Fleet(fleet.region, drain_deadline=1)
    fleet.region.node("pbx-01", calls=2, stuck=True)
    with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
        guardian.until("2 calls left, past the deadline; `guardian stop` puts it back")
        # Its peer is as ready as before, but two of two may not be out.
        assert not begun(fleet, "pbx-02", "drain")
        assert fleet.run("stop", fleet.workspace)[0] == OK
        assert guardian.ended() == HALTED, guardian.said
    assert not fleet.out()
    assert fleet.region.node("pbx-01")["calls"] == 2, "calls were cut"
    assert not fleet.applies("pbx-01")
    fleet.region.node("pbx-01", stuck=False)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


def test_a_drain_that_never_ends_is_skipped_where_the_policy_says_so(fleet: Fleet) -> None:
    Fleet(fleet.region, drain_deadline=1, on_deadline="skip")
    fleet.region.node("pbx-01", calls=2, stuck=True)
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "2 calls still up after 1 s of drain" in said
    assert not fleet.out()
    assert fleet.region.node("pbx-01")["calls"] == 2, "calls were cut"
    assert (fleet.applies("pbx-01"), fleet.applies("pbx-02")) == (0, 1)
    assert paused_together(fleet) == 1
    fleet.region.node("pbx-01", stuck=False)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


def test_an_undrain_that_fails_halts_and_is_named(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", undrain_fails=True)
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "pbx-01  drained, withdrawn on sip-01" in said
    assert "fsctl resume: -ERR not today" in said
    assert f"guardian resume {fleet.workspace}" in said
    assert (fleet.out(), fleet.applies("pbx-02")) == ({"pbx-01"}, 0)
    fleet.region.node("pbx-01", undrain_fails=False)
    code, said = fleet.resume()
    assert code == OK, said
    assert fleet.applies("pbx-01") <= 2
    fleet.at_rest(20000)


def test_checks_that_flap_are_asked_again_within_their_deadline(fleet: Fleet) -> None:
    Fleet(fleet.region, checks_deadline=60)
    fleet.region.node("pbx-01", sick=True)
    with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
        until(lambda: len(checked(fleet, "pbx-01")) >= 2, "checks that fail")
        assert fleet.region.node("pbx-01")["paused"], "put back before it was well"
        fleet.region.node("pbx-01", sick=False)
        assert guardian.ended() == OK, guardian.said
    fleet.at_rest(20000)


def checked(fleet: Fleet, host: str) -> list[list[str]]:
    return [entry for entry in fleet.region.log("checks") if entry[0] == host]


@in_the_whole_matrix
def test_a_release_that_is_ill_stops_at_the_canary(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", sick=True)
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "it is sick" in said
    assert (fleet.out(), fleet.applies("pbx-02")) == ({"pbx-01"}, 0)
    fleet.region.node("pbx-01", sick=False)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_canary_without_measures_is_no_good_canary(fleet: Fleet) -> None:
    Fleet(fleet.region, judge_calls=50, soak=1, checks_deadline=2)
    fleet.region.node("pbx-01", after={"measures_fail": True})
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "the daemon does not answer; left in service" in said
    # It passed its checks and carries calls, so it stays; nobody else was begun.
    assert (fleet.out(), fleet.applies("pbx-02")) == (set(), 0)
    fleet.region.node("pbx-01", measures_fail=False)
    code, said = fleet.resume()
    assert code == OK, said
    assert fleet.applies("pbx-01") == 1
    fleet.at_rest(20000)


def test_a_canary_that_lost_a_gateway_is_taken_out_and_cuts_no_call(fleet: Fleet) -> None:
    Fleet(fleet.region, judge_calls=50, soak=1)
    ill = {"measures": {"gateways_down": ["carrier"]}, "calls": 2, "stuck": True}
    fleet.region.node("pbx-01", after=ill)
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "gateway carrier is down, and not on its peers" in said
    assert "pbx-01  drained, withdrawn on sip-01" in said
    assert (fleet.out(), fleet.applies("pbx-02")) == ({"pbx-01"}, 0)
    assert fleet.region.node("pbx-01")["calls"] == 2, "calls were cut"
    fleet.region.node("pbx-01", measures={}, calls=0, stuck=False)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


def test_a_node_that_fails_its_trial_calls_is_given_no_real_ones(fleet: Fleet) -> None:
    Fleet(fleet.region, trial_calls=3)
    fleet.region.node("pbx-01", after={"deaf": True})
    code, said = fleet.deploy()
    assert code == HALTED, said
    assert "trial calls: 0 of 3 answered: 503" in said
    assert "OUT OF SERVICE" in said
    assert fleet.region.node("sip-01")["withdrawn"] == [fleet.region.minion("pbx-01")]
    assert fleet.applies("pbx-02") == 0
    fleet.region.node("pbx-01", deaf=False)
    code, said = fleet.resume()
    assert code == OK, said
    fleet.at_rest(20000)


@pytest.mark.parametrize("moment", ["apply", *(["drain", "checks"] if WHOLE else [])])
def test_a_controller_that_is_gone_is_resumed_of_what_the_disk_has(
    fleet: Fleet, moment: str
) -> None:
    fleet.region.node("pbx-01", calls=3, slow=2)
    streams = {"start_new_session": True}
    with fleet.started(
        "deploy", fleet.workspace, "--yes", "--only", "fleet", **streams
    ) as guardian:
        until(lambda: begun(fleet, "pbx-01", moment), moment)
        # As when the host goes down: the agent's link breaks with it, and a line may be half there.
        os.killpg(guardian.process.pid, signal.SIGKILL)
        guardian.process.wait()
    path = fleet.runs[-1] / "journal.jsonl"
    with path.open("ab") as journal:
        journal.write(b'{"v":1,"seq":')
    status = fleet.run("status", fleet.workspace)[1]
    assert "killed; nobody holds the lock" in status
    assert f"guardian resume {fleet.workspace}" in status
    code, said = fleet.deploy()
    assert (code, "pbx-01.dev01-use2 out of service" in said) == (HALTED, True), said
    code, said = fleet.resume()
    assert code == OK, said
    assert fleet.applies("pbx-01") == 1
    fleet.at_rest(20000)


@in_the_whole_matrix
def test_a_journal_that_was_touched_is_a_refusal(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", sick=True)
    assert fleet.deploy()[0] == HALTED
    path = fleet.runs[-1] / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"step"', b'"stop"', 1).replace(b'"seq":3,', b'"seq":4,', 1))
    fleet.region.forget()
    code, said = fleet.resume()
    assert (code, "damaged" in said, "cannot be resumed" in said) == (FAILED, True, True), said
    assert fleet.region.log() == []


def test_a_full_disk_starts_nothing_that_was_not_written(fleet: Fleet) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a file system of its own")
    runs = fleet.root / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(runs)], check=True)
    try:
        fleet.region.node("pbx-01", calls=2, stuck=True)
        with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
            until(lambda: begun(fleet, "pbx-01", "drain"), "the drain")
            fill = runs / "fill"
            subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=4k"], capture_output=True)
            code = guardian.ended()
            assert code == HALTED, guardian.said
            assert "No space left on device" in guardian.said or "disk full" in guardian.said
            assert "guardian resume" in guardian.said
            assert "pbx-01  drained, withdrawn on sip-01" in guardian.said
        assert not fleet.applies("pbx-01")
        fill.unlink()
        fleet.region.node("pbx-01", stuck=False)
        code, said = fleet.resume()
        assert code == OK, said
        fleet.at_rest(20000)
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, *([signal.SIGINT, signal.SIGTERM] if WHOLE else [])]
)
def test_a_signal_puts_back_who_is_in_drain(fleet: Fleet, number: int) -> None:
    fleet.region.node("pbx-01", calls=2, stuck=True)
    with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
        until(lambda: begun(fleet, "pbx-01", "drain"), "the drain")
        guardian.signal(number)
        assert guardian.ended() == INTERRUPTED, guardian.said
        assert f"guardian resume {fleet.workspace}" in guardian.said
    assert not fleet.out()
    assert fleet.region.node("pbx-01")["calls"] == 2, "calls were cut"
    assert not fleet.applies("pbx-01")
    assert fleet.journal()[-1]["code"] == INTERRUPTED


@in_the_whole_matrix
def test_ctrl_c_twice_leaves_at_once_and_says_what_goes_on(fleet: Fleet) -> None:
    fleet.region.node("pbx-01", slow=5)
    with fleet.started("deploy", fleet.workspace, "--yes", "--only", "fleet") as guardian:
        until(lambda: begun(fleet, "pbx-01", "apply"), "the apply")
        guardian.signal(signal.SIGINT)
        guardian.until("halt: interrupted (SIGINT)")
        guardian.signal(signal.SIGINT)
        assert guardian.ended(4) == INTERRUPTED, guardian.said
        assert "guardian resume" in guardian.said
    assert "OUT OF SERVICE" in fleet.run("status", fleet.workspace)[1]
    code, said = fleet.resume()
    assert code == OK, said
    assert fleet.applies("pbx-01") == 1
    fleet.at_rest(20000)


def test_a_closed_pipe_does_not_stop_a_rollout(fleet: Fleet) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ask = ("deploy", fleet.workspace, "--yes", "--only", "fleet")
    with fleet.started(*ask, **streams) as guardian:
        pipe = guardian.process.stdout
        assert pipe is not None
        pipe.readline()
        pipe.close()
        assert guardian.ended() == OK
    fleet.at_rest(20000)
    assert fleet.journal()[-1]["code"] == OK
