"""AREA=opensips: what is promised of a proxy, on the twin and on the real daemon where it is."""

import shutil
from collections.abc import Iterator
from typing import Any

from tests.bench import os_apply
from tests.evidence import measuring

HERE = "tests/functional/opensips"
PARSERS = (
    "MI answers",
    "what commands answer",
    "configuration",
    "tables",
    "what a start says",
    "-V",
)


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick measures costs and parsers less often."""
    places = ["twin", "real"] if shutil.which("opensips") else ["twin"]
    for place in places:
        got = measuring.tests("tests/contract/opensips", "-k", place)
        yield measuring.bar("rows and traps of the change table", "all hold", got, place)
    for place in places:
        got = measuring.tests(f"{HERE}/test_os_trees.py", f"{HERE}/test_os_calls.py", "-k", place)
        bar = "every workspace's tree boots; calls fail over and outlive a drain and 10,000 rows"
        yield measuring.bar(bar, "0 failed calls, 0 lost dialogs", got, place)
    for place in places:
        got = measuring.tests(f"{HERE}/test_os_broken.py", "-k", place)
        bar = "60 broken configurations refused by file, line and cause; the old one serves"
        yield measuring.bar(bar, "all refused", got, place)
    for place in places:
        got = measuring.tests(f"{HERE}/test_os_attacks.py", "-k", place)
        bar = "enumeration, flood and cracking are banned within seconds; carriers and users never"
        yield measuring.bar(bar, "all pass", got, place)
    for place in places:
        yield from _costs(place, rounds=3 if quick else os_apply.ROUNDS)
    examples = 1_000 if quick else 10_000
    parsers = "tests/unit/opensips/test_os_parsers.py"
    got = measuring.tests(parsers, "--timeout=900", GUARDIAN_EXAMPLES=examples)
    bar = f"{examples:,} examples each: {', '.join(PARSERS)}"
    yield measuring.bar(bar, "no traceback", got, "twin")
    got = measuring.tests("tests/unit/test_documentation.py")
    yield measuring.bar("every function has its manual page", "all pass", got, "twin")


def _costs(place: str, rounds: int) -> Iterator[dict[str, Any]]:
    found = os_apply.measure(place, rounds)
    rows = f"{found['rows']:,} dispatcher rows"
    more = round(found["call"]["ours"] - found["call"]["empty"], 2)
    bar = f"CPU of a no-op apply above an empty state.apply, {rows}: seconds"
    yield measuring.figure(bar, 0.5, more, place)
    edit = found["edit"]
    reloads = edit["commands"].count("ds_reload")
    got = {"ds_reload": reloads, "seconds": round(edit["seconds"], 2)}
    bar = f"one row changed, {rows}: how many ds_reload"
    yield {**measuring.figure(bar, 1, reloads, place), "got": got, "ok": reloads == 1}
