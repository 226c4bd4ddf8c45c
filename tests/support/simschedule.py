"""How long a rollout must take at least: the critical path of its schedule, given what calls took.

What has to wait for what is policy, and is taken as given: stages one after another, in a stage
each role's nodes in their order, at most so many of a set out at once, so many in hand at once, one
canary of a role at a time. How long things take is the world's: each job from its publication until
the master had its return, a drain until its node's last call had ended (guardian looks only every
`poll` seconds: that costs it), a soak as long as it is set to be. What guardian adds - its own
processor time, its looks at the clock, slots that stay free - is the rest of the wall time.
"""

from collections import defaultdict
from heapq import heappop, heappush, heapreplace

from guardian.config import Rollout as Settings
from tests.support.simrun import Result
from tests.support.simulator import START, Span, World

_ONCE = ("state.apply", "voice.checks", "voice.undrain", "voice.trial")


def critical_path(result: Result, settings: Settings) -> float:
    """Seconds; of a rollout that neither failed nor was halted."""
    world = result.world
    spans = _by_node(world)
    total = 0.0
    for number, stage in enumerate(result.stages):
        total += _stage(world, stage, spans, settings, canaries=number == 0 or not total)
    return total


def wall(result: Result) -> float:
    """Seconds that the rollout took."""
    return result.world.now - START


def _by_node(world: World) -> dict[str, dict[str, list[Span]]]:
    """Each node's own jobs by function; those on proxies that are about it count as its own."""
    found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for span in world.spans:
        about = span.fun in ("voice.withdraw", "voice.restore", "voice.trial")
        found[span.about if about else span.minion][span.fun].append(span)
    return found


def _stage(
    world: World,
    names: list[str],
    spans: dict[str, dict[str, list[Span]]],
    settings: Settings,
    *,
    canaries: bool,
) -> float:
    """List scheduling: whoever is next takes the slot that is free first."""
    by_role: dict[str, list[str]] = defaultdict(list)
    moved = {name: _moved(spans[name]) for name in names if name in spans}
    for name in sorted((one for one in moved if moved[one]), key=lambda one: moved[one]):
        by_role[world.nodes[name].role].append(name)
    slots = {
        role: [0.0] * (1 if canaries else max(1, world.groups[role].allowed)) for role in by_role
    }
    hands: list[float] = []
    end = 0.0
    # The roles share the hands: earliest possible start first.
    queue: list[tuple[float, str]] = []
    for role in by_role:
        heappush(queue, (0.0, role))
    place = dict.fromkeys(by_role, 0)
    while queue:
        ready, role = heappop(queue)
        name = by_role[role][place[role]]
        restarts = "voice.drain" in spans[name]
        began = max(ready, slots[role][0]) if restarts or canaries else ready
        if len(hands) >= settings.in_flight:
            began = max(began, heappop(hands))
        out, whole = _lasts(world, name, spans[name], settings)
        if restarts or canaries:
            heapreplace(slots[role], began + (whole if canaries else out))
        heappush(hands, began + whole)
        end = max(end, began + whole)
        place[role] += 1
        if place[role] < len(by_role[role]):
            heappush(queue, (slots[role][0] if restarts or canaries else 0.0, role))
    return end


def _moved(own: dict[str, list[Span]]) -> float:
    """When something was first done to a node; 0 for one that was only asked."""
    funs = ("voice.withdraw", "voice.drain", "state.apply", "voice.undrain")
    return min((span.begun for fun in funs for span in own.get(fun, [])), default=0.0)


def _lasts(
    world: World, name: str, own: dict[str, list[Span]], settings: Settings
) -> tuple[float, float]:
    """Seconds that a node is out of its set, and that it is in hand, when nothing is wasted."""

    def took(fun: str) -> float:
        # All targets of one job, published at one time; the last of them counts.
        jobs = own.get(fun, [])
        first = [span for span in jobs if span.begun == jobs[0].begun]
        return max((span.ended - span.begun for span in first), default=0.0)

    drain = 0.0
    if own.get("voice.drain"):
        withdrawn = max((span.ended for span in own.get("voice.withdraw", [])), default=None)
        begun = own["voice.drain"][0].begun if withdrawn is None else withdrawn
        drain = max(took("voice.drain"), world.idle[name] - begun)
    out = took("voice.withdraw") + drain + sum(took(fun) for fun in _ONCE) + took("voice.restore")
    again = took("voice.checks") if settings.soak else 0.0
    return out, out + settings.soak + again
