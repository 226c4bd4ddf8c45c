"""Rollouts of a thousand nodes and more: what must hold over hundreds of seeds, and what it costs.

guardian's own code from the journal to the link, over simulated regions on a virtual clock. Costs
are processor seconds of guardian alone; the wall time has them in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from guardian import journal
from guardian.fleet.drive import replay
from tests.bench import kill_everywhere
from tests.support import simrun, simschedule, simworlds
from tests.support.loading import REPOSITORY
from tests.support.simulator import Faults, SimNode, World

SEEDS = range(500)


def seeded(seed: int, size: int = 1000) -> dict[str, Any]:
    """One rollout of a region made from a seed, over all its halts; what was wrong."""
    result = simrun.roll(simrun.region(seed, size), seed=seed)
    return {
        "seed": seed,
        "wrongs": result.wrongs,
        "halts": sum(1 for halt in result.halts if halt),
        "steps": result.steps,
        "cut": result.world.cut,
    }


def invariants(
    seeds: "range | list[int]" = SEEDS, size: int = 1000, processes: int = 2
) -> dict[str, Any]:
    """Many seeds over some processes; names each seed that went wrong on stderr."""
    begun = time.monotonic()
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for one in pool.map(seeded, seeds, [size] * len(seeds)):
            found.append(one)
            for wrong in one["wrongs"][:3]:
                print(f"seed {one['seed']}: {wrong}", file=sys.stderr)
    return {
        "seeds": len(found),
        "nodes": size,
        "node-steps": sum(one["steps"] for one in found),
        "halts and resumes": sum(one["halts"] for one in found),
        "cut": sum(one["cut"] for one in found),
        "seeds that went wrong": sum(1 for one in found if one["wrongs"]),
        "seconds": round(time.monotonic() - begun),
    }


def even(size: int = 1000, *, disruption: str = "restart") -> World:
    """A region in which all is well: every node is restarted, calls of three minutes."""
    nodes: dict[str, SimNode] = {}
    for number in range(size):
        role = "sip" if number < 8 else "fsx" if number < 8 + size // 10 else "pbx"
        name = f"{role}-{number:05d}.w"
        nodes[name] = SimNode(role, "abc"[number % 3], calls=0 if role == "sip" else 20)
        nodes[name].capacity = None if role == "sip" else 100
        nodes[name].disruption = disruption
    return World(nodes, seed=size, faults=Faults(latency=0.15, apply=20.0), mean_call=180.0)


def cost(size: int = 1000) -> dict[str, Any]:
    """Restart every node of a region, with a real disk: processor time, wall, journal, fold."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        kept = Path(name) / "journal.jsonl"
        result = simrun.roll(even(size), cpu=True, sync=True, keep=kept)
        fold = _fold(kept)
    path = simschedule.critical_path(result, simrun.SETTINGS)
    wall = simschedule.wall(result)
    return {
        "nodes": size,
        "wrongs": len(result.wrongs),
        "node-steps": result.steps,
        "ms a node-step": round(1000 * result.clock.spent / result.steps, 3),
        "lines": result.lines,
        "wall s": round(wall, 1),
        "critical path s": round(path, 1),
        "wall over path": round(wall / path, 3),
        "fold s": fold,
    }


def memory(size: int = 1000) -> dict[str, Any]:
    """A real `guardian deploy` of that many nodes, in a process of its own: its MB at the most."""
    with tempfile.TemporaryDirectory(prefix="worlds-") as name, simworlds.server(Path(name)) as way:
        directory = Path(name)
        region = simworlds.Region(way, "memory", kill_everywhere.spec(size))
        options = kill_everywhere.place(directory, region)
        command = [sys.executable, "-m", "guardian", *options, "deploy", kill_everywhere.WORKSPACE]
        log = (directory / "log").open("wb")
        process = subprocess.Popen(
            [*command, "--only", "fleet", "--yes"], stdout=log, stderr=log, cwd=REPOSITORY
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        truth = region.truth()
        region.close()
        return {
            "nodes": size,
            "exit": process.returncode,
            "wrongs": len(truth["wrongs"]),
            "MB": round(used.ru_maxrss / 1024),
            "cpu s": round(used.ru_utime + used.ru_stime, 1),
        }


def fold(size: int = 10_000) -> dict[str, Any]:
    """Read and fold the journal of a deploy that reloaded `size` nodes; seconds of it."""
    with tempfile.TemporaryDirectory(prefix="fold-") as name:
        kept = Path(name) / "journal.jsonl"
        result = simrun.roll(even(size, disruption="reload"), keep=kept)
        return {"nodes": size, "lines": result.lines, "seconds": _fold(kept)}


def _fold(path: Path) -> float:
    """Seconds of a process that has nothing else in its memory, as a resume has not."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_folded, path).result()


def _folded(path: Path) -> float:
    begun = time.process_time()
    replay("run", journal.read(path))
    return round(time.process_time() - begun, 2)


def _everything(seeds: int) -> Iterator[dict[str, Any]]:
    yield cost()
    yield memory()
    yield fold()
    yield invariants(range(seeds), processes=os.cpu_count() or 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many, from 0")
    for line in _everything(parser.parse_args().seeds):
        print(json.dumps(line), flush=True)
