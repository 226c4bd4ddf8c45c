"""What is promised of a region, on real hosts with real calls. Tests share one lab, in order."""

import json
import subprocess

import pytest

from lab import cgroup, network
from lab.calls import count_aborted
from lab.names import Names
from lab.region import Region
from tests.lab import scenarios

pytestmark = [pytest.mark.lab, pytest.mark.timeout(500)]

RTP = {"freeswitch": {"rtp": {"start_port": 40000, "end_port": 41000}}}

DAMAGED = "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n"


def test_second_apply_changes_nothing(region: Region) -> None:
    for node, returned in region.salt("*", "state.apply", timeout=120).items():
        assert scenarios.failed_states(returned) == {}, node
        assert scenarios.changed_states(returned) == set(), node


def test_plain_apply_refuses_a_restart_and_names_it(region: Region) -> None:
    seen = scenarios.plain_apply_in_service(region, json.dumps(RTP))
    assert seen["same_start"]
    assert (seen["dropped"], seen["failed"]) == (0, 0)
    for node in scenarios.PBX:
        told = seen["failed_states"][node]["FreeSWITCH configured"]
        assert "rtp-start-port 16384 -> 40000" in told
        assert "calls up" in told or "call up" in told
        assert "guardian deploy lab-local" in told


def test_gateway_edit_is_applied_under_calls(region: Region) -> None:
    seen = scenarios.plain_apply_in_service(region, scenarios.carrier("10.77.0.1:5999"))
    assert seen["failed_states"] == {node: {} for node in scenarios.PBX}
    assert (seen["dropped"], seen["failed"]) == (0, 0)
    edited = scenarios.carrier("10.77.0.1:5998")
    predicted = region.salt("pbx*", "state.apply", timeout=120, pillar=edited, test=True)
    seen = scenarios.plain_apply_in_service(region, edited)
    for node in scenarios.PBX:
        (changes,) = seen["changes"][node]
        assert changes["disruption"] == "reload"
        assert any("killgw" in action for action in changes["actions"])
        assert any("rescan" in action for action in changes["actions"])
        foretold = [e["changes"] for e in predicted[node].values() if e["changes"]]
        assert foretold == seen["changes"][node]
    assert seen["same_start"]
    assert (seen["dropped"], seen["failed"]) == (0, 0)
    proxies = region.salt("pbx*", "freeswitch.gateways")
    assert all(found["carrier"]["proxy"].endswith(":5998") for found in proxies.values())
    region.salt("pbx*", "state.apply", timeout=120)


def test_deploy_restarts_both_pbx_and_drops_nothing(region: Region) -> None:
    seen = scenarios.deploy_under_calls(region)
    assert seen["code"] == 0, seen["said"]
    assert seen["restarted"] == sorted(scenarios.PBX)
    assert (seen["dropped"], seen["failed"]) == (0, 0)
    assert seen["held"] >= 50


def test_workers_start_over_under_calls(region: Region) -> None:
    seen = scenarios.renew_workers_under_calls(region)
    assert seen["up"] >= 20, "the proxy sends these numbers to the fsx node"
    assert seen["renewed"] == ["9001", "9002"]
    assert (seen["dropped"], seen["failed"]) == (0, 0)


def test_killed_guardian_resumes(region: Region) -> None:
    seen = scenarios.kill_mid_rollout(region)
    assert seen["drained_at_kill"] == ["pbx-01.lab-local"]
    assert seen["resume_code"] == 0, seen["said"]
    assert set(seen["states"].values()) == {"in_service"}
    assert seen["withdrawn"] == {}
    assert (seen["dropped"], seen["failed"]) == (0, 0)


