"""Pillar as it is with secrets: references in it, declarations and values beside it."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.loading import REPOSITORY, load

secret_refs = load("_utils/secret_refs.py")
UTILS = {
    f"secret_refs.{name}": value
    for name, value in vars(secret_refs).items()
    if callable(value) and not name.startswith("_")
}


def master(
    outputs: Path, pillar: Path = REPOSITORY / "pillar", dummies: Iterable[str] = ("lab",)
) -> dict[str, Any]:
    """Return the options that make Salt compile pillar from this tree, as the lab's master does."""
    return {
        "pillar_roots": {"base": [str(pillar)]},
        "pillar_dirs": [str(REPOSITORY / "_pillar")],
        "utils_dirs": [str(REPOSITORY / "_utils")],
        "ext_pillar": [
            {"stack_outputs": {"path": str(outputs)}},
            {"fleet_node": True},
            {
                "aws_secrets": {
                    "grants": str(REPOSITORY / "pillar" / "grants.yaml"),
                    "cache": "/run/guardian/secrets",
                    "dummies": list(dummies),
                }
            },
            {"pillar_schema": {"path": str(REPOSITORY / "pillar" / "schema")}},
        ],
    }


def schema(component: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / f"pillar/schema/{component}.json").read_text())


def referring(component: str, plain: dict[str, Any]) -> dict[str, Any]:
    """Return a whole pillar in which each secret of ``plain`` is a reference that has a value."""
    held, values = copy.deepcopy(plain), {}
    for path, wrong in list(secret_refs.misplaced(held, schema(component))):
        if wrong == secret_refs.PLAIN:
            at, (*parents, last) = held, path.split(":")
            for key in parents:
                at = at[int(key) if isinstance(at, list) else key]
            name = f"test-{len(values)}"
            values[name], at[last] = at[last], {secret_refs.REFERENCE: name}
    declared = {
        name: {"parameter": f"/test/{name}", "dummy": value} for name, value in values.items()
    }
    return {component: held, "secrets": declared, secret_refs.VALUES: values}
