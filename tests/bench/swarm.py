"""What a deploy costs that has nothing to do, on 50 real minions, beside Salt's own commands.

The sides run in turn, so that whatever else the machine does falls on all of them: `guardian
deploy`, `salt '*' state.apply`, and `salt -b` with the width of the deploy. Seconds are medians of
the wall.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardian.fleet.master import Jids, Job, Master, Patience
from tests.integration.conftest import one_agent
from tests.support.region import Region, until

MINIONS = 50
PROXIES = 4
ROUNDS = 5


class Swarm(Region):
    """A region whose minions are forked from one process: they share what they import."""

    def start(self) -> None:
        super().start()
        command = [sys.executable, "-m", "tests.bench.swarm", "--serve", str(self.root / "etc")]
        with (self.root / "swarm.log").open("ab") as log:
            self._processes["swarm"] = subprocess.Popen(
                [*command, *self.hosts], stdout=log, stderr=log, start_new_session=True
            )

    def run(self, name: str) -> None:
        if name == "master":
            super().run(name)


def serve(etc: Path, hosts: list[str]) -> None:
    """Be all these minions, a process each, until killed as a group."""
    import salt.cli.daemons
    import salt.minion

    children = []
    for host in hosts:
        if child := os.fork():
            children.append(child)
            time.sleep(0.2)  # a master takes keys one after another
            continue
        sys.argv = ["salt-minion", "-c", str(etc / host), "--disable-keepalive"]
        salt.cli.daemons.Minion().start()
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)


@contextlib.contextmanager
def swarm(count: int) -> Iterator[Region]:
    """That many minions, all of which answer and have their modules."""
    names = [f"sip-{n:02}" for n in range(1, PROXIES + 1)]
    names += [f"pbx-{n:02}" for n in range(1, count - PROXIES + 1)]
    hosts = {name: "abc"[n % 3] for n, name in enumerate(names)}
    with tempfile.TemporaryDirectory(prefix="gs") as directory:
        started = Swarm(Path(directory), hosts)
        try:
            started.start()
            _ready(started)
            yield started
        finally:
            started.stop()


def _ready(started: Region) -> None:
    for host in started.hosts:
        started.node(host, config={"rtp": 16384, "gateways": 0})
    until(lambda: (started.root / "master").is_dir(), "the master")
    jids, everyone = Jids(time.time), tuple(map(started.minion, started.hosts))
    # 50 that start at once take minutes on two cores: asking them meanwhile only adds to it.
    with Master(one_agent(started), jids, Patience(silence=300, misses=1)) as master:
        accepted = lambda: len(master.minions()["accepted"]) == len(everyone)  # noqa: E731
        until(accepted, "the keys", 400)

        def answering() -> bool:
            job = Job(jids.new(), everyone, "test.ping", cap=45)
            return all(one.known for one in master.run(job).values())

        until(answering, "the minions", 900)
        master.run(Job(jids.new(), everyone, "saltutil.sync_all", cap=400))


def measure(quick: bool = False, minions: int = MINIONS) -> dict[str, Any]:
    """Median seconds of each side, and the worst of the ratios that the bar is about."""
    with swarm(minions) as region:
        config = region.config()
        salt = [str(Path(sys.executable).with_name("salt")), "-c", str(region.root / "etc")]
        guardian = [sys.executable, "-m", "guardian", "deploy", region.workspace]
        sides = {
            "guardian": [*guardian, "--only", "fleet", "--yes"],
            "salt": [*salt, "-t", "600", "*", "state.apply"],
            "batch": [*salt, "-t", "600", "-b", str(minions), "*", "state.apply"],
        }
        took: dict[str, list[float]] = {side: [] for side in sides}
        environment = {**os.environ, "GUARDIAN_CONFIG": str(config)}
        names = list(sides)
        for turn in range(2 if quick else ROUNDS):
            for side in names[turn % 3 :] + names[: turn % 3]:
                took[side].append(_timed(sides[side], environment))
        touched = len(region.log("apply", "drain", "withdraw"))
    found: dict[str, Any] = {side: round(statistics.median(t), 2) for side, t in took.items()}
    return {
        "minions": minions,
        **found,
        "rounds": {side: [round(one, 2) for one in times] for side, times in took.items()},
        "to_salt": round(found["guardian"] / found["salt"], 2),
        "to_batch": round(found["guardian"] / found["batch"], 2),
        "touched": touched,
    }


def _timed(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[:3]}: {done.returncode}: {done.stderr[-400:]}")
    return time.monotonic() - began


def main() -> None:
    """Print the figures as one JSON object, or be the minions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minions", type=int, default=MINIONS)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("hosts", nargs="*")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.hosts)
    else:
        # Who ends this must not leave 50 minions behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        print(json.dumps(measure(chosen.quick, chosen.minions)))


if __name__ == "__main__":
    main()
