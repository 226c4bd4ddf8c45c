"""SIGKILL a real `guardian deploy` of 30 nodes at every line of its journal, then resume it.

The region is simulated in a process of its own, which keeps the books: whatever point guardian was
killed at, the end state must be the same, and no call cut, no node applied twice, nobody left out.
The kill comes before a line is on disk, in the middle of it, or after it.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from tests.support import mortal, simworlds

WORKSPACE = "sim-local"
SETTINGS = """
rollout: {soak: 0.02, poll: 0.02, sample: 0.5, max_out: 40, waves: [10, 40, 100], trial_calls: 1,
          judge_calls: 1000, checks_deadline: 20}
"""


def spec(nodes: int = 30) -> dict[str, Any]:
    """A region in plain data: 4 proxies, media servers, PBX; most restart, some run not yet."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(nodes):
        role = "sip" if number < 4 else "fsx" if number < 8 else "pbx"
        name = f"{role}-{number:02d}.{WORKSPACE}"
        found[name] = {"role": role, "zone": "ab"[number % 2], "calls": 0 if role == "sip" else 6}
        if number % 7 == 5:
            found[name]["disruption"] = "reload"
        if number % 13 == 12:
            found[name].update(running=False, calls=0)
    faults = {"latency": 0.3, "apply": 2.0}
    return {"nodes": found, "faults": faults, "max_out": 40, "mean_call": 2.0, "seed": 7}


def place(directory: Path, region: simworlds.Region) -> list[str]:
    """Write a guardian.yaml for this region; the options that name it."""
    master = json.dumps(region.command())
    file = directory / "guardian.yaml"
    file.write_text(
        f"stacks: {{}}\nworkspaces:\n  {WORKSPACE}:\n    stacks: []\n"
        f"    master: {{command: {master}}}\n" + SETTINGS
    )
    return ["--config", str(file)]


def whole(worlds: Path) -> tuple[int, dict[str, Any]]:
    """How many lines the journal of a deploy that lives has, and what the region is like then."""
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        directory = Path(name)
        region = simworlds.Region(worlds, name, spec())
        try:
            code = _deploy(place(directory, region), directory)
            truth = region.truth()
            lines = sum(len(one.read_bytes().splitlines()) for one in _journals(directory))
        finally:
            region.close()
        wrong = _wrongs(truth, truth)
        if code or wrong:
            said = (directory / "log").read_text()[-2000:]
            raise RuntimeError(f"a deploy that is left alone: exit {code}, {wrong}\n{said}")
        return lines, truth


def point(
    worlds: Path, line: int, mode: str, wanted: dict[str, Any], again: int = 0
) -> tuple[bool, list[str]]:
    """Kill at a line, resume (killed `again` lines later, if any), resume.

    Whether it was killed (a journal may be some lines shorter than another), and what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        directory = Path(name)
        region = simworlds.Region(worlds, name, spec())
        try:
            options = place(directory, region)
            code = _deploy(options, directory, (line, mode))
            killed = code == -9
            if killed and again:
                region.next_attempt()
                code = _go_on(options, directory, (again, "after"))
            if code:
                region.next_attempt()
                code = _go_on(options, directory)
            truth = region.truth()
        finally:
            region.close()
        found = [f"it ended with {code}: {_said(directory)}"] if code else []
        return killed, found + _wrongs(truth, wanted)


def _deploy(options: list[str], directory: Path, kill: tuple[int, str] | None = None) -> int:
    arguments = [*options, "deploy", WORKSPACE, "--only", "fleet", "--yes"]
    return mortal.run(arguments, directory / "log", kill)


def _go_on(options: list[str], directory: Path, kill: tuple[int, str] | None = None) -> int:
    """Resume; a run killed before it had a whole line never began, so that one is a deploy."""
    if not any(one.read_bytes().count(b"\n") for one in _journals(directory)):
        return _deploy(options, directory, kill)
    return mortal.run([*options, "resume", WORKSPACE, "--yes"], directory / "log", kill)


def _journals(directory: Path) -> list[Path]:
    return sorted(directory.glob(f".guardian/{WORKSPACE}/runs/*/journal.jsonl"))


def _said(directory: Path) -> str:
    return " | ".join((directory / "log").read_text().splitlines()[-6:])


def _wrongs(truth: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = list(truth["wrongs"])
    for what in ("cut", "refused", "doubled", "drained", "withdrawn"):
        if truth[what]:
            found.append(f"{what}: {truth[what]}")
    if truth["configs"] != wanted["configs"]:
        found.append("the end state is another one")
    return found


def _several(
    work: tuple[str, list[tuple[int, str, int]], dict[str, Any]],
) -> list[tuple[bool, list[str]]]:
    worlds, points, wanted = work
    found = []
    for line, mode, again in points:
        killed, wrong = point(Path(worlds), line, mode, wanted, again)
        where = f"line {line} ({mode}, again after {again})"
        found.append((killed, [f"{where}: {one}" for one in wrong]))
    return found


def measure(points: int = 0, processes: int = 4, seed: int = 1) -> dict[str, Any]:
    """Kill at `points` lines spread over the journal (0: at all, and twice); the figures."""
    dice = Random(seed)
    with tempfile.TemporaryDirectory(prefix="worlds-") as name, simworlds.server(Path(name)) as way:
        lines, wanted = whole(way)
        chosen: Iterable[int] = range(1, lines + 1)
        if points:
            chosen = sorted({1 + (lines - 1) * one // points for one in range(points)})
        every = [
            (line, mortal.MODES[place % 3], dice.randrange(1, 60) if place % 4 == 3 else 0)
            for place, line in enumerate(chosen)
        ]
        parts = [every[one::processes] for one in range(processes)]
        work = [(str(way), part, wanted) for part in parts if part]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            found = [one for part in pool.map(_several, work) for one in part]
    wrongs = [one for _, wrong in found for one in wrong]
    for one in wrongs[:20]:
        print(one, file=sys.stderr)
    return {
        "lines": lines,
        "killed": sum(killed for killed, _ in found),
        "kinds": dict(Counter(mode for _, mode, _ in every)),
        "killed again in resume": sum(1 for *_, again in every if again),
        "went wrong": sum(1 for _, wrong in found if wrong),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=0, help="how many; all by default")
    parser.add_argument("--processes", type=int, default=4, help="they wait more than they compute")
    given = parser.parse_args()
    print(json.dumps(measure(given.points, given.processes)))
