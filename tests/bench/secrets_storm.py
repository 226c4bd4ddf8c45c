"""A thousand minions refresh their pillar at once, while AWS throttles a fifth of what it is asked.

Two ways: worker processes compile as a master's do (with secrets and without in turn, so that
whatever else the machine does falls on both), and a real salt-master answers clients that ask for
their pillar over its request channel. Beside them, the same minions with the external pillar that
people write: a boto3 client and GetParameter. Times are wall seconds of one compilation.
"""

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support import aws, storm
from tests.support.masters import asked_at_once, master

MINIONS = 1000
WORKERS = max(2, os.cpu_count() or 2)  # a salt-master has five; more than cores change nothing
SHARE = 0.2  # of the calls that are throttled


def measure(
    minions: int = MINIONS, workers: int = WORKERS, asking: int = 0, plain: int = 0
) -> dict[str, Any]:
    """Return all figures of the bar.

    `asking` and `plain`: how many minions ask a real master, and in the plain way (0: all).
    Calls that are answered count against the bound; a call that is throttled answers nobody.
    """
    with aws.running() as stand_in, tempfile.TemporaryDirectory() as directory:
        with aws.in_memory() as memory:
            world = storm.World(Path(directory), stand_in, minions, str(memory / "secrets"))
            found: dict[str, Any] = {
                "minions": len(world.minions),
                "workers": workers,
                "distinct parameters": world.distinct(),
                "pages": world.pages(),
                "bound": world.distinct() / 10 + world.pages(),
                "throttled": SHARE,
            }
            found["workers'"] = _by_workers(world, workers)
        with aws.in_memory() as memory:
            world.cache = str(memory / "secrets")
            found["a salt-master's"] = _by_master(world, workers, asking or minions)
        found["fewer calls"] = {}
        for kind in ("single", "batched"):
            got = found[f"plain, {kind}"] = _plainly(world, kind, workers, plain or minions)
            fewer = got["answered for all"] / found["workers'"]["answered"]
            found["fewer calls"][kind] = round(fewer)
        return found


def _by_workers(world: storm.World, workers: int) -> dict[str, Any]:
    _begin(world)
    began = time.monotonic()
    compiled = storm.compile_all(world, ["ours", "without"], workers)
    found = {"seconds": round(time.monotonic() - began, 1), **_calls(world)}
    for kind in ("ours", "without"):
        seconds = [one.seconds for one in compiled if one.kind == kind]
        failed = [one.errors for one in compiled if one.kind == kind and one.errors]
        found[kind] = {
            "p50": round(storm.percentile(seconds, 0.5), 4),
            "p95": round(storm.percentile(seconds, 0.95), 4),
            "failures": len(failed),
            **({"first failure": failed[0]} if failed else {}),
        }
    found["p95 ratio"] = round(found["ours"]["p95"] / found["without"]["p95"], 2)
    return found


def _by_master(world: storm.World, workers: int, minions: int) -> dict[str, Any]:
    asking = _some(world.minions, minions)
    found: dict[str, Any] = {"minions": len(asking)}
    for kind in ("ours", "without"):
        _begin(world)
        with master(world, kind, workers) as running:
            began = time.monotonic()
            answers = asked_at_once(running, asking)
            seconds = time.monotonic() - began
        failed = [one for one in answers if one.problem]
        found[kind] = {"seconds": round(seconds, 1), "failures": len(failed), **_calls(world)}
        found[kind] |= {"first failure": failed[0].problem} if failed else {}
    return found


def _plainly(world: storm.World, kind: str, workers: int, minions: int) -> dict[str, Any]:
    _begin(world)
    everyone, world.minions = world.minions, _some(world.minions, minions)
    compiled = storm.compile_all(world, [kind], workers)
    found = {"minions": len(world.minions), **_calls(world)}
    found["failures"] = sum(bool(one.errors) for one in compiled)
    found["answered for all"] = round(found["answered"] / len(world.minions) * len(everyone))
    world.minions = everyone
    return found


def _some(minions: list[str], count: int) -> list[str]:
    """So many of them, of all workspaces and roles."""
    return minions[:: max(1, len(minions) // count)]


def _begin(world: storm.World) -> None:
    world.aws.heal()
    world.aws.forget_calls()
    world.aws.fault("throttle", "ssm:*", share=SHARE)


def _calls(world: storm.World) -> dict[str, Any]:
    log = world.aws.log()
    world.aws.heal()
    return {
        "calls": len(log),
        "answered": sum(one["outcome"] == "ok" for one in log),
        "by action": dict(Counter(one["action"] for one in log)),
    }


if __name__ == "__main__":
    json.dump(measure(*map(int, sys.argv[1:])), sys.stdout, indent=2)
    print()
