"""Who goes when: canaries, then growing waves; of each, proxies after the nodes behind them."""

from collections import deque
from collections.abc import Sequence

from guardian.config import Rollout as Settings
from guardian.fleet.track import Node

Stage = dict[str, deque[str]]


def canaries(nodes: Sequence[Node]) -> list[Node]:
    """One node a role and zone of those with work; one out of service harms nobody, so it first."""
    chosen: dict[tuple[str, str], Node] = {}
    for node in _in_order(nodes):
        chosen.setdefault((node.role, node.zone), node)
    return list(chosen.values())


def stages(nodes: Sequence[Node], settings: Settings) -> list[Stage]:
    """Minions by role for each stage, two a wave.

    Proxies are the second, so that none is out while it is needed to withdraw a peer.
    """
    first = canaries(nodes)
    chosen = {node.minion for node in first}
    work = _in_order(nodes)
    by_role: dict[str, list[Node]] = {}
    for node in work:
        if node.minion not in chosen:
            by_role.setdefault(node.role, []).append(node)
    # Spread the roles evenly over the waves.
    rest = sorted(
        ((place / len(queue), node.minion, node)
         for queue in by_role.values() for place, node in enumerate(queue)),
        key=lambda entry: entry[:2],
    )  # fmt: skip
    groups = [first]
    for wave in settings.waves:
        width = len(rest) if wave == 100 else max(1, len(work) * wave // 100)
        groups.append([node for _, _, node in rest[:width]])
        rest = rest[width:]
    found: list[Stage] = []
    for group in groups:
        for proxies in (False, True):
            stage: Stage = {}
            for node in group:
                if (node.role == settings.proxies) == proxies:
                    stage.setdefault(node.role, deque()).append(node.minion)
            found.append(stage)
    return found


def name(stage: int) -> str:
    """A stage in words."""
    number, half = divmod(stage, 2)
    who = "proxies" if half else "nodes"
    return f"canary {who}" if number == 0 else f"wave {number}, {who}"


def _in_order(nodes: Sequence[Node]) -> list[Node]:
    # What is not in service goes first: the others may need it as a peer.
    work = [node for node in nodes if node.work]
    return sorted(work, key=lambda node: (node.running, node.minion))
