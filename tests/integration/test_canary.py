"""A known secret goes through every state and failure path: nobody sees it but who is meant to.

A short choice of the paths in every run; all of them, and once more with Salt telling all it can,
with ``GUARDIAN_CANARY=whole``.
"""

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws import running as aws_running
from tests.support.canary import pillar, region, scenarios
from tests.support.canary.surfaces import JOURNAL, Surfaces
from tests.support.canary.values import Canaries

WHOLE = os.environ.get("GUARDIAN_CANARY") == "whole"
LEVELS = ("debug", "all") if WHOLE else ("debug",)
# A node with workers has all that a PBX has, and more.
ROLES = ("sip", "pbx", "fsx") if WHOLE else ("sip", "fsx")
NAMES = list(scenarios.SCENARIOS) if WHOLE else scenarios.QUICK

pytestmark = [
    pytest.mark.timeout(1800 if WHOLE else 300),
    pytest.mark.skipif(os.geteuid() != 0, reason="nodes with files of their own need root"),
]


@pytest.fixture(scope="module", params=LEVELS)
def observed(request: pytest.FixtureRequest) -> Iterator[tuple[region.Region, Surfaces]]:
    # Unix sockets have short names: not under pytest's long directories.
    with (
        tempfile.TemporaryDirectory(prefix="cn") as directory,
        aws_running() as aws,
        region.running(Path(directory), aws, request.param, ROLES) as one,
    ):
        surfaces = Surfaces(one)
        surfaces.sweep()
        yield one, surfaces


def table(seen: dict[tuple[str, str], set[str]]) -> str:
    """Return what was seen: surface, path, how often, and the first few places."""
    lines = []
    for (surface, path), places in sorted(seen.items()):
        lines.append(f"{surface:14} | {path:32} | {len(places)} hits")
        lines += [f"    {place}" for place in sorted(places)[:5]]
    return "\n".join(lines)


def test_every_place_for_a_secret_has_a_canary(observed):
    one, _ = observed
    pillars = [*one.pillar.values(), one.remote]
    for component in ("freeswitch", "opensips", "fsx", "certificates"):
        held = [{component: layer[component]} for layer in pillars if component in layer]
        assert pillar.unplanted(component, held) == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_seen_on_the_path_of(observed, name):
    one, surfaces = observed
    scenarios.SCENARIOS[name](one)
    seen = {(surface, name): places for surface, places in surfaces.sweep().items()}
    assert not seen, f"secrets were seen:\n{table(seen)}"


def test_secrets_came_to_where_they_belong(observed):
    """None of the paths above was trod without them."""
    one, surfaces = observed
    given = {name for name in one.canaries.names() if name.partition("/")[0] in ROLES}
    given -= {"sip/opensips-database-remote-password"}  # refused before it is written
    assert given <= set(surfaces.homes)
    assert one.programs.rounds > 100, "programs were hardly looked at"


def test_a_secret_is_seen_wherever_it_comes_to(observed):
    """What finds nothing above finds a canary on each surface, and in each disguise."""
    one, surfaces = observed
    secret = one.canaries.named("planted").text("word")
    node = one.switches
    one.ask(node, "test.echo", secret)
    one.ask(node, "cmd.run", f"true {secret}")
    one.ask(node, "cmd.run", "sleep 0.5", env={"CANARY": secret})
    one.ask(node, "file.write", "/etc/plain", secret)
    one.ask(node, "file.write", "/tmp/passing", secret)
    one.ask(node, "file.remove", "/tmp/passing")
    one.ask(node, "file.write", "/var/lib/some.prom", secret)
    one.inside(one.switch, "cat", "/etc/plain")
    one.inside(one.switch, "chmod", "0644", "/etc/fs_cli.conf")
    one.inside(one.switch, "touch", "/etc/fs_cli.conf")
    (one.root / "guardian").mkdir(exist_ok=True)
    for place in ("guardian/journal", "secrets/cache", f"{one.switch}/var/cache/salt/minion/some"):
        (one.root / place).write_text(f"first line\n{secret}")
    wanted = {"logs", "event bus", "returns", "job cache", "argv", "environ", "files", "removed",
              "metrics", "screens", "guardian", "sealed cache", "salt's caches"}  # fmt: skip
    if JOURNAL.exists():
        subprocess.run(["logger", secret], check=True)
        wanted.add("journal")
    seen = surfaces.sweep()
    assert wanted <= set(seen), wanted - set(seen)
    assert any("fs_cli.conf (0:0 0644)" in place for place in seen["files"]), seen["files"]
    assert "guardian/journal: line 2: planted/word (plain)" in seen["guardian"]
    assert secret not in table({(surface, "x"): places for surface, places in seen.items()})
    one.inside(one.switch, "chmod", "0600", "/etc/fs_cli.conf")


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("form", ["plain", "reversed", "hex", "base64", "beginning", "end"])
def test_a_secret_is_found_in_every_disguise(form: str, shift: int) -> None:
    canaries = Canaries()
    secret = canaries.text("word").encode()
    told = {
        "plain": secret,
        "reversed": secret[::-1],
        "hex": secret.hex().upper().encode() if shift else secret.hex().encode(),
        "base64": base64.b64encode(b"x" * shift + secret + b"y"),
        "beginning": secret[:8] + b"...",
        "end": b"..." + secret[-8:],
    }[form]
    assert canaries.found(b"before " + told + b" after")
    assert not canaries.found(b"before " + told[1:6] + b" after")
