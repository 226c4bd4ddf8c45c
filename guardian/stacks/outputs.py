"""Where the outputs of a workspace's stacks are published and read back, sensitive ones apart.

In a directory, `<directory>/<workspace>/<stack>.json` is one JSON object of all outputs, and its
key `sensitive.outputs` lists those that pillar must not be given as they are (no output can have a
dot in its name). In Parameter Store, each output is a parameter: see `parameters`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from guardian.config import Workspace
from guardian.errors import GuardianError

SENSITIVE = "sensitive.outputs"


@dataclass(frozen=True)
class Output:
    """The value of an output and whether Terraform calls it sensitive."""

    value: Any
    sensitive: bool = False

    def __repr__(self) -> str:
        return f"Output({'sensitive' if self.sensitive else repr(self.value)})"


Outputs = dict[str, Output]


class Place(Protocol):
    """Where one workspace's outputs are."""

    def read(self, stack: str) -> Outputs | None:
        """Outputs of a stack as last published, None when it never was."""

    def publish(self, stack: str, outputs: Outputs) -> bool:
        """Publish them, whole or not at all; whether they differ from those before."""


@dataclass(frozen=True)
class Directory:
    """One file a stack, readable by its owner only."""

    path: Path
    workspace: str

    def read(self, stack: str) -> Outputs | None:
        """Outputs of a stack, None without its file; GuardianError when the file is damaged."""
        file = self._file(stack)
        if not file.exists():
            return None
        values = _loaded(file, self.workspace)
        sensitive = values.pop(SENSITIVE, [])
        return {name: Output(value, name in sensitive) for name, value in values.items()}

    def stacks(self) -> list[str]:
        """The stacks that were published."""
        return sorted(file.stem for file in (self.path / self.workspace).glob("*.json"))

    def publish(self, stack: str, outputs: Outputs) -> bool:
        """Replace the stack's file if anything differs; GuardianError when it cannot be."""
        values = {name: one.value for name, one in outputs.items()}
        if sensitive := sorted(name for name, one in outputs.items() if one.sensitive):
            values[SENSITIVE] = sensitive
        text = json.dumps(values, indent=1, sort_keys=True) + "\n"
        target = self._file(stack)
        try:
            if target.exists() and target.read_text(encoding="utf-8") == text:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            write_private(target, text)
        except OSError as error:
            raise GuardianError(f"{target}: {error.strerror}; outputs were not published") from None
        return True

    def _file(self, stack: str) -> Path:
        return self.path / self.workspace / f"{stack}.json"


def place(workspace: Workspace) -> Place:
    """The place that guardian.yaml names for a workspace."""
    if isinstance(workspace.outputs, Path):
        return Directory(workspace.outputs, workspace.name)
    from guardian.stacks import parameters

    return parameters.ParameterStore.of(workspace.outputs, workspace.name)


def published(source: dict[str, Any], workspace: str) -> dict[str, dict[str, Any]]:
    """Outputs by stack, without the sensitive ones, for pillar.

    `source` is `{path: …}` or `{parameters: …}` and the options of the master's broker. ValueError,
    in one line, when they cannot be read or one of them is damaged.
    """
    if len({"path", "parameters"} & set(source)) != 1:
        raise ValueError("stack_outputs: exactly one of path, parameters says where outputs are")
    try:
        if "path" not in source:
            from guardian.stacks import parameters

            return parameters.published(source, workspace)
        directory = Directory(Path(source["path"]), workspace)
        return {
            stack: {name: one.value for name, one in found.items() if not one.sensitive}
            for stack in directory.stacks()
            if (found := directory.read(stack)) is not None
        }
    except GuardianError as error:
        raise ValueError(str(error)) from None


def write_private(path: Path, text: str) -> None:
    """Replace a file durably by one that only its owner may read."""
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _loaded(file: Path, workspace: str) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise GuardianError(f"{file}: not a JSON object; run `guardian deploy {workspace}` again")
    return values
