"""`guardian lab …`: the disposable hosts, by hand."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from lab.calls import Calls
from lab.host import Host
from lab.names import LabError
from lab.prerequisites import check
from lab.region import Region

P = ParamSpec("P")


def _one_line(function: Callable[P, None]) -> Callable[P, None]:
    """Turn a LabError into its line and exit code 1."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except LabError as err:
            click.echo(f"guardian lab: {err}", err=True)
            sys.exit(1)

    return wrapped


def _host(region: Region, name: str) -> Host:
    found = {**region.hosts, "master": region.master}.get(name)
    if found is None:
        raise LabError(f"no host {name!r}: there are {', '.join(region.hosts)} and master")
    return found


@click.group()
def lab() -> None:
    """Disposable Debian hosts on this machine (workspace lab-local)."""


@lab.command()
@_one_line
def up() -> None:
    """Boot what is not up and wait until every host has its highstate."""
    check()
    Region().up()


@lab.command()
@_one_line
def down() -> None:
    """End and remove every host, namespace and mount; the cache in .lab/cache stays."""
    Region().down()


@lab.command()
@_one_line
def status() -> None:
    """Say which hosts are up, and what each one carries."""
    region = Region()
    click.echo(f"{'master':8} {'up' if region.master.init_pid() else 'down'}")
    up = [name for name, host in region.hosts.items() if host.init_pid()]
    told = region.salt("*", "voice.in_service") if region.master.init_pid() and up else {}
    for name in region.hosts:
        node = told.get(region.nodes[name].minion_id)
        if isinstance(node, dict):
            text = f"{node['state'].replace('_', ' ')}, {node['calls']} calls"
        else:
            text = "up, its minion does not answer" if name in up else "down"
        click.echo(f"{name:8} {text}")


@lab.command()
@click.argument("host")
@_one_line
def shell(host: str) -> None:
    """Open a root shell on HOST (on `master`, the `salt` command is at hand)."""
    command = _host(Region(), host).command(["bash", "--login"], terminal=True)
    os.execvp(command[0], command)


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_one_line
def execute(host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on HOST; its exit code is ours."""
    words = _host(Region(), host).command(list(command))
    os.execvp(words[0], words)


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@_one_line
def salt(words: tuple[str, ...]) -> None:
    """Run `salt WORDS` on the lab's master, e.g. guardian lab salt '*pbx*' state.apply."""
    command = Region().master.command(["salt", *words], terminal=True)
    os.execvp(command[0], command)


@lab.command()
@click.argument("host")
@click.option("-n", "--lines", default=50, show_default=True, help="How many lines.")
@_one_line
def logs(host: str, lines: int) -> None:
    """Show the end of HOST's journal."""
    command = _host(Region(), host).command(["journalctl", "--no-pager", f"--lines={lines}"])
    os.execvp(command[0], command)


@lab.command()
@click.option("--held", default=50, show_default=True, help="Calls up at a time.")
@click.option("--rate", default=5.0, show_default=True, help="New calls a second.")
@click.option("--seconds", default=30, show_default=True, help="How long.")
@_one_line
def calls(held: int, rate: float, seconds: int) -> None:
    """Hold calls through the proxy for a while and say what became of each."""
    import time

    region = Region()
    with Calls(region.names, region.proxy_address, held=held, rate=rate) as running:
        for left in range(seconds, 0, -5):
            click.echo(f"{running.up_now()} calls up, {left} s to go", err=True)
            time.sleep(min(5, left))
    click.echo(json.dumps(dataclasses.asdict(running.counts())))


if __name__ == "__main__":
    lab()
