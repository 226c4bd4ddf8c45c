"""AREA=freeswitch: what is promised of a PBX, on the twin and on the real daemon where it is."""

import shutil
from collections.abc import Iterator
from typing import Any

from tests.bench import fs_apply
from tests.evidence import measuring

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
        got = measuring.tests("tests/contract/freeswitch", "-k", place)
        yield measuring.bar("rows and traps of the change table", "all hold", got, place)
    for place, walks in (("twin", 8), ("real", 1 if quick else 2)):
        if place in places:
            got = measuring.tests(
                "tests/functional/freeswitch/test_fs_pairs.py", "-k", place, GUARDIAN_WALKS=walks
            )
            bar = f"a held call survives {walks * WALK} pairs; a fresh start shows no difference"
            yield measuring.bar(bar, "0 lost, 0 differences", got, place)
    for place in places:
        got = measuring.tests("tests/functional/freeswitch/test_fs_everything.py", "-k", place)
        bar = "a tree with everything loads without a warning; calls over UDP and TLS"
        yield measuring.bar(bar, "all pass", got, place)
    for bar, words in TREES.items():
        for place in places:
            file = "tests/functional/freeswitch/test_fs_trees.py"
            yield measuring.bar(
                bar, "all pass", measuring.tests(file, "-k", f"({words}) and {place}"), place
            )
    yield from _costs()
    got = measuring.tests("tests/unit/freeswitch/test_fs_parsers.py", GUARDIAN_EXAMPLES=10_000)
    yield measuring.bar(f"10,000 examples each: {', '.join(PARSERS)}", "no traceback", got, "twin")
    got = measuring.tests("tests/unit/test_documentation.py")
    yield measuring.bar("every function has its manual page", "all pass", got, "twin")


def _costs() -> Iterator[dict[str, Any]]:
    found = fs_apply.measure()
    small, large = found.values()
    call, process = small["call"], small["in_process"]
    ratio = round(call["ours"] / call["empty"], 2)
    yield measuring.figure("CPU of a no-op state.apply over an empty one, 60 files", 1.25, ratio)
    ratio = round(
        (process["plain_files"] - process["empty"]) / (process["ours"] - process["empty"])
    )
    bar = "CPU in process of a file.managed a file over ours, times"
    yield {**measuring.figure(bar, 3, ratio), "ok": ratio >= 3}
    more = round(large["call"]["ours"] - large["call"]["empty"], 2)
    yield measuring.figure(
        "CPU above an empty apply, 500 gateways and 5,000 users: seconds", 1, more
    )
    for label, figures in found.items():
        edit = figures["gateway_edit"]
        touched = sum(len(names) for names in edit["files"].values())
        seconds = round(edit["seconds"], 2)
        bar = f"one gateway edited, {label}: seconds, one file"
        yield {**measuring.figure(bar, 3, seconds), "ok": seconds <= 3 and touched == 1}
