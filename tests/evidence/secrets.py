"""AREA=secrets: pillar, secrets and certificates; rotations on real daemons too where they are."""

import shutil
from collections.abc import Iterator
from typing import Any

from tests.bench import secrets_storm
from tests.evidence import measuring

CERTIFICATES = "tests/unit/certificates"
ROTATIONS = "tests/functional/certificates/test_rotation.py"
MORE_CALLS = 100  # times as many calls of the plain way, at least


def bars(*, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure bar after bar; quick follows secrets on fewer paths, rotates less, asks for fewer."""
    paths = "quick" if quick else "whole"
    # One region for all paths: half of them each in two processes would be two regions.
    got = measuring.tests("-n0", "tests/integration/test_canary.py", GUARDIAN_CANARY=paths)
    bar = "known secrets, every state and failure path, every surface"
    yield measuring.bar(bar, "0 hits", got, "twin")
    got = measuring.tests(f"{CERTIFICATES}/test_bad_bundles.py")
    yield measuring.bar("bad bundles refused, each in its own words", ">= 60", got, "twin")
    crash = f"{CERTIFICATES}/test_certificate_crash.py"
    got = measuring.tests(crash, "--timeout=900", GUARDIAN_CRASH_POINTS=200)
    bar = "a deployment killed or out of space at 200 points"
    yield measuring.bar(bar, "0 partial, 0 stray, the next run repairs", got, "twin")
    places = ["twin"]
    places += ["real"] if shutil.which("freeswitch") or shutil.which("opensips") else []
    for place in places:
        rotations = 20 if quick else 200
        got = measuring.tests(ROTATIONS, "-k", place, GUARDIAN_ROTATIONS=rotations)
        bar = f"{rotations} rotations under held TLS calls"
        yield measuring.bar(
            bar, "0 dialogs lost, the served fingerprint right each time", got, place
        )
    yield from _storm(asking=100 if quick else 0, plain=100 if quick else 0)
    got = measuring.tests("tests/functional/pillar", "tests/functional/test_pillar.py")
    bar = "pillar of every workspace and role compiles and passes; wrong ones are told by file"
    yield measuring.bar(bar, "40 wrong pillars named", got, "twin")
    got = measuring.tests("tests/functional/secrets")
    bar = "no minion obtains another role's or region's secret; AWS unwell in every way"
    yield measuring.bar(bar, "all hold", got, "twin")


def _storm(asking: int, plain: int) -> Iterator[dict[str, Any]]:
    found = secrets_storm.measure(asking=asking, plain=plain)
    who = f"{found['minions']:,} minions refresh at once, a fifth of all calls throttled"
    ours, real = found["workers'"], found["a salt-master's"]["ours"]
    for name, one in ((who, ours), ("the same by a real master", real)):
        yield measuring.figure(f"{name}: API calls answered", found["bound"], one["answered"])
    failures = ours["ours"]["failures"] + real["failures"]
    yield measuring.figure(f"{who}: failures", 0, failures)
    bar = f"{who}: p95 of a compilation as a multiple of the same without secrets"
    yield measuring.figure(bar, 1.5, ours["p95 ratio"])
    for kind, times in found["fewer calls"].items():
        bar = f"calls of a plain boto3 external pillar ({kind}), as a multiple of ours"
        ok = times >= MORE_CALLS
        yield {"bar": bar, "goal": MORE_CALLS, "got": times, "ok": ok, "on": "twin"}
