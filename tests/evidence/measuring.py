"""What every area's experiments share: a bar's line, a figure's, and what tests say."""

import os
import re
import subprocess
import sys
from typing import Any


def figure(bar: str, most: float, got: float, place: str = "twin") -> dict[str, Any]:
    """A bar that is a number, at most so much."""
    return {"bar": bar, "goal": most, "got": got, "ok": got <= most, "on": place}


def bar(name: str, goal: str, got: dict[str, int], place: str) -> dict[str, Any]:
    """A bar that tests hold; one that nothing tested does not hold."""
    ok = got["failed"] == 0 and got["passed"] > 0
    return {"bar": name, "goal": goal, "got": got, "ok": ok, "on": place}


def tests(*arguments: str, **environment: object) -> dict[str, int]:
    """Run tests and return how many passed, failed and were skipped; name failures on stderr."""
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
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            print(line, file=sys.stderr)
    if done.returncode not in (0, 1):
        failed = max(failed, 1)
    return {"passed": found.get("passed", 0), "failed": failed, "skipped": found.get("skipped", 0)}
