"""Races for a workspace's lock: deployers on one host, and on several by S3."""

import json
import multiprocessing
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from guardian import locks
from guardian.config import Bucket, Master, Rollout, Workspace
from guardian.errors import LOCKED, GuardianError
from tests.support.aws import REGION, running

RACERS = 4


def measure(races: int = 200) -> dict[str, dict[str, int]]:
    """Race so often for each kind of lock: how often one won, and all others were told who."""
    with tempfile.TemporaryDirectory() as directory, running() as aws:
        place = Bucket("locks", "", REGION)
        aws.client("s3").create_bucket(
            Bucket=place.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        root = Path(directory)
        space = Workspace("prod-euw2", (), Master((), "", ""), root, root, root / "runs", Rollout())
        hosts = [
            replace(space, lock=place, runs=root / f"host-{number}") for number in range(RACERS)
        ]
        return {
            "local": _raced(races, [space] * RACERS, {}),
            "s3": _raced(races, hosts, aws.environment),
        }


def _raced(races: int, spaces: list[Workspace], environment: dict[str, str]) -> dict[str, int]:
    forked = multiprocessing.get_context("fork")
    said, line = forked.Queue(), forked.Barrier(len(spaces))
    racers = [
        forked.Process(target=_race, args=(space, races, environment, line, said))
        for space in spaces
    ]
    for racer in racers:
        racer.start()
    found: dict[int, list[Any]] = {number: [] for number in range(races)}
    for _ in range(races * len(spaces)):
        number, outcome = said.get(timeout=120)
        found[number].append(outcome)
    for racer in racers:
        racer.join()
    winners = [[one for one in each if isinstance(one, int)] for each in found.values()]
    losers = [[one for one in each if isinstance(one, str)] for each in found.values()]
    return {
        "races": races,
        "one winner": sum(len(each) == 1 for each in winners),
        "loser told who": sum(
            all(f"locked by {locks.who()}" in one for one in each) for each in losers
        ),
        "fences": len({fence for each in winners for fence in each}),
    }


def _race(space: Workspace, races: int, environment: dict[str, str], line: Any, said: Any) -> None:
    os.environ.update(environment)
    for number in range(races):
        line.wait()
        try:
            with locks.held(space, "deploy") as lease:
                said.put((number, lease.fence))
                line.wait()  # until all others were refused
        except GuardianError as error:
            said.put((number, str(error) if error.code == LOCKED else None))
            line.wait()


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
