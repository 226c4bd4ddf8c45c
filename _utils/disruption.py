"""How much a change to a running daemon disturbs its calls, and when that is allowed."""

from __future__ import annotations

from collections.abc import Iterable

ORDER = ("none", "reload", "restart")


def worst(classes: Iterable[str]) -> str:
    """Return the strongest of ``classes``; a word we do not know counts as ``restart``."""
    rank = 0
    for name in classes:
        rank = max(rank, ORDER.index(name) if name in ORDER else len(ORDER) - 1)
    return ORDER[rank]


def allowed(disruption: str, node: dict) -> bool:
    """Tell whether ``disruption`` may happen to ``node``, the answer of ``voice.in_service``.

    Anything above ``reload`` needs a node that is out of service. A class or a state we do not
    know is treated as the dangerous one.
    """
    if worst([disruption]) != "restart":
        return True
    return node.get("state") == "out_of_service"


def refusal(why: list[str], node: dict, workspace: str = "") -> str:
    """Say in one line what is refused, how many calls that spares and what to run instead."""
    calls = node.get("calls")
    up = (
        f"{calls} call{'' if calls == 1 else 's'} up" if isinstance(calls, int) else "calls unknown"
    )
    target = workspace or node.get("workspace") or "<workspace>"
    reasons = "; ".join(why) or "reason unknown"
    return f"restart needed: {reasons}; {up}; run `guardian deploy {target}`"
