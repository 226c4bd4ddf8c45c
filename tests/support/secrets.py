"""Pillar as it is with secrets: references in it, declarations and values beside it."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.loading import REPOSITORY, load

secret_refs = load("_utils/secret_refs.py")
secret_seal = load("_utils/secret_seal.py")
UTILS = {
    f"{util.__name__}.{name}": value
    for util in (secret_refs, secret_seal)
    for name, value in vars(util).items()
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
            {"secrets_sealed": {"plain": list(dummies)}},
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
