"""AREA=controller: deploys, on simulated regions, on real minions, on twins and real daemons."""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import kill_everywhere, rollout_scale
from tests.evidence import measuring

FAULTS = "tests/integration"
KILLS, SEEDS = 210, 16  # when it is quick


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick kills at 210 lines, rolls 16 seeds, and races less."""
    # First: a child's peak counts from that of whoever started it, and this process will grow.
    used = rollout_scale.memory()
    ok = used["MB"] <= 200 and used["exit"] == used["wrongs"] == 0
    yield _bar("guardian's memory in a deploy of 1,000 nodes: MB", 200, used, ok)
    yield _faults(quick=quick)
    yield _kills(0 if not quick else KILLS)
    yield from _scale(SEEDS if quick else len(rollout_scale.SEEDS))
    yield from _minions(quick=quick)
    yield from _races(60 if quick else 200)
    places = ["twin"]
    places += ["real"] if shutil.which("freeswitch") and shutil.which("opensips") else []
    for place in places:
        got = measuring.tests("tests/lab/test_restarts.py", "-k", place, "--timeout=900")
        bar = "3 PBX and 2 proxies restarted under 10 calls/s and 100 held calls"
        yield measuring.bar(bar, "0 failed, 0 dropped", got, place)


def _faults(*, quick: bool) -> dict[str, Any]:
    files = sorted(str(one) for one in Path(FAULTS).glob("test_faults_*.py"))
    rows = "daily" if quick else "whole"
    files.append("tests/unit/guardian/test_faults.py")
    got = measuring.tests(*files, "--timeout=900", GUARDIAN_FAULTS=rows)
    return measuring.bar("fault matrix, every row", "each ends as promised", got, "twin")


def _kills(points: int) -> dict[str, Any]:
    got = kill_everywhere.measure(points)
    ok = got["went wrong"] == 0 and got["killed"] >= 200
    bar = "SIGKILL at journal lines of a 30-node deploy, resumed: the same end, 0 double applies, "
    return _bar(bar + "0 left drained, 0 calls cut", ">= 200 points, 0 went wrong", got, ok)


def _scale(seeds: int) -> Iterator[dict[str, Any]]:
    got = rollout_scale.invariants(range(seeds))
    ok = got["seeds that went wrong"] == 0 and got["cut"] == 0 and got["seeds"] == seeds
    yield _bar(f"1,000 simulated nodes, {seeds} seeds: invariants", "all hold", got, ok)
    cost = rollout_scale.cost()
    for key, most in (("ms a node-step", 3.0), ("wall over path", 1.10)):
        ok = cost[key] <= most and cost["wrongs"] == 0
        yield _bar(f"1,000 nodes restarted: {key}", most, cost, ok)
    fold = rollout_scale.fold()
    bar = f"journal of {fold['nodes']:,} nodes ({fold['lines']:,} lines) read and folded: seconds"
    yield measuring.figure(bar, 1.0, fold["seconds"])


def _minions(*, quick: bool) -> Iterator[dict[str, Any]]:
    got = importlib.import_module("tests.bench.swarm").measure(quick)
    idle = got["touched"] == 0
    bar = "50 real minions, a no-op deploy as a multiple of one `salt '*' state.apply`"
    yield _bar(bar, 1.3, got, idle and got["to_salt"] <= 1.3)
    bar = "50 real minions, a no-op deploy as a multiple of `salt -b` of the same width"
    yield _bar(bar, 1.0, got["to_batch"], idle and got["to_batch"] <= 1.0)


def _races(races: int) -> Iterator[dict[str, Any]]:
    for kind, got in importlib.import_module("tests.bench.lock_races").measure(races).items():
        ok = got["races"] == got["one winner"] == got["loser told who"] == races
        yield _bar(f"{races} races for the {kind} lock", "one winner, the loser told who", got, ok)


def _bar(bar: str, goal: object, got: object, ok: bool) -> dict[str, Any]:
    return {"bar": bar, "goal": goal, "got": got, "ok": ok, "on": "twin"}
