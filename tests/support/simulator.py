"""A master and its minions in memory, on a virtual clock, for rollouts that die and go on.

The world outlives the controller: a job that was published runs on when the link is gone, and its
return stays in the job cache, as with Salt. A job id runs once, however often it is published.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from guardian.fleet.master import Job, Outcome


@dataclass
class SimNode:
    """A voice node: its calls end at `rate` a second once it is paused."""

    role: str
    calls: float = 0
    capacity: int = 1000
    config: int = 0
    running: bool = True
    paused: bool = False
    withdrawn: set[str] = field(default_factory=set)
    runs: int = 0
    applies: int = 0
    restarts: int = 0
    cut: float = 0
    broken: bool = False
    dead: bool = False


class World:
    """Nodes, time and the job cache. `wanted` is the configuration the states would give."""

    def __init__(self, nodes: dict[str, SimNode], wanted: int = 1, disruption: str = "restart"):
        self.nodes, self.wanted, self.disruption = nodes, wanted, disruption
        self.now = 1_800_000_000.0
        self.rate = 2.0
        self.least_available: dict[str, int] = {}
        self.returns: dict[tuple[str, str], tuple[Any, int]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._events: list[tuple[float, int, str, Job]] = []
        self._count = 0
        self._watch()

    def publish(self, job: Job) -> None:
        for minion in job.targets:
            if (job.jid, minion) in self._seen or self.nodes[minion].dead:
                continue
            self._seen.add((job.jid, minion))
            self._count += 1
            seconds = 4.0 if job.fun == "state.apply" else 0.1
            heappush(self._events, (self.now + seconds, self._count, minion, job))

    def pending(self, jid: str, minion: str) -> bool:
        return any(one.jid == jid and node == minion for _, _, node, one in self._events)

    def advance(self, until: float) -> None:
        """Let time pass, up to `until` or to just after the next return."""
        target = min(until, self._events[0][0]) if self._events else until
        for node in self.nodes.values():
            if node.paused:
                node.calls = max(0.0, node.calls - self.rate * (target - self.now))
        self.now = max(self.now, target)
        while self._events and self._events[0][0] <= self.now:
            _, _, minion, job = heappop(self._events)
            self.returns[job.jid, minion] = self._execute(minion, job)
            self._watch()

    def _watch(self) -> None:
        for role in {node.role for node in self.nodes.values()}:
            up = sum(
                node.running and not node.paused and not any(
                    name in proxy.withdrawn for proxy in self.nodes.values()
                )
                for name, node in self.nodes.items()
                if node.role == role
            )  # fmt: skip
            self.least_available[role] = min(up, self.least_available.get(role, up))

    def _execute(self, minion: str, job: Job) -> tuple[Any, int]:
        node = self.nodes[minion]
        if job.fun == "state.apply":
            return self._state(node, test=bool(job.kwargs.get("test"))), 0
        answers: dict[str, Any] = {
            "voice.load": {"calls": int(node.calls), "registrations": 0},
            "voice.capacity": {"calls": node.capacity},
            "voice.checks": {"result": node.running and not node.broken, "checks": []},
        }
        if job.fun == "voice.drain":
            node.paused = True
            left = int(-(-node.calls // 1))
            return {"drained": left == 0, "calls": left, "stuck": []}, 0
        if job.fun == "voice.undrain":
            node.paused = False
        elif job.fun == "voice.withdraw":
            node.withdrawn.add(job.args[0])
        elif job.fun == "voice.restore":
            node.withdrawn.discard(job.args[0])
        return answers.get(job.fun, {"result": True}), 0

    def _state(self, node: SimNode, *, test: bool) -> dict[str, Any]:
        node.runs += not test
        entry: dict[str, Any] = {"result": True, "comment": "as wanted", "changes": {}}
        if node.config != self.wanted or not node.running:
            changes = {"disruption": self.disruption, "why": [f"config: -> {self.wanted}"]}
            entry = {"result": None if test else True, "comment": "changed", "changes": changes}
            in_service = node.running and not (node.paused and node.calls == 0)
            if not test and self.disruption == "restart" and in_service:
                entry = {"result": False, "comment": "restart needed", "changes": {}}
            elif not test and node.broken:
                entry = {"result": False, "comment": "does not boot", "changes": {}}
            elif not test:
                node.applies += 1
                if self.disruption == "restart":
                    node.restarts += 1
                    node.cut += node.calls
                node.config, node.running = self.wanted, True
        return {"voice_|-daemon_|-daemon_|-configured": entry}


class SimLink:
    """guardian's link to a World; another one to the same world is a restarted controller."""

    def __init__(self, world: World, patience: float = 60.0) -> None:
        self._world, self._patience = world, patience
        self._watched: dict[tuple[str, str], float] = {}

    def minions(self) -> dict[str, list[str]]:
        return {"accepted": sorted(self._world.nodes), "pending": [], "denied": []}

    def renew(self, workspace: str) -> None:
        pass

    def submit(self, job: Job) -> None:
        self._world.publish(job)
        self.attach(job)

    def attach(self, job: Job) -> None:
        for minion in job.targets:
            self._watched[job.jid, minion] = self._world.now

    def poll(self, timeout: float) -> list[Outcome]:
        world = self._world
        found = self._collect()
        if not found:
            world.advance(world.now + timeout)
            found = self._collect()
        return found

    def _collect(self) -> list[Outcome]:
        world, found = self._world, []
        for (jid, minion), since in list(self._watched.items()):
            if (jid, minion) in world.returns:
                found.append(Outcome(jid, minion, True, *world.returns[jid, minion]))
            elif not world.pending(jid, minion) and world.now - since > self._patience:
                found.append(Outcome(jid, minion, False, "the minion does not answer", 1))
            else:
                continue
            del self._watched[jid, minion]
        return found
