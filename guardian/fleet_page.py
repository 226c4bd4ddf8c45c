"""docs/fleet.md, made of pillar/fleet.yaml: `python -m guardian.fleet_page > docs/fleet.md`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from guardian.membership import CATALOGUE
from guardian.workspace import REGIONS

COMMAND = "python -m guardian.fleet_page > docs/fleet.md"
_INTRODUCTION = f"""\
# Fleet

Made of `pillar/{CATALOGUE}`; change that, then run `{COMMAND}`.

A minion id is `<role>-<nn or instance id>.<account>-<region>`. It alone decides what a node is
given, layer over layer: `common`, `aws`, its account, its region, its role, its workspace
(`pillar/top.sls`). A minion is of the fleet if its account has its role in its region, and if its
host name, role and zone are in `pillar/workspaces/<workspace>.sls` or in an output that this file
names. Any other is refused in one line and given nothing, whatever it sends along."""


def page(catalogue: dict[str, Any]) -> str:
    """The page, in Markdown."""
    accounts, regions = catalogue["accounts"], catalogue["regions"]
    parts = [
        _INTRODUCTION,
        "## Roles",
        _table(("role", "purpose", "contact"), _named(catalogue["roles"], "purpose", "contact")),
        "## Ports",
        _table(("role", "port", "protocol", "peers", "use"), _ports(catalogue["roles"])),
        "## Accounts",
        _table(
            ("account", "purpose", "contact", "voice nodes"),
            (
                (name, one["purpose"], one["contact"], ", ".join(one["roles"]) or "none")
                for name, one in accounts.items()
            ),
        ),
        "## Workspaces",
        _table(("workspace", "region", "place", "zones"), _workspaces(accounts, regions)),
    ]
    return "\n\n".join(parts) + "\n"


def _named(entries: dict[str, Any], *keys: str) -> Iterator[tuple[str, ...]]:
    for name, one in entries.items():
        yield (name, *(str(one[key]) for key in keys))


def _ports(roles: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, role in roles.items():
        for one in role["ports"]:
            yield (name, *(str(one[key]) for key in ("port", "protocol", "peers", "use")))


def _workspaces(accounts: dict[str, Any], regions: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for account, one in accounts.items():
        for region in one["regions"]:
            place = regions[region]
            zones = " ".join(place["zones"])
            yield f"{account}-{region}", REGIONS[region], place["place"], zones


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the page of the tree that this package lies in."""
    file = Path(__file__).resolve().parents[1] / "pillar" / CATALOGUE
    sys.stdout.write(page(yaml.safe_load(file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
