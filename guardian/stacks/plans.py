"""What binds a plan file to what was shown: Terraform itself would apply it anywhere."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from guardian.errors import GuardianError


@dataclass(frozen=True)
class Counts:
    """Resources a plan adds, changes and removes, and outputs it changes.

    A plan of outputs alone must be applied, too: until then the state has none to publish.
    """

    add: int = 0
    change: int = 0
    remove: int = 0
    outputs: int = 0

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove or self.outputs)

    def __str__(self) -> str:
        if not self:
            return "no change"
        if not (self.add or self.change or self.remove):
            return f"{self.outputs} outputs to change"
        return f"{self.add} to add, {self.change} to change, {self.remove} to remove"


@dataclass(frozen=True)
class Manifest:
    """A plan's digest and the world it was made for."""

    sha256: str
    workspace: str
    stack: str
    commit: str
    terraform: str
    serial: int


def bind(
    plan: Path, *, workspace: str, stack: str, commit: str, terraform: str, serial: int
) -> None:
    """Write the manifest beside a plan file."""
    manifest = Manifest(digest(plan), workspace, stack, commit, terraform, serial)
    plan.chmod(0o600)
    _beside(plan).write_text(json.dumps(asdict(manifest)), encoding="utf-8")


def check(plan: Path, **now: str | int) -> None:
    """GuardianError unless the plan is the one shown and the world has not moved since."""
    try:
        manifest = Manifest(**json.loads(_beside(plan).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise GuardianError(f"{plan}: no manifest beside it; plan again") from None
    for key, value in {"sha256": digest(plan), **now}.items():
        was = getattr(manifest, key)
        if was != value:
            what = "its bytes changed" if key == "sha256" else f"{key} was {was!s}, is {value!s}"
            raise GuardianError(f"plan of stack {manifest.stack}: {what}; plan again")


def digest(path: Path) -> str:
    """SHA-256 of a file; GuardianError when it cannot be read."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise GuardianError(f"{path}: {error.strerror}; plan again") from None


def _beside(plan: Path) -> Path:
    return plan.with_suffix(".manifest.json")
