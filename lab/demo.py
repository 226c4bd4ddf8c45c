"""`make lab`: a region up, calls through it, and a deploy that restarts both PBX under them."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import Any

from lab.calls import Calls
from lab.minion import BIN
from lab.names import REPOSITORY, WORKSPACE, LabError
from lab.prerequisites import check
from lab.progress import say
from lab.region import Region

HELD, RATE = 50, 5.0
_MARGIN = 6  # calls up beyond those promised, as some are always between two calls
_RANGES = ((16384, 32768), (20000, 30000))


def other_rtp_range(region: Region) -> dict[str, str]:
    """The stack's variables for the RTP range that is not in force, so that there is a change."""
    published = region.outputs_dir / WORKSPACE / "lab.json"
    now = json.loads(published.read_text()) if published.exists() else {}
    start, end = _RANGES[now.get("rtp_start_port", _RANGES[0][0]) == _RANGES[0][0]]
    return {"TF_VAR_rtp_start_port": str(start), "TF_VAR_rtp_end_port": str(end)}


def deploy(environment: dict[str, str]) -> None:
    """Run `guardian deploy` in front; LabError with its exit code when it does not end well."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [BIN / "guardian", "deploy", WORKSPACE, "--yes"],
        cwd=REPOSITORY,
        env={**os.environ, **environment, "PATH": path},
    )
    if done.returncode:
        raise LabError(f"guardian deploy ended with {done.returncode}; its last screen says why")


def applied(region: Region) -> tuple[int, int]:
    """(nodes a deploy changed, nodes of them restarted) in the newest run's journal."""
    runs = sorted((region.names.directory / "runs").glob("*/journal.jsonl"))
    entries: list[dict[str, Any]] = [json.loads(line) for line in runs[-1].read_text().splitlines()]
    steps = [entry["key"].split("/") for entry in entries if entry["type"] == "intent"]
    changed = {node for node, step, _ in steps if step == "apply"}
    drained = {node for node, step, _ in steps if step == "drain"}
    return len(changed), len(changed & drained)


def run(region: Region) -> dict[str, Any]:
    """Deploy a restart under calls, then deploy again; returns the summary."""
    started = time.monotonic()
    check()
    region.up()
    environment = other_rtp_range(region)
    say(f"calling through {region.proxy_address}: {HELD} held, {RATE:g} new a second")
    with Calls(region.names, region.proxy_address, held=HELD + _MARGIN, rate=RATE) as calls:
        say(f"{calls.up_now()} calls up; RTP range to {environment['TF_VAR_rtp_start_port']}…")
        deploy(environment)
        say("waiting for the calls to end")
    counts = calls.counts()
    _, restarted = applied(region)
    say("deploying again: nothing should change")
    deploy(environment)
    again, _ = applied(region)
    return {
        **dataclasses.asdict(counts),
        "restarted": restarted,
        "second_deploy_changes": again,
        "seconds": round(time.monotonic() - started, 1),
        "hosts": [*region.hosts],
    }


def _closing(summary: dict[str, Any]) -> str:
    good = not (summary["dropped"] or summary["failed"])
    return f"""
  {"A region, deployed under live calls." if good else "CALLS WERE LOST."}

    hosts        {", ".join(summary["hosts"])} (workspace {WORKSPACE}), and their master
    changed      the RTP range of FreeSWITCH, by Terraform; {summary["restarted"]} nodes restarted
    calls        never fewer than {summary["held"]} held, {summary["new_calls"]} made
    dropped      {summary["dropped"]}
    failed       {summary["failed"]}
    second run   {summary["second_deploy_changes"]} nodes changed
    took         {summary["seconds"]} s

  Look around (source {BIN.relative_to(REPOSITORY)}/activate first):
    guardian lab status
    guardian lab shell pbx-01
    guardian lab salt '*pbx*' state.apply
    guardian plan {WORKSPACE}
  Stop, leaving nothing behind:
    guardian lab down          (or make lab-down)
"""


def main() -> int:
    region = Region()
    try:
        summary = run(region)
    except LabError as err:
        print(f"make lab: {err}", file=sys.stderr)
        return 1
    (REPOSITORY / ".lab" / "summary.json").write_text(json.dumps(summary) + "\n")
    print(_closing(summary))
    return 1 if summary["dropped"] or summary["failed"] or summary["second_deploy_changes"] else 0


if __name__ == "__main__":
    sys.exit(main())
