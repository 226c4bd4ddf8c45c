"""Where a lab keeps its files and what it calls the things it makes."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
WORKSPACE = "lab-local"
CACHE = REPOSITORY / ".lab" / "cache"
HUB_ADDRESS = "10.77.0.1"
MASTER_ADDRESS = "10.77.0.2"
PREFIX_LENGTH = 24
MIRROR_PORT = 3142


class LabError(Exception):
    """One line a person can act on."""


@dataclass(frozen=True)
class Names:
    """A lab's name and everything derived from it; two labs of different names do not meet."""

    lab: str

    @classmethod
    def from_environment(cls) -> "Names":
        return cls(os.environ.get("GUARDIAN_LAB", "lab"))

    def __post_init__(self) -> None:
        if not self.lab.isalnum() or len(self.lab) > 12:
            raise LabError(
                f"GUARDIAN_LAB={self.lab!r} is no name for a lab: use up to 12 letters and digits"
            )

    @property
    def directory(self) -> Path:
        return REPOSITORY / ".lab" / self.lab

    @property
    def share(self) -> Path:
        """Bound read-only into every host as /srv/guardian-lab."""
        return self.directory / "share"

    @property
    def outputs(self) -> Path:
        """Where the stack runner publishes and the master's pillar reads."""
        return self.directory / "outputs"

    @property
    def hub(self) -> str:
        return self.thing("hub")

    def thing(self, host: str) -> str:
        """The name of a host's namespace, machine and cgroup."""
        return f"gl-{self.lab}-{host}"


@dataclass(frozen=True)
class Node:
    """A minion of the workspace, as pillar/workspaces/lab-local.sls lists it."""

    name: str
    role: str
    zone: str
    address: str

    @cached_property
    def minion_id(self) -> str:
        return f"{self.name}.{WORKSPACE}"


def fleet() -> list[Node]:
    """Read the workspace's nodes from the pillar file that names them."""
    path = REPOSITORY / "pillar" / "workspaces" / f"{WORKSPACE}.sls"
    data = yaml.safe_load(path.read_text())
    return [
        Node(name, entry["role"], entry["zone"], entry["address"])
        for name, entry in data["fleet"].items()
    ]
