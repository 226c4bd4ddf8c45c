"""A region in memory: minions with calls, a master's jobs and bus, faults from a seed. No I/O.

The world outlives its controller: a published job runs on when the link is gone, and its return
stays in the job cache, as with Salt. A job id runs once, however often it is published. The world
keeps the books on calls by itself, and writes down in `wrongs` whatever must never be.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

_DRAWN = 4096  # factors of latencies, drawn once
START = 1_800_000_000.0
_STATE = "voice_|-daemon_|-daemon_|-configured"
_BUSY = ['The function "state.apply" is running as PID 4711 and was started at 12:00:00']


class MasterAwayError(Exception):
    """The master does not answer now."""


@dataclass(frozen=True)
class Faults:
    """Seconds, and how often of a thousand something goes wrong on its way."""

    latency: float = 0.15
    apply: float = 8.0
    spread: float = 0.5
    lost_on_bus: int = 0  # the job cache has it
    lost_return: int = 0  # only the minion kept it
    lost_publish: int = 0  # the minion never got it
    doubled: int = 0
    late_publish: int = 0  # said to have failed, and ran
    flaps: int = 0  # checks that fail once
    away: tuple[tuple[float, float], ...] = ()  # the master, from and to (seconds from the start)


@dataclass
class SimNode:
    """A voice node. `ill` is what its new configuration breaks: failing, gateways or boot."""

    role: str
    zone: str = "a"
    pair: str = ""
    calls: int = 0
    capacity: int | None = 1000
    registrations: int = 0
    disruption: str = "restart"
    config: int = 0
    running: bool = True
    paused: bool = False
    mark: str = ""
    ill: str = ""
    dead: bool = False
    withdrawn_on: set[str] = field(default_factory=set)
    leaving: list[float] = field(default_factory=list)
    since: float = START
    applies: int = 0
    runs: int = 0
    restarts: int = 0
    served: bool = True
    taking: bool = False
    out: bool = False


@dataclass(frozen=True)
class Span:
    """A job on one minion, from its publication until the master had its return."""

    minion: str
    fun: str
    about: str
    begun: float
    ended: float


@dataclass
class _Group:
    """The nodes of a role: `offered` calls are shared by those that take calls."""

    names: list[str]
    offered: float = 0.0
    takers: int = 0
    out: int = 0
    allowed: int = 1
    zones: dict[str, int] = field(default_factory=Counter)
    least: int = 10**9


class World:
    """Nodes and the time; `wanted` is the configuration that the states would give."""

    def __init__(
        self,
        nodes: dict[str, SimNode],
        *,
        seed: int = 0,
        faults: Faults | None = None,
        proxies: str = "sip",
        max_out: int = 25,
        mean_call: float = 60.0,
    ) -> None:
        self.nodes, self.faults, self.now = nodes, faults or Faults(), START
        self.wanted, self.proxies, self.mean_call = 1, proxies, mean_call
        self.random = Random(seed)
        spread = self.faults.spread
        self._spread = [self.random.lognormvariate(0.0, spread) for _ in range(_DRAWN)]
        self.cut = self.ended = self.refused = 0
        self.wrongs: list[str] = []
        self.attempt = 1
        self.applied_in: Counter[tuple[int, str]] = Counter()
        self.spans: list[Span] = []
        self.idle: dict[str, float] = {}  # when the last call of a node that was drained ended
        self.cache: dict[str, dict[str, dict[str, Any]]] = {}
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._running: set[tuple[str, str]] = set()
        self._stating: dict[str, str] = {}
        self._events: list[tuple[float, int, str, str, str, tuple[Any, ...]]] = []
        self._count = 0
        self.groups: dict[str, _Group] = {}
        for name, node in nodes.items():
            self.groups.setdefault(node.role, _Group([])).names.append(name)
            node.served = node.running and not node.paused
        for group in self.groups.values():
            size = len(group.names)
            group.allowed = max(1, min(size - 1, size * max_out // 100))
            group.offered = sum(self.nodes[name].calls for name in group.names)
            for name in group.names:
                self._moved(name)
            group.least = group.takers

    # What the master's agent is asked

    def minions(self) -> dict[str, list[str]]:
        """Minion ids by the state of their key."""
        return {"accepted": sorted(self.nodes), "pending": [], "denied": []}

    def fleet(self) -> dict[str, dict[str, Any]]:
        """Who there should be, by minion id, and whose key is accepted."""
        return {
            name: {"role": node.role, "zone": node.zone, "pair": node.pair, "key": "accepted"}
            for name, node in self.nodes.items()
        }

    def publish(
        self, jid: str, targets: list[str], fun: str, args: list[Any], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Give a job to minions; MasterAwayError when it is away, or when it only says so."""
        self._present()
        for minion in targets:
            if (jid, minion) in self._seen or minion not in self.nodes:
                continue
            self._seen.add((jid, minion))
            if not self._happens(self.faults.lost_publish) and not self.nodes[minion].dead:
                self._running.add((jid, minion))
                self._after(self._delay(), "begin", minion, jid, (fun, args, kwargs, self.now))
        if self._happens(self.faults.late_publish):
            raise MasterAwayError("the publish timed out")
        return {"jid": jid, "minions": [one for one in targets if one in self.nodes]}

    def lookup(self, jid: str, minions: list[str] | None = None) -> dict[str, dict[str, Any]]:
        """Returns of a job in the job cache, which can be read while the master is away."""
        found = self.cache.get(jid, {})
        if minions is None:
            return dict(found)
        return {minion: found[minion] for minion in minions if minion in found}

    def _present(self) -> None:
        if (until := self._away()) is not None:
            raise MasterAwayError(f"the master is away for {until - self.now:.0f} s more")

    def _away(self) -> float | None:
        if not self.faults.away:
            return None
        since = self.now - START
        return next((START + to for of, to in self.faults.away if of <= since < to), None)

    # Time

    def due(self) -> float | None:
        """When something happens next by itself."""
        return self._events[0][0] if self._events else None

    def advance(self, until: float) -> list[dict[str, Any]]:
        """Let time pass; what the bus carries meanwhile."""
        carried: list[dict[str, Any]] = []
        while self._events and self._events[0][0] <= until:
            at, _, kind, minion, jid, rest = heappop(self._events)
            self.now = max(self.now, at)
            if kind == "die":
                self.nodes[minion].dead = True
                self._running = {one for one in self._running if one[1] != minion}
                self._stating.pop(minion, None)
            elif kind == "wake":
                self.nodes[minion].dead = False
            elif kind == "return":
                self._deliver(minion, jid, rest, carried)
            elif (jid, minion) in self._running:  # not lost with its minion
                (self._starts if kind == "begin" else self._ends)(minion, jid, *rest)
        self.now = max(self.now, until)
        return carried

    def dies(self, minion: str, after: float, back: float | None = None) -> None:
        """Have a minion's process end, and perhaps come back; the daemon goes on."""
        self._after(after, "die", minion, "", ())
        if back is not None:
            self._after(back, "wake", minion, "", ())

    def _after(self, seconds: float, kind: str, minion: str, jid: str, rest: Any) -> None:
        self._count += 1
        heappush(self._events, (self.now + seconds, self._count, kind, minion, jid, rest))

    def _delay(self, median: float = 0.0) -> float:
        typical = median or self.faults.latency / 2
        return typical * self._spread[int(self.random.random() * _DRAWN)]

    def _happens(self, of_thousand: int) -> bool:
        return bool(of_thousand) and self.random.random() * 1000 < of_thousand

    # Jobs

    def _starts(self, minion: str, jid: str, fun: str, args: Any, kwargs: Any, at: float) -> None:
        seconds, rest = 0.0, (fun, args, kwargs, at)
        if fun == "state.apply":
            if minion in self._stating:
                self._answer(minion, jid, _BUSY, 1, rest)
                return
            self._stating[minion] = jid
            seconds = self._delay(self.faults.apply * (0.5 if kwargs.get("test") else 1.0))
            if not kwargs.get("test"):
                self._may_apply(minion)
        if seconds:
            self._after(seconds, "end", minion, jid, rest)
        else:
            self._ends(minion, jid, *rest)

    def _ends(self, minion: str, jid: str, fun: str, args: Any, kwargs: Any, at: float) -> None:
        if self._stating.get(minion) == jid:
            del self._stating[minion]
        value = self._execute(minion, fun, args, kwargs)
        self._answer(minion, jid, value, 0, (fun, args, kwargs, at))

    def _answer(self, minion: str, jid: str, value: Any, code: int, job: tuple[Any, ...]) -> None:
        self._running.discard((jid, minion))
        entry = {"value": value, "retcode": code}
        self._kept[jid, minion] = entry
        if not self._happens(self.faults.lost_return):
            self._after(self._delay(), "return", minion, jid, (entry, job))

    def _deliver(
        self, minion: str, jid: str, rest: tuple[Any, ...], carried: list[dict[str, Any]]
    ) -> None:
        if (until := self._away()) is not None:  # minions try again when it is back
            self._after(until - self.now + self._delay(), "return", minion, jid, rest)
            return
        entry, (fun, args, _, at) = rest
        about = str(args[0]) if args and fun != "state.apply" else ""
        self.spans.append(Span(minion, str(fun), about, at, self.now))
        self.cache.setdefault(jid, {})[minion] = entry
        if not self._happens(self.faults.lost_on_bus):
            event = {"event": "return", "jid": jid, "minion": minion, **entry}
            carried.extend([event, event] if self._happens(self.faults.doubled) else [event])

    def _execute(self, minion: str, fun: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        known = {
            "test.ping": lambda: True,
            "saltutil.refresh_pillar": lambda: True,
            "saltutil.sync_all": dict,
            "saltutil.find_job": lambda: self._found(minion, args[0]),
            "saltutil.find_cached_job": lambda: self._cached(minion, args[0]),
            "pillar.get": lambda: self._pillar(minion, args[0]),
            "state.apply": lambda: self._state(minion, test=bool(kwargs.get("test"))),
            "survey.node": lambda: {
                "service": self._in_service(minion),
                "run": self._state(minion, test=True),
            },
        }
        if fun in known:
            return known[fun]()
        return getattr(self, f"_{fun.removeprefix('voice.')}")(minion, *args, **kwargs)

    def _found(self, minion: str, jid: str) -> dict[str, Any]:
        return {"jid": jid} if (jid, minion) in self._running else {}

    def _cached(self, minion: str, jid: str) -> dict[str, Any]:
        found = self._kept.get((jid, minion))
        return {"return": found["value"], "retcode": found["retcode"]} if found else {}

    def _pillar(self, minion: str, key: str) -> Any:
        if key == "fleet":
            return {name.partition(".")[0]: one for name, one in self.fleet().items()}
        return self.fleet()[minion]

    # voice.*

    def calls(self, node: SimNode) -> int:
        """Calls that are up on a node now."""
        left = len(node.leaving) - bisect_right(node.leaving, self.now) if node.leaving else 0
        group = self.groups[node.role]
        return left + (round(group.offered / group.takers) if node.taking else 0)

    def _in_service(self, minion: str) -> dict[str, Any]:
        node = self.nodes[minion]
        calls = self.calls(node) if node.running else 0
        state = "in_service" if node.running and not node.paused else "out_of_service"
        if node.running and node.paused and calls:
            state = "draining"
        mark = {"since": "", "by": node.mark} if node.mark else None
        return {"state": state, "daemon": "freeswitch", "running": node.running, "calls": calls,
                "paused": node.paused, "drained_mark": mark, "why": state,
                "registrations": node.registrations}  # fmt: skip

    def _load(self, minion: str) -> dict[str, Any]:
        node = self.nodes[minion]
        return {"calls": self.calls(node), "registrations": node.registrations}

    def _capacity(self, minion: str) -> dict[str, Any]:
        return {"calls": self.nodes[minion].capacity, "registrations": None}

    def _measures(self, minion: str) -> dict[str, Any]:
        node = self.nodes[minion]
        attempts = int(max(0.0, self.now - node.since) * 2) if node.taking else 0
        ill = node.ill if node.config == self.wanted else ""
        return {
            "since": f"{node.since:.3f}",
            "attempts": attempts,
            "failed": attempts * (30 if ill == "failing" else 1) // 100,
            "registrations": node.registrations,
            "gateways_down": ["carrier"] if ill == "gateways" else [],
            "calls": self.calls(node),
        }

    def _trial(self, minion: str, peer: str, calls: int = 3) -> dict[str, Any]:
        node = self.nodes[peer]
        ok = node.running and not node.paused
        return _checked(ok, "trial", f"{calls} calls to {peer}", "503 Service Unavailable")

    def _checks(self, minion: str) -> dict[str, Any]:
        ok = self.nodes[minion].running and not self._happens(self.faults.flaps)
        return _checked(ok, "daemon", "runs", "does not answer")

    def _end_calls(self, minion: str, by: str = "") -> dict[str, Any]:
        node = self.nodes[minion]
        ended, node.leaving = self.calls(node), []
        self.ended += ended
        return {"result": True, "ended": ended}

    def _drain(self, minion: str, timeout: int = 0, by: str = "") -> dict[str, Any]:
        node = self.nodes[minion]
        if not node.paused and node.running and node.config != self.wanted:
            self._unrouted(minion, "drained")
        node.paused, node.mark = True, node.mark or by
        self._moved(minion)
        left = self.calls(node)
        return {"drained": left == 0, "calls": left, "stuck": []}

    def _undrain(self, minion: str) -> dict[str, Any]:
        node = self.nodes[minion]
        node.paused, node.mark = False, ""
        self._moved(minion)
        return {"result": True, "action": "undrain"}

    def _withdraw(self, minion: str, peer: str, by: str = "") -> dict[str, Any]:
        self.nodes[peer].withdrawn_on.add(minion)
        self._moved(peer)
        return {"result": True}

    def _restore(self, minion: str, peer: str) -> dict[str, Any]:
        node = self.nodes[peer]
        if node.paused and node.served and minion in node.withdrawn_on:
            self._wrong(f"{peer}: calls are sent to it while it refuses them")
        node.withdrawn_on.discard(minion)
        self._moved(peer)
        return {"result": True}

    def _moved(self, name: str) -> None:
        """Books after a change: who takes calls, whose calls are left to end, who is out."""
        node, group = self.nodes[name], self.groups[self.nodes[name].role]
        taking = node.running and not node.paused and self._routed(node)
        if taking != node.taking:
            share = round(group.offered / group.takers) if node.taking else 0
            node.taking = taking
            group.takers += 1 if taking else -1
            group.zones[node.zone] += 1 if taking else -1
            group.least = min(group.least, group.takers)
            mean = 1 / self.mean_call
            node.leaving = sorted(
                [at for at in node.leaving if at > self.now]
                + [self.now + self.random.expovariate(mean) for _ in range(share)]
            )
            if not taking:
                self.idle[name] = node.leaving[-1] if node.leaving else self.now
        out = node.served and (node.paused or bool(node.withdrawn_on))
        if out != node.out:
            node.out = out
            group.out += 1 if out else -1
            if out:
                self._may_be_out(name, node, group)

    def _routed(self, node: SimNode) -> bool:
        if node.role == self.proxies or not node.withdrawn_on:
            return True
        names = self.groups[self.proxies].names
        return any(self.nodes[one].running and one not in node.withdrawn_on for one in names)

    # What must never be

    def _wrong(self, what: str) -> None:
        self.wrongs.append(f"{self.now - START:.1f} s: {what}")

    def _may_be_out(self, name: str, node: SimNode, group: _Group) -> None:
        if group.out > group.allowed:
            self._wrong(f"{name}: {group.out} of {node.role} are out, {group.allowed} may be")
        stay = [self.nodes[one] for one in group.names if one != name and self.nodes[one].served]
        available = [one for one in stay if not one.out]
        if stay and not available:
            self._wrong(f"{name}: nobody of {node.role} is left")
        if node.pair and any(one.out and one.pair == node.pair for one in stay):
            self._wrong(f"{name}: both of pair {node.pair} are out")
        peers = [one for one in stay if one.zone == node.zone]
        if peers and not any(not one.out for one in peers):
            self._wrong(f"{name}: nobody of {node.role} is left in zone {node.zone}")
        if all(one.capacity is not None for one in available):
            room = sum(one.capacity or 0 for one in available)
            if room < group.offered:
                self._wrong(f"{name}: room for {room} calls, {group.offered:.0f} are up")

    def _unrouted(self, name: str, what: str) -> None:
        node = self.nodes[name]
        if node.role == self.proxies or not node.served:
            return
        names = self.groups[self.proxies].names if self.proxies in self.groups else []
        routed = [one for one in names if self.nodes[one].running and not self.nodes[one].dead]
        if any(one not in node.withdrawn_on for one in routed):
            self.refused += 1
            self._wrong(f"{name}: {what} while calls are sent to it")

    def _may_apply(self, minion: str) -> None:
        self.applied_in[self.attempt, minion] += 1
        if self.applied_in[self.attempt, minion] > 1:
            self._wrong(f"{minion}: applied twice in one attempt")

    def _state(self, minion: str, *, test: bool) -> dict[str, Any]:
        node = self.nodes[minion]
        node.runs += not test
        entry: dict[str, Any] = {"result": True, "comment": "as wanted", "changes": {}}
        if node.config == self.wanted and node.running:
            return {_STATE: entry}
        changes = {"disruption": node.disruption, "why": [f"config: -> {self.wanted}"]}
        if test:
            return {_STATE: {"result": None, "comment": "would change", "changes": changes}}
        restarts = node.disruption == "restart"
        in_service = node.running and not (node.paused and self.calls(node) == 0)
        if restarts and in_service:
            # The real state refuses; that guardian asked for it is wrong all the same.
            self._wrong(f"{minion}: applied while it is in service")
            self.cut += self.calls(node)
        if restarts:
            self._unrouted(minion, "restarted")
        if node.ill == "boot":
            node.running = False
            self._moved(minion)
            return {_STATE: {"result": False, "comment": "does not boot", "changes": {}}}
        node.applies += 1
        if restarts:
            node.restarts += 1
            node.since = self.now
        node.config, node.running = self.wanted, True
        self._moved(minion)
        return {_STATE: {"result": True, "comment": "changed", "changes": changes}}

    def truth(self) -> dict[str, Any]:
        """What became of the region, for whoever cannot look at it."""
        return {
            "now": self.now,
            "wrongs": self.wrongs,
            "cut": self.cut,
            "ended": self.ended,
            "refused": self.refused,
            "doubled": sorted(one for one, node in self.nodes.items() if node.applies > 1),
            "drained": sorted(one for one, node in self.nodes.items() if node.paused),
            "withdrawn": sorted(one for one, node in self.nodes.items() if node.withdrawn_on),
            "configs": {one: node.config for one, node in self.nodes.items()},
            "runs": {one: node.runs for one, node in self.nodes.items()},
        }


def region(spec: dict[str, Any]) -> World:
    """A world from plain data: {"nodes": {name: {...}}, "faults": {...}, ...}."""
    nodes = {name: SimNode(**one) for name, one in spec["nodes"].items()}
    more = {key: value for key, value in spec.items() if key not in ("nodes", "faults")}
    return World(nodes, faults=Faults(**spec.get("faults", {})), **more)


def plain(faults: Faults) -> dict[str, Any]:
    """Faults as data that travels."""
    return asdict(faults)


def _checked(ok: bool, name: str, fine: str, bad: str) -> dict[str, Any]:
    return {"result": ok, "checks": [{"name": name, "ok": ok, "detail": fine if ok else bad}]}
