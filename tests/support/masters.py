"""A real salt-master, and minions that all ask it for their pillar over its request channel."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.ports import free_ports
from tests.support.region import until
from tests.support.storm import World, collected

PROCESSES = 8
GREETING = 10  # minions of a process that make themselves known at a time
_CONFIGURED = ("file_roots", "pillar_roots", "pillar_dirs", "utils_dirs", "ext_pillar")


@dataclass
class Master:
    """Where a running master is."""

    root: Path
    port: int


@dataclass
class Answer:
    """What a minion was told: how long it took, and what was wrong."""

    minion: str
    seconds: float
    problem: str = ""


@contextmanager
def master(world: World, kind: str, workers: int) -> Iterator[Master]:
    """Run a master that compiles pillar of a kind, and has accepted all minions' keys."""
    root = world.directory / f"master-{kind}"
    running = Master(root, free_ports(2))
    for name in ("etc", "sock"):
        (root / name).mkdir(parents=True)
    shutil.copytree(world.directory / "pki", root / "pki")
    shutil.copytree(world.keys, root / "minion")
    options = world.options(kind)
    config = {
        **{name: options[name] for name in _CONFIGURED},
        "root_dir": str(root),
        "pki_dir": str(root / "pki"),
        "cachedir": str(root / "cache"),
        "sock_dir": str(root / "sock"),
        "log_file": str(root / "log"),
        "pidfile": str(root / "pid"),
        "user": "root",
        "interface": "127.0.0.1",
        "ret_port": running.port,
        "publish_port": running.port + 1,
        "worker_threads": workers,
        "minion_data_cache": False,
    }
    (root / "etc" / "master").write_text(yaml.safe_dump(config))
    with (root / "said").open("wb") as said:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("salt-master"), "-c", root / "etc"],
            env={**os.environ, **world.aws.environment},
            stdout=said,
            stderr=said,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield running
    finally:
        process.terminate()
        process.wait()


def asked_at_once(running: Master, minions: list[str]) -> list[Answer]:
    """Ask for every minion's pillar, as `saltutil.refresh_pillar` has them all do."""
    import salt.pillar  # noqa: F401  # before the fork

    until(lambda: _open(running.port), "the master's request channel")
    forked = multiprocessing.get_context("fork")
    done, known = forked.Queue(), forked.Barrier(PROCESSES)
    processes = [
        forked.Process(
            target=_minions, args=(running, number, minions[number::PROCESSES], known, done)
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    return collected(done, len(minions), processes)


def _minions(running: Master, number: int, minions: list[str], known: Any, done: Any) -> None:
    import salt.config
    import salt.pillar

    keys = running.root / f"minion-{number}"
    shutil.copytree(running.root / "minion", keys)
    options: dict[str, Any] = salt.config.DEFAULT_MINION_OPTS.copy()
    options.update(
        master_ip="127.0.0.1",
        master_port=running.port,
        master_uri=f"tcp://127.0.0.1:{running.port}",
        pki_dir=str(keys),
        cachedir=str(running.root / "cache-minion"),
        sock_dir=str(running.root / "sock"),
        file_client="remote",
        __role="minion",
        pillarenv=None,
        request_channel_timeout=300,  # the last of a thousand waits for all others
        auth_timeout=60,
        grains={},
    )

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(GREETING)
        asking = {
            minion: salt.pillar.get_async_pillar({**options, "id": minion}, {}, minion, "base")
            for minion in minions
        }

        async def greet(one: Any) -> None:
            async with gate:
                await one.channel.auth.authenticate()

        await asyncio.gather(*map(greet, asking.values()))
        await asyncio.to_thread(known.wait)
        for answer in asyncio.as_completed([_asked(one, m) for m, one in asking.items()]):
            done.put(await answer)

    asyncio.run(all_of_them())


async def _asked(asking: Any, minion: str) -> Answer:
    import salt.exceptions

    began = time.perf_counter()
    try:
        pillar = await asking.compile_pillar()
        problem = "; ".join(map(str, pillar.get("_errors", [])))
        if not problem and "node" not in pillar:
            problem = "an empty pillar"
    except salt.exceptions.SaltException as error:
        problem = f"{error} ({error.__context__!r})"
    finally:
        await asking.aclose()
    return Answer(minion, time.perf_counter() - began, problem)


def _open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
