"""AREA=lab: what is promised of a region, measured on the twins."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

from lab.region import Region
from lab.vagrant import trial
from tests.lab import scenarios


def _bar(bar: str, goal: object, got: object, ok: bool) -> dict[str, Any]:
    return {"bar": bar, "goal": goal, "got": got, "ok": ok, "on": "twin"}


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick leaves out what takes longer than ten minutes in all."""
    Region("evidence").down()
    began = monotonic()
    with Region("evidence") as region:
        seconds = round(monotonic() - began, 1)
        yield _bar("four hosts up and highstated: seconds", 120, seconds, seconds <= 120)
        yield from _region(region, deploys=1 if quick else 5)
    vagrant = trial.run(quick=quick)
    yield _bar("vagrant up --provider=lxc, highstate, testinfra, destroy", True, vagrant,
               bool(vagrant.get("ok")))  # fmt: skip


def _region(region: Region, deploys: int) -> Iterator[dict[str, Any]]:
    again = region.salt("*", "state.apply", timeout=120)
    changes = sum(len(scenarios.changed_states(states)) for states in again.values())
    yield _bar("second state.apply: changed states", 0, changes, changes == 0)

    seen = scenarios.plain_apply_in_service(
        region, '{"freeswitch": {"rtp": {"start_port": 40000, "end_port": 41000}}}'
    )
    refused = all("FreeSWITCH configured" in seen["failed_states"][node] for node in scenarios.PBX)
    ok = refused and seen["same_start"] and not seen["dropped"] + seen["failed"]
    got = {key: seen[key] for key in ("same_start", "dropped", "failed")} | {"refused": refused}
    yield _bar("plain state.apply with a pending restart in service", "refused, 0 dropped", got, ok)

    for pillar in (scenarios.carrier("10.77.0.1:5999"), scenarios.carrier("10.77.0.1:5998")):
        seen = scenarios.plain_apply_in_service(region, pillar)
    actions = {
        action for changes in seen["changes"].values() for c in changes for action in c["actions"]
    }
    good = {"killgw external carrier", "rescan external"} <= actions and seen["same_start"]
    got = {"actions": sorted(actions)} | {key: seen[key] for key in ("dropped", "failed")}
    ok = good and not seen["dropped"] + seen["failed"]
    yield _bar("gateway edit in service: killgw and rescan", "0 dropped", got, ok)

    for _ in range(deploys):
        seen = scenarios.deploy_under_calls(region)
        got = {key: seen[key] for key in ("held", "new_calls", "dropped", "failed", "restarted")}
        ok = (
            seen["code"] == 0
            and seen["held"] >= 50
            and len(seen["restarted"]) == len(scenarios.PBX)
            and not seen["dropped"] + seen["failed"]
        )
        bar = "deploy restarts both PBX under 50 held and 5 new calls/s"
        yield _bar(bar, "0 dropped", got, ok)

    seen = scenarios.renew_workers_under_calls(region)
    ok = seen["up"] >= 20 and len(seen["renewed"]) == 2 and not seen["dropped"] + seen["failed"]
    yield _bar("PHP workers start over under 20 calls", "0 dropped", seen, ok)

    seen = scenarios.kill_mid_rollout(region)
    names = ("drained_at_kill", "resume_code", "states", "dropped", "failed")
    got = {name: seen[name] for name in names}
    ok = seen["resume_code"] == 0 and set(seen["states"].values()) == {"in_service"}
    ok = ok and bool(seen["drained_at_kill"]) and not seen["dropped"] + seen["failed"]
    yield _bar("kill -9 mid-rollout, then resume", "all in service", got, ok)
