"""Runs that are killed at any moment: what is stored is whole, and the next run mends the rest."""

import multiprocessing
import os
import random
import signal
import time

from guardian.acme import config, service
from tests.support.loading import load

bundles = load("_utils/certificate_bundle.py")
KILLS = int(os.environ.get("ACME_KILLS", "6"))
FORK = multiprocessing.get_context("fork")
NAMES = ["pbx.example.net"]


def verify(chain, key, names, authority):
    return bundles.verify(chain, key, names, authority=authority)


def renewed(wanted):
    """Order one now, as a run that was asked to."""
    assert service.issue(wanted, "default", verify).ok


def test_killed_runs_leave_a_whole_certificate(master):
    wanted = config.parse(master.acme)
    began = time.monotonic()
    renewed(wanted)
    lasts = time.monotonic() - began
    seen = set()
    for number in range(KILLS):
        run = FORK.Process(target=renewed, args=(wanted,))
        run.start()
        # At any moment of a run, the last ones included, in which things are written.
        run.join(lasts * (number + random.random()) / KILLS * 1.2)
        if run.pid and run.is_alive():
            os.kill(run.pid, signal.SIGKILL)
        run.join()
        stored = master.stored()
        seen.add(bundles.verify(stored["chain"], stored["key"], NAMES)["fingerprint"])
    renewed(wanted)
    stored = master.stored()
    bundles.verify(stored["chain"], stored["key"], NAMES)
    left = sorted(str(one.relative_to(master.root)) for one in master.root.rglob("*"))
    files = [one for one in left if (master.root / one).is_file()]
    accounts = [one for one in files if one.startswith("acme/accounts/")]
    assert len(accounts) == 1
    assert files == [*accounts, "acme/lock", "stored/default.json"]
