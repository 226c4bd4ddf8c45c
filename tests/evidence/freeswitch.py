"""AREA=freeswitch: what is promised of a PBX, on the twin and on the real daemon where it is."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.bench import fs_apply

WALK = 25  # pairs of configurations
TREES = {  # bar: its tests
    "every workspace and role: its tree loads without a warning": "without_a_word or fault",
    "a SIPp call completes on each profile, UDP and TLS": "each_profile or serves or served",
    "a gateway registers with a second instance": "gateway",
}
PARSERS = ("event socket", "configuration", "sofia xmlstatus", "show as json")


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick walks over fewer pairs."""
    places = ["twin", "real"] if shutil.which("freeswitch") else ["twin"]
    for place in places:
        got = _tests("tests/contract/freeswitch", "-k", place)
        yield _bar("rows and traps of the change table", "all hold", got, place)
    for place, walks in (("twin", 8), ("real", 1 if quick else 2)):
        if place in places:
            got = _tests(
                "tests/functional/freeswitch/test_fs_pairs.py", "-k", place, GUARDIAN_WALKS=walks
            )
            bar = f"a held call survives {walks * WALK} pairs; a fresh start shows no difference"
            yield _bar(bar, "0 lost, 0 differences", got, place)
    for place in places:
        got = _tests("tests/functional/freeswitch/test_fs_everything.py", "-k", place)
        bar = "a tree with everything loads without a warning; calls over UDP and TLS"
        yield _bar(bar, "all pass", got, place)
    for bar, words in TREES.items():
        for place in places:
            file = "tests/functional/freeswitch/test_fs_trees.py"
            yield _bar(bar, "all pass", _tests(file, "-k", f"({words}) and {place}"), place)
    yield from _costs()
    got = _tests("tests/unit/freeswitch/test_fs_parsers.py", GUARDIAN_EXAMPLES=10_000)
    yield _bar(f"10,000 examples each: {', '.join(PARSERS)}", "no traceback", got, "twin")
    got = _tests("tests/unit/test_documentation.py")
    yield _bar("every function has its manual page", "all pass", got, "twin")


def _costs() -> Iterator[dict[str, Any]]:
    found = fs_apply.measure()
    small, large = found.values()
    call, process = small["call"], small["in_process"]
    ratio = round(call["ours"] / call["empty"], 2)
    yield _figure("CPU of a no-op state.apply over an empty one, 60 files", 1.25, ratio)
    ratio = round(
        (process["plain_files"] - process["empty"]) / (process["ours"] - process["empty"])
    )
    bar = "CPU in process of a file.managed a file over ours, times"
    yield {**_figure(bar, 3, ratio), "ok": ratio >= 3}
    more = round(large["call"]["ours"] - large["call"]["empty"], 2)
    yield _figure("CPU above an empty apply, 500 gateways and 5,000 users: seconds", 1, more)
    for label, figures in found.items():
        edit = figures["gateway_edit"]
        touched = sum(len(names) for names in edit["files"].values())
        seconds = round(edit["seconds"], 2)
        bar = f"one gateway edited, {label}: seconds, one file"
        yield {**_figure(bar, 3, seconds), "ok": seconds <= 3 and touched == 1}


def _figure(bar: str, most: float, got: float) -> dict[str, Any]:
    return {"bar": bar, "goal": most, "got": got, "ok": got <= most, "on": "twin"}


def _bar(bar: str, goal: str, got: dict[str, int], place: str) -> dict[str, Any]:
    ok = got["failed"] == 0 and got["passed"] > 0
    return {"bar": bar, "goal": goal, "got": got, "ok": ok, "on": place}


def _tests(*arguments: str, **environment: object) -> dict[str, int]:
    """Run tests and return how many passed, failed and were skipped."""
    more = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    failed = found.get("failed", 0) + found.get("error", 0)
    if done.returncode not in (0, 1):
        failed = max(failed, 1)
    return {"passed": found.get("passed", 0), "failed": failed, "skipped": found.get("skipped", 0)}