@pytest.mark.parametrize(
    ("pillar", "state", "told"),
    [
        (
            {"opensips": {"dispatcher": {"1": [{"node": "x", "uri": "sip:10.77.9.9:5060\n1:"}]}}},
            "OpenSIPS configured",
            "control character",
        ),
        (
            # -C has nothing against an address of somebody else; only the trial boot finds it.
            {"opensips": {"sockets": [{"proto": "udp", "address": "203.0.113.9", "port": 5060}]}},
            "OpenSIPS configured",
            "refused, nothing changed: conf.d/10-core.cfg:",
        ),
        (
            {"secrets": {"certificate-default-key": {"dummy": DAMAGED}}},
            "Certificate default deployed",
            "key is damaged; export it anew",
        ),
    ],
)
def test_bad_input_changes_nothing(region: Region, pillar: dict, state: str, told: str) -> None:
    returned = region.salt("sip*", "state.apply", timeout=120, pillar=json.dumps(pillar))
    failed = scenarios.failed_states(returned["sip-01.lab-local"])
    assert told in failed[state]
    assert "\n" not in failed[state]
    assert not any(e["changes"] for e in returned["sip-01.lab-local"].values())


@pytest.mark.parametrize(
    ("pillar", "told"),
    [
        (
            {"freeswitch": {"max_sesions": 5}},
            "freeswitch:max_sesions: unknown key (did you mean max_sessions?)",
        ),
        (
            {"freeswitch": {"esl_password": "not-a-secret"}},
            "freeswitch:esl_password: must be a reference to a secret; declare it under secrets",
        ),
        (
            {"freeswitch": {"esl_password": {"secret": "esl-pasword"}}},
            "no secret esl-pasword is declared (did you mean esl-password?)",
        ),
    ],
)
def test_pillar_that_breaks_its_schema_stops_every_state(
    region: Region, pillar: dict, told: str
) -> None:
    given = json.dumps(pillar)
    (returned,) = region.salt("pbx-01*", "state.apply", timeout=120, pillar=given).values()
    assert any(told in line for line in returned)
    assert "not-a-secret" not in str(returned)


def test_drained_peer_stays_out_across_reload_and_restart(region: Region) -> None:
    proxy = "sip-01.lab-local"
    region.salt(proxy, "voice.withdraw", "pbx-02.lab-local")
    try:
        region.salt(proxy, "opensips.dispatcher_reload")
        assert _state_of_pbx_02(region) == "Inactive"
        region.hosts["sip-01"].run(["systemctl", "restart", "opensips"])
        region.salt(proxy, "state.apply", timeout=120)
        assert _state_of_pbx_02(region) == "Inactive"
    finally:
        region.salt(proxy, "voice.restore", "pbx-02.lab-local")
    assert _state_of_pbx_02(region) == "Active"


def _state_of_pbx_02(region: Region) -> str:
    sets = region.salt("sip*", "opensips.dispatcher_list")["sip-01.lab-local"]
    return next(row["state"] for row in sets["1"] if row["node"] == "pbx-02")


def test_master_trusts_exactly_the_fleet(region: Region) -> None:
    said = region.master.run(["salt-run", "--out=json", "enrolment.report", "lab-local"]).stdout
    report = json.loads(said)
    assert report["accepted"] == sorted(f"{name}.lab-local" for name in region.hosts)
    assert (report["strangers"], report["missing"], report["pending"]) == ([], [], {})


def test_roles_are_as_specified(region: Region) -> None:
    hosts = ",".join(f"nsenter://{name}" for name in ("master", *region.hosts))
    done = subprocess.run(
        ["pytest", "-q", "-p", "lab.testinfra_nsenter", "tests/testinfra", f"--hosts={hosts}"],
        env=scenarios.surroundings(region),
        cwd=scenarios.REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_down_leaves_nothing(region: Region) -> None:
    region.down()
    assert network.of_lab(Names("test")) == []
    assert cgroup.of_lab("test") == []
    mounts = subprocess.run(["mount"], capture_output=True, text=True).stdout
    assert "gl-test-" not in mounts
    assert not region.names.directory.exists()


def test_aborted_calls_are_told_apart() -> None:
    lines = [
        "2026: Aborting call on unexpected message for Call-Id 'a': while expecting '200'"
        " (index 4), received 'SIP/2.0 503 Maximum Calls In Progress",
        "2026: Aborting call on unexpected message for Call-Id 'b': while pausing (index 6),"
        " received 'BYE sip:caller@10.77.0.1:6100 SIP/2.0",
        "2026: Call-Id: c, receive timeout on message caller:8 without label to jump to"
        " (ontimeout attribute): aborting call",
        "2026: Discarding message which can't be mapped to a known SIPp call:",
    ]
    assert count_aborted(lines) == {"failed": 1, "dropped": 2}
