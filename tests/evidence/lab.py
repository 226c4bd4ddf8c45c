"""AREA=lab: what is promised of a region, measured on the twins."""

from collections.abc import Iterator
from typing import Any

from lab.region import Region
from lab.vagrant import trial
from tests.lab import scenarios


def _bar(bar: str, goal: object, got: object, ok: bool) -> dict[str, Any]:
    return {"bar": bar, "goal": goal, "got": got, "ok": ok, "on": "twin"}


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick leaves out what takes longer than ten minutes in all."""
    Region("evidence").down()
    with Region("evidence") as region:
        yield from _region(region)
    vagrant = trial.run(quick=quick)
    yield _bar("vagrant up --provider=lxc, highstate, testinfra, destroy", True, vagrant,
               bool(vagrant.get("ok")))  # fmt: skip


def _region(region: Region) -> Iterator[dict[str, Any]]:
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

    seen = scenarios.deploy_under_calls(region)
    got = {key: seen[key] for key in ("held", "new_calls", "dropped", "failed", "restarted")}
    ok = (
        seen["code"] == 0
        and seen["held"] >= 50
        and len(seen["restarted"]) == len(scenarios.PBX)
        and not seen["dropped"] + seen["failed"]
    )
    yield _bar("deploy restarts both PBX under 50 held and 5 new calls/s", "0 dropped", got, ok)

    seen = scenarios.kill_mid_rollout(region)
    got = {key: seen[key] for key in ("drained_at_kill", "resume_code", "states", "dropped")}
    ok = seen["resume_code"] == 0 and set(seen["states"].values()) == {"in_service"}
    yield _bar("kill -9 mid-rollout, then resume", "all in service", got, ok)
