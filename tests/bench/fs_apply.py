"""What applying a FreeSWITCH configuration costs when there is nothing to do, beside Salt's own.

Sides run in turn, so that whatever else the machine does falls on all of them. CPU is user and
system time of the process and its children, in seconds; figures are medians.
"""

import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from lab.minion import BIN
from tests.functional.freeswitch.conftest import Node
from tests.support.loading import REPOSITORY, load

ROUNDS = 5
EMPTY = "Nothing:\n  test.nop\n"


def context_of(node: Node, gateways: int, users: int) -> dict[str, Any]:
    context = copy.deepcopy(node.context)
    context["gateways"] = {
        f"carrier-{n:04}": {
            "profile": "external",
            "params": {"proxy": f"192.0.2.{n % 250}", "register": False, "username": f"u{n}"},
        }
        for n in range(gateways)
    }
    context["users"] = {str(100_000 + n): {"a1_hash": f"{n:032x}"} for n in range(users)}
    return context


def sls(node: Node, name: str, text: str) -> None:
    """Put an SLS file where the minion of a node finds it."""
    (node.root / "files").mkdir(exist_ok=True)
    (node.root / "files" / f"{name}.sls").write_text(text)


def ours(node: Node, context: dict[str, Any]) -> str:
    states = {
        "Configured": {"freeswitch.configured": [
            {"name": str(node.conf)}, {"source": node.source}, {"context": context}]},
        "Running": {"freeswitch.running": [{"name": "freeswitch"}]},
    }  # fmt: skip
    return "#!json\n" + json.dumps(states)


def plain(node: Node, context: dict[str, Any]) -> str:
    """The same tree, a `file.managed` a file, rendered by Salt from the same templates."""
    directory = node.root / "plain"
    manifest = yaml.safe_load((REPOSITORY / "salt/freeswitch/files/manifest.yaml").read_text())
    render = load("_utils/tree_render.py")
    states: dict[str, Any] = {}
    for entry in manifest["tree"]:
        if not render._asked_for(entry, context):
            continue
        for item in render._items(entry, context, "freeswitch"):
            path = entry["path"].format(**item)
            states[path] = {"file.managed": [
                {"name": str(directory / path)}, {"makedirs": True},
                {"source": f"salt://plain/{entry['template']}"}, {"template": "jinja"},
                {"context": {**context, "item": item}}]}  # fmt: skip
    target = node.root / "files" / "plain"
    if not target.exists():
        subprocess.run(["cp", "-r", REPOSITORY / "salt/freeswitch/files", target], check=True)
        # Salt's jinja lacks our two filters; what they do costs next to nothing.
        for file in target.rglob("*.jinja"):
            text = file.read_text().replace("value | many", "[value]")
            text = text.replace('from "params', 'from "plain/params')
            file.write_text(text.replace('from "directory', 'from "plain/directory'))
    return "#!json\n" + json.dumps(states)


def minion_config(node: Node, component: str = "freeswitch") -> Path:
    """A configuration file for `salt-call --local` beside this node's daemon."""
    keep = ("id", "root_dir", "cachedir", "pki_dir", "sock_dir", "log_file", "extension_modules",
            "file_client", "file_roots", "pillar_roots", "module_dirs", "log_level",
            "state_verbose")  # fmt: skip
    opts = node.caller.opts
    config = {key: opts[key] for key in keep}
    config |= {k: v for k, v in opts.items() if k.startswith((f"{component}.", "voice.", "test."))}
    # The grains of this machine would be measured otherwise, on every side alike.
    (node.root / "minion").write_text(yaml.safe_dump(config))
    return node.root


def cpu_of_call(node: Node, name: str) -> float:
    """Run `salt-call --local state.apply` and return the CPU seconds it took."""
    command = [BIN / "salt-call", "--local", "--config-dir", node.root, "--out=json",
               "--retcode-passthrough", "state.apply", name]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    states = json.loads(done.stdout)["local"].values()
    assert not any(state["changes"] for state in states), states
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def cpu_in_process(node: Node, name: str) -> float:
    """Apply in this process and return the CPU seconds it took: what a running minion pays."""
    before = time.process_time()
    returned = node.caller.cmd("state.apply", name)
    spent = time.process_time() - before
    assert all(state["result"] for state in returned.values()), returned
    assert not any(state["changes"] for state in returned.values())
    return spent


def medians(measure: Any, sides: list[str], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            taken[side].append(measure(side))
    return {side: statistics.median(found) for side, found in taken.items()}


def gateway_edit(node: Node, context: dict[str, Any]) -> dict[str, Any]:
    edited = copy.deepcopy(context)
    edited["gateways"]["carrier-0001"]["params"]["proxy"] = "192.0.2.251"
    start = time.monotonic()
    answer = node.configured(edited)
    seconds = time.monotonic() - start
    assert answer["result"] is True, answer["comment"]
    return {"seconds": seconds, "files": answer["changes"]["files"]}


def measure(flavour: str = "twin", rounds: int = ROUNDS) -> dict[str, Any]:
    """Return all figures of the bar; `flavour` is twin or real."""
    found: dict[str, Any] = {}
    for label, gateways, users in (("60 files", 46, 0), ("500 gateways, 5,000 users", 500, 5000)):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "pillar").mkdir()
            binary = root / "bin" / "freeswitch"  # what tells `voice` which daemon is here
            binary.parent.mkdir()
            binary.write_text("#!/bin/sh\n")
            binary.chmod(0o755)
            os.environ["PATH"] += f"{os.pathsep}{binary.parent}"
            node = Node(root, flavour)
            try:
                found[label] = _one(node, context_of(node, gateways, users), rounds)
            finally:
                node.close()
    return found


def _one(node: Node, context: dict[str, Any], rounds: int) -> dict[str, Any]:
    minion_config(node)
    for name, text in (("empty", EMPTY), ("ours", ours(node, context))):
        sls(node, name, text)
    assert node.configured(context)["result"] is True
    assert node.running()["result"] is True
    sides = ["empty", "ours"]
    if len(context["gateways"]) < 100:
        sls(node, "plain_files", plain(node, context))
        first = node.caller.cmd("state.apply", "plain_files")
        assert all(state["result"] for state in first.values()), first
        sides.append("plain_files")
    for side in sides:
        cpu_in_process(node, side)
    return {
        "files": sum(1 for _ in node.conf.rglob("*.xml")),
        "call": medians(lambda side: cpu_of_call(node, side), sides, rounds),
        "in_process": medians(lambda side: cpu_in_process(node, side), sides, rounds),
        "gateway_edit": gateway_edit(node, context),
    }


if __name__ == "__main__":
    json.dump(measure(*sys.argv[1:2]), sys.stdout, indent=2)
