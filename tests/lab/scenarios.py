"""What the lab must show, measured: each function does one experiment and returns its figures.

The tests assert them and `make evidence AREA=lab` prints them.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from lab.calls import Calls
from lab.demo import other_rtp_range
from lab.minion import BIN
from lab.names import REPOSITORY, WORKSPACE
from lab.region import Region

PBX = ("pbx-01.lab-local", "pbx-02.lab-local")


def guardian(
    region: Region, *words: str, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run guardian against a lab and return what it said and its exit code."""
    return subprocess.run(
        [BIN / "guardian", *words],
        cwd=REPOSITORY,
        env=surroundings(region, environment),
        capture_output=True,
        text=True,
        timeout=400,
    )


def surroundings(region: Region, more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which guardian finds this lab and its own commands."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "GUARDIAN_LAB": region.names.lab, **(more or {})}


def deploy_under_calls(region: Region, held: int = 50, rate: float = 5.0) -> dict[str, Any]:
    """A deploy that restarts both PBX while calls are up."""
    before = starts(region)
    with Calls(region.names, region.proxy_address, held=held + 6, rate=rate) as calls:
        done = guardian(region, "deploy", WORKSPACE, "--yes", environment=other_rtp_range(region))
    counts = calls.counts()
    after = starts(region)
    return {
        "code": done.returncode,
        "said": done.stdout + done.stderr,
        "held": counts.held,
        "new_calls": counts.new_calls,
        "dropped": counts.dropped,
        "failed": counts.failed,
        "restarted": sorted(node for node in PBX if after[node] != before[node]),
    }


def starts(region: Region) -> dict[str, str]:
    """{minion id: what tells this start of FreeSWITCH from any other}."""
    return {
        node: state["core_uuid"] for node, state in region.salt("pbx*", "freeswitch.status").items()
    }


def failed_states(returned: dict[str, Any]) -> dict[str, str]:
    """{state id: comment} of the states that failed in one minion's return."""
    return {
        key.split("_|-")[1]: entry["comment"]
        for key, entry in returned.items()
        if entry["result"] is False
    }


def changed_states(returned: dict[str, Any]) -> set[str]:
    """Ids of the states that changed something, or in test mode would."""
    return {
        key.split("_|-")[1]
        for key, entry in returned.items()
        if entry["changes"] or entry["result"] is None
    }


def carrier(proxy: str) -> str:
    """Pillar that gives the PBX one gateway, at this address."""
    params = {"proxy": proxy, "register": False, "username": "lab"}
    return json.dumps(
        {"freeswitch": {"gateways": {"carrier": {"profile": "external", "params": params}}}}
    )


def plain_apply_in_service(region: Region, pillar: str) -> dict[str, Any]:
    """`state.apply` with a pending change on PBX that carry calls."""
    before = starts(region)
    with Calls(region.names, region.proxy_address, held=20, rate=2.0) as calls:
        returned = region.salt("pbx*", "state.apply", timeout=120, pillar=pillar)
    counts = calls.counts()
    return {
        "failed_states": {node: failed_states(states) for node, states in returned.items()},
        "changes": {
            node: [e["changes"] for e in states.values() if e["changes"]]
            for node, states in returned.items()
        },
        "dropped": counts.dropped,
        "failed": counts.failed,
        "same_start": starts(region) == before,
    }


def renew_workers_under_calls(region: Region) -> dict[str, Any]:
    """Have the PHP workers of an fsx node start over, one after the other, under calls."""
    node, host = "fsx-01.lab-local", region.hosts["fsx-01"]
    before = _workers(region)
    with Calls(region.names, region.proxy_address, held=20, rate=3.0, number="8001") as calls:
        up = region.salt(node, "freeswitch.status")[node]["calls"]
        for port in _workers(region):
            host.run(["systemctl", "reload", f"fsx-worker@{port}"])
            _await(lambda port=port: _workers(region)[port] not in ("0", before[port]), 60)
    counts = calls.counts()
    return {
        "up": up,
        "renewed": sorted(port for port, pid in _workers(region).items() if pid != before[port]),
        "dropped": counts.dropped,
        "failed": counts.failed,
    }


def _workers(region: Region) -> dict[str, str]:
    """{port: pid of its worker}; "0" while it is between two lives."""
    shown = {}
    for port in ("9001", "9002"):
        unit = ["systemctl", "show", "--property=MainPID", "--value", f"fsx-worker@{port}"]
        shown[port] = region.hosts["fsx-01"].run(unit).stdout.strip()
    return shown


def kill_mid_rollout(region: Region) -> dict[str, Any]:
    """Kill -9 guardian while a PBX is drained, then resume."""
    out = region.names.directory / "killed.log"
    with Calls(region.names, region.proxy_address, held=20, rate=2.0) as calls:
        with out.open("wb") as log:
            running = subprocess.Popen(
                [BIN / "guardian", "deploy", WORKSPACE, "--yes"],
                cwd=REPOSITORY,
                env=surroundings(region, other_rtp_range(region)),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Its mark, not guardian's word: that is said before the node has been asked.
        mark = region.hosts["pbx-01"].root / "var/lib/voice/drained.json"
        _await(mark.exists, 120, lambda: out.read_text()[-500:])
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        marked = [n for n, m in region.salt("pbx*", "voice.drained_mark").items() if m]
        resumed = guardian(region, "resume", WORKSPACE, "--yes")
    counts = calls.counts()
    nodes = region.salt("*", "voice.in_service")
    return {
        "drained_at_kill": marked,
        "resume_code": resumed.returncode,
        "said": resumed.stdout + resumed.stderr,
        "states": {node: state["state"] for node, state in nodes.items()},
        "withdrawn": region.salt("sip*", "opensips.withdrawn")["sip-01.lab-local"],
        "dropped": counts.dropped,
        "failed": counts.failed,
    }


def _await(
    condition: Callable[[], bool], seconds: float, instead: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds:.0f} s: {instead()}")
        time.sleep(0.1)
