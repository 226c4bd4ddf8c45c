"""What applying an OpenSIPS configuration costs when there is nothing to do, or one row.

Sides run in turn, so that whatever else the machine does falls on all of them. CPU is user and
system time of the process and its children, in seconds; figures are medians.
"""

import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import fs_apply
from tests.functional.opensips.conftest import Node

ROUNDS = 5
ROWS = 10_000
MEMORY = {"shared": 512, "private": 16}  # MiB, as pillar's defaults


def context_of(node: Node, rows: int) -> dict[str, Any]:
    """The node's context with so many destinations, in sets of 250."""
    context = copy.deepcopy(node.context)
    context["dispatcher"] = {str(1 + n // 250): [] for n in range(rows)}
    for n in range(rows):
        uri = f"sip:10.{n // 65536}.{n // 256 % 256}.{n % 256}:5060"
        context["dispatcher"][str(1 + n // 250)].append(
            {"node": f"pbx-{n:05}", "uri": uri, "weight": 1}
        )
    context["memory"] = MEMORY
    # 10,000 pings every few seconds are no part of what is measured.
    context["ping"] = {**context["ping"], "interval": 300}
    return context


def ours(node: Node, context: dict[str, Any]) -> str:
    text = json.dumps(context)  # as opensips/configured.sls passes it
    states = {
        "Configured": {"opensips.configured": [
            {"name": str(node.conf)}, {"source": str(node.source)}, {"context": text}]},
        "Running": {"opensips.running": [{"name": "opensips"}]},
    }  # fmt: skip
    return "#!json\n" + json.dumps(states)


def commands_of(node: Node, apply: Any) -> list[str]:
    """Return the management commands that an apply sends."""
    node.call("status")
    functions = node.caller.sminion.functions.pack["__utils__"]
    scope = functions["mi.call"].__globals__
    honest, sent = scope["_ask"], []

    def noted(command: str, *arguments: Any) -> Any:
        sent.append(command)
        return honest(command, *arguments)

    scope["_ask"] = noted
    try:
        apply()
    finally:
        scope["_ask"] = honest
    return sent


def row_edit(node: Node, context: dict[str, Any]) -> dict[str, Any]:
    """Change one row and return what that sent and took."""
    edited = copy.deepcopy(context)
    edited["dispatcher"]["1"][0]["weight"] = 7
    found: dict[str, Any] = {}

    def apply() -> None:
        start = time.monotonic()
        found.update(node.call("configure", str(node.source), edited, name=str(node.conf)))
        found["seconds"] = time.monotonic() - start

    sent = commands_of(node, apply)
    assert found["result"] is True, found["comment"]
    actions = found["changes"]["actions"]
    return {"seconds": found["seconds"], "commands": sent, "actions": actions}


def measure(flavour: str = "twin", rounds: int = ROUNDS, rows: int = ROWS) -> dict[str, Any]:
    """Return all figures of the bar; `flavour` is twin or real."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "pillar").mkdir()
        node = Node(root, flavour)
        node.caller.opts["test.daemon"] += [
            *("-m", str(MEMORY["shared"])),
            *("-M", str(MEMORY["private"])),
        ]
        os.environ["PATH"] = f"{root / 'bin'}:{os.environ['PATH']}"
        try:
            return {"rows": rows, **_one(node, context_of(node, rows), rounds)}
        finally:
            node.close()


def _one(node: Node, context: dict[str, Any], rounds: int) -> dict[str, Any]:
    fs_apply.minion_config(node, "opensips")
    for name, text in (("empty", fs_apply.EMPTY), ("ours", ours(node, context))):
        fs_apply.sls(node, name, text)
    for answer in (node.configured(context), node.running()):
        assert answer["result"] is True, answer["comment"]
    sides = ["empty", "ours"]
    for side in sides:
        fs_apply.cpu_in_process(node, side)
    return {
        "call": fs_apply.medians(lambda side: fs_apply.cpu_of_call(node, side), sides, rounds),
        "in_process": fs_apply.medians(
            lambda side: fs_apply.cpu_in_process(node, side), sides, rounds
        ),
        "edit": row_edit(node, context),
    }


if __name__ == "__main__":
    json.dump(measure(*sys.argv[1:2]), sys.stdout, indent=2)
