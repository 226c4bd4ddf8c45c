"""Calls that are up stay up: SIPp holds some while everything that may change in service does."""

import shutil
import subprocess
import time

import pytest

pytestmark = pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed")
HELD = 5
HOLD_MS = 12_000


def gateway(proxy):
    return {"profile": "external", "params": {"proxy": proxy, "register": False}}


@pytest.fixture
def held(up, tmp_path):
    """Five answered calls on the profile that faces the proxies."""
    port = up.context["profiles"]["internal"]["port"]
    arguments = ["-i", "127.0.0.1", "-m", str(HELD), "-r", str(HELD), "-d", str(HOLD_MS)]
    with (tmp_path / "sipp.out").open("w") as out:
        sipp = subprocess.Popen(
            ["sipp", "-sn", "uac", f"127.0.0.1:{port}", *arguments, "-s", "1000", "-nostdin"],
            stdout=out,
            stderr=out,
            cwd=tmp_path,
        )
    deadline = time.monotonic() + 8
    while up.call("calls_count") < HELD:
        assert time.monotonic() < deadline, (tmp_path / "sipp.out").read_text()[-2000:]
        time.sleep(0.1)
    yield sipp
    if sipp.poll() is None:
        sipp.kill()
    sipp.wait()


def test_no_change_in_service_costs_a_call(up, held):
    context = up.changed(
        gateways__carrier=gateway("127.0.0.1:5999"),
        max_sessions=500,
        acl__carriers__allow=["192.0.2.0/24"],
    )
    answer = up.configured(context)
    assert answer["result"] is True, answer["comment"]
    context["gateways"]["carrier"] = gateway("127.0.0.1:5998")
    context["profiles"]["internal"]["params"]["nonce-ttl"] = 120
    context["esl_password"] = "another-not-a-secret"
    answer = up.configured(context)
    assert answer["result"] is True, answer["comment"]
    assert "killgw external carrier" in answer["changes"]["actions"]

    context["rtp"]["start_port"] = 20000
    refused = up.configured(context)
    assert refused["result"] is False
    assert f"{HELD} calls up; run `guardian deploy lab-local`" in refused["comment"]
    up.call("pause")
    assert up.caller.cmd("voice.in_service")["state"] == "draining"
    assert up.configured(context)["result"] is False
    up.call("resume")
    assert [call["to"] for call in up.call("calls_list")] == ["1000"] * HELD
    assert held.wait(60) == 0  # every call was ended by SIPp itself
    deadline = time.monotonic() + 5
    while up.call("calls_count"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
