"""The workspaces of this tree, with nodes as their stacks would have published them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from guardian import membership
from tests.support.loading import REPOSITORY

PILLAR = REPOSITORY / "pillar"
HOSTS = {"rt-sip": "sip", "rt-pbx": "pbx", "fsx8": "fsx"}  # stack -> role of the nodes it makes


@cache
def catalogue() -> dict[str, Any]:
    """Return who there may be, as pillar/fleet.yaml says."""
    return yaml.safe_load((PILLAR / membership.CATALOGUE).read_text())


def workspaces() -> list[str]:
    return sorted(file.stem for file in (PILLAR / "workspaces").glob("*.sls"))


def accounts() -> list[str]:
    return sorted(catalogue()["accounts"])


def publish(outputs: Path) -> None:
    """Publish what the stacks of every workspace would: two nodes of a role, and endpoints."""
    for number, workspace in enumerate(workspaces()):
        for stack, values in _outputs(workspace, number).items():
            file = outputs / workspace / f"{stack}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))


def fleet(workspace: str, outputs: Path) -> dict[str, dict[str, Any]]:
    """Return a workspace's nodes by host name."""
    return membership.fleet(workspace, [PILLAR], {"path": str(outputs)})


def minion_ids(outputs: Path, *roles: str) -> list[str]:
    """Return every node of every workspace that has one of these roles."""
    return [
        f"{name}.{workspace}"
        for workspace in workspaces()
        for name, entry in fleet(workspace, outputs).items()
        if entry["role"] in roles
    ]


def _outputs(workspace: str, number: int) -> dict[str, dict[str, Any]]:
    if workspace == "lab-local":
        return {}
    made = {
        stack: {
            "nodes": {
                f"{role}-{place}{number:02x}a1": {
                    "role": role,
                    "zone": "ab"[place],
                    "address": f"10.{100 + number}.{10 * turn}.{11 + place}",
                    "public_address": f"192.0.2.{100 + 10 * turn + place}",
                }
                for place in range(2)
            }
        }
        for turn, (stack, role) in enumerate(HOSTS.items())
    }
    made["rt-sip"]["cluster"] = {
        name: {"id": place, "address": entry["address"]}
        for place, (name, entry) in enumerate(made["rt-sip"]["nodes"].items(), 1)
    }
    region = workspace.partition("-")[2]
    return {
        **made,
        "databases": {"voice_host": f"voice.{region}.rds.example.com"},
        "rt-core-api": {"url": f"https://core-api-0a1b2c.{region}.elb.example.com"},
    }
