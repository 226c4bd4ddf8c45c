"""The screens a person reads: what a deploy would do, and how one ended. Pure, and plain text."""

from typing import Any

from guardian.errors import FAILED, HALTED, INTERRUPTED, OK
from guardian.fleet.rollout import Rollout
from guardian.fleet.track import (
    DONE,
    DRAIN,
    HELD,
    PENDING,
    SETTLED,
    UNCHANGED,
    UNKNOWN,
    Node,
    Track,
)
from guardian.fleet.track import (
    FAILED as NODE_FAILED,
)


def plan(
    workspace: str,
    stacks: dict[str, str],
    nodes: list[Node] | None,
    note: str = "",
    proxies: str = "",
) -> list[str]:
    """What would happen: stacks with counts, nodes with their class, why, and calls up now."""
    lines = [f"plan for {workspace}", ""]
    if stacks:
        lines += ["stacks", *_columns(list(stacks.items())), ""]
    if note:
        lines += [note, ""]
    if nodes is not None:
        rows: list[tuple[str, ...]] = [
            ("node", "class", "calls", "in service", "what would happen")
        ]
        rows += [
            (_name(node.minion), _class(node), str(node.calls), _service(node), _intent(node))
            for node in nodes
        ]
        lines += _columns(rows)
        calls = _calls(nodes, proxies)
        changed = sum(1 for node in nodes if node.changes)
        lines += ["", f"{changed} of {len(nodes)} nodes change; {_count(calls, 'call')} up now"]
    return lines


def _class(node: Node) -> str:
    return node.disruption if node.changes else "unchanged"


def _service(node: Node) -> str:
    if node.marked:
        return f"drained by {node.marked}"
    return {"in_service": "yes", "draining": "draining"}.get(node.state, "no")


def _intent(node: Node) -> str:
    why = "; ".join(node.why) or f"{node.changes} states change"
    if not node.changes:
        return "put back" if node.debt else "nothing"
    if node.disruption == "restart" and node.state != "out_of_service":
        return f"drain, restart, put back: {why}"
    return why


def end(workspace: str, run: str, rollout: Rollout | None, facts: dict[str, Any]) -> list[str]:
    """The last screen. `facts`: code, why, seconds, stacks (name -> what was done)."""
    code, seconds = int(facts["code"]), float(facts["seconds"])
    heading = {
        OK: "done",
        FAILED: "FAILED",
        HALTED: "HALTED, partly applied",
        INTERRUPTED: "INTERRUPTED",
    }.get(code, "stopped")
    if code == HALTED and rollout is not None and rollout.tracks and not rollout.halted:
        heading = "HELD, partly applied"
    lines = ["", f"deploy {workspace}: {heading} after {_time(seconds)}   (run {run}, exit {code})"]
    if facts.get("why"):
        lines.append(f"  why:  {facts['why']}")
    for stack, what in facts.get("stacks", {}).items():
        lines.append(f"  stack {stack}: {what}")
    if rollout is not None and rollout.tracks:
        lines += _nodes(rollout)
    if code in (HALTED, INTERRUPTED):
        lines += ["", f"  next:  guardian resume {workspace}"]
        if facts.get("back"):
            back = f"guardian deploy {workspace} --at {str(facts['back'])[:12]}"
            lines.append(f"  back:  {back}, once nobody is out of service")
    elif code == FAILED:
        lines += ["", f"  next:  mend it, then guardian deploy {workspace}"]
    return lines


def _nodes(rollout: Rollout) -> list[str]:
    tracks = [rollout.tracks[minion] for minion in sorted(rollout.tracks)]
    lines = [""]
    out = [track for track in tracks if owed(track)]
    if out:
        lines.append("  OUT OF SERVICE until they are put back:")
        lines += _columns([(_name(track.node.minion), owed(track)) for track in out], 4)
        lines.append("")
    lines += _columns([(_name(track.node.minion), *_ending(track)) for track in tracks], 4)
    waited = sum(track.drained_calls for track in tracks if track.drained_seconds)
    up = _calls([track.node for track in tracks], rollout.proxies)
    drained = sum(1 for track in tracks if track.drained_seconds)
    said = f"  calls: {up} up at the start"
    if drained:
        said += f"; waited for {waited} on {_count(drained, 'drained node')} to end by themselves"
    lines += ["", said]
    if ended := sum(track.ended for track in tracks):
        lines.append(f"  {_count(ended, 'call')} ENDED by force at the drain deadline")
    return lines


def owed(track: Track) -> str:
    """What still has to be undone for a node, or nothing."""
    parts = ["drained"] if track.drained else []
    if track.withdrawn:
        parts.append(f"withdrawn on {', '.join(sorted(_name(one) for one in track.withdrawn))}")
    if track.step == DONE or not parts:
        return ""
    return ", ".join(parts)


def _ending(track: Track) -> tuple[str, str]:
    node = track.node
    if track.step == DONE:
        if track.drained_seconds:
            what = (
                f"drained {_count(track.drained_calls, 'call')} in {_time(track.drained_seconds)}"
            )
            return "restarted", f"{what}; {'; '.join(node.why)}".rstrip("; ")
        what = "; ".join(node.why) or f"{node.changes} states changed"
        return ("applied", what) if node.changes else ("put back", "")
    words = {
        UNCHANGED: "unchanged",
        HELD: "HELD",
        NODE_FAILED: "FAILED",
        UNKNOWN: "UNKNOWN",
        PENDING: "not started",
    }
    if track.step in SETTLED or track.step == PENDING:
        return words[track.step], track.detail
    if track.step == DRAIN:
        return "in drain", f"{_count(track.left, 'call')} left"
    return f"in {track.step}", track.detail


def numbers(rollout: Rollout | None) -> dict[str, Any]:
    """The same for a program: nodes by what became of them, calls, debts."""
    if rollout is None:
        return {}
    tracks = rollout.tracks.values()
    return {
        "nodes": {
            track.node.minion: {
                "step": track.step,
                "class": _class(track.node),
                "detail": track.detail,
                "owed": owed(track),
                "calls": track.node.calls,
                "drained_calls": track.drained_calls,
                "drain_seconds": round(track.drained_seconds, 1),
                "ended_calls": track.ended,
            }
            for track in tracks
        },
        "changed": sum(1 for track in tracks if track.step == DONE and track.node.changes),
        "restarted": sorted(
            track.node.minion for track in tracks if track.step == DONE and track.drained_seconds
        ),
        "calls": _calls([track.node for track in tracks], rollout.proxies),
    }


def _calls(nodes: list[Node], proxies: str) -> int:
    """Calls up: a call through a proxy is on a node behind it, too, and is counted there."""
    behind = [node.calls for node in nodes if node.role != proxies]
    return sum(behind) if behind else sum(node.calls for node in nodes)


def _columns(rows: list[tuple[str, ...]], indent: int = 2) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        " " * indent
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _name(minion: str) -> str:
    return minion.partition(".")[0]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
