"""`callcenter_config`: what mod_callcenter keeps of its file, and the words it answers with."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from core import Core

_AGENT = "name|instance_id|uuid|type|contact|status|state"


class CallCenter:
    """Queues, agents and tiers; read at a start, then element by element when told to."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._queues: dict[str, dict[str, str]] = {}
        self._agents: dict[str, dict[str, str]] = {}
        self._tiers: dict[tuple[str, str], dict[str, str]] = {}
        for queue in self._found("queues/queue"):
            self._load_queue(queue.get("name", ""))
        for agent in self._found("agents/agent"):
            self._load_agent(agent.get("name", ""))
        for tier in self._found("tiers/tier"):
            self._load_tier(tier.get("queue", ""), tier.get("agent", ""))

    def _found(self, path: str) -> list[ET.Element]:
        configuration = self._core.tree.configuration("callcenter.conf")
        return [] if configuration is None else configuration.findall(path)

    def run(self, text: str) -> str:
        """Answer one command; an agent that is not in the file is +OK, a queue is not."""
        match text.split():
            case ["queue", "list"]:
                return _table("name|strategy", self._queues.items(), always=True)
            case ["queue", "load" | "reload" as how, name]:
                if not self._load_queue(name):
                    return "-ERR Invalid Queue not found!\n"
                if how == "load":
                    self._load_members(name)
                return "+OK\n"
            case ["queue", "unload", name]:
                self._queues.pop(name, None)
                return "+OK\n"
            case ["agent", "list"]:
                return _table(_AGENT, self._agents.items())
            case ["agent", "reload", name]:
                self._load_agent(name)
                return "+OK\n"
            case ["agent", "del", name]:
                self._agents.pop(name, None)
                self._tiers = {key: tier for key, tier in self._tiers.items() if key[1] != name}
                return "+OK\n"
            case ["tier", "list"]:
                rows = ((key[0], {"agent": key[1], **tier}) for key, tier in self._tiers.items())
                return _table("queue|agent|state|level|position", rows)
            case ["tier", "reload", queue, agent]:
                return "+OK\n" if self._load_tier(queue, agent) else "-ERR Unknown Error!\n"
            case ["tier", "del", queue, agent]:
                self._tiers.pop((queue, agent), None)
                return "+OK\n"
        return "-ERR Invalid!\n"

    def _load_queue(self, name: str) -> bool:
        for queue in self._found("queues/queue"):
            if queue.get("name") == name:
                params = {p.get("name", ""): p.get("value", "") for p in queue.iter("param")}
                self._queues[name] = {"strategy": params.get("strategy", "")}
                return True
        return False

    def _load_members(self, queue: str) -> None:
        """The agents and tiers that a queue which is loaded brings along."""
        for tier in self._found("tiers/tier"):
            if tier.get("queue") == queue:
                self._load_agent(tier.get("agent", ""))
                self._load_tier(queue, tier.get("agent", ""))

    def _load_agent(self, name: str) -> None:
        for agent in self._found("agents/agent"):
            if agent.get("name") == name:
                known = self._agents.setdefault(name, {"instance_id": "single_box", "uuid": ""})
                known.update(state="Waiting", **{k: v for k, v in agent.items() if k != "name"})

    def _load_tier(self, queue: str, agent: str) -> bool:
        for tier in self._found("tiers/tier"):
            if (tier.get("queue"), tier.get("agent")) == (queue, agent):
                if agent in self._agents:
                    placed = {key: tier.get(key, "1") for key in ("level", "position")}
                    self._tiers[queue, agent] = {"state": "Ready", **placed}
                return True
        return False


def _table(
    columns: str, rows: Iterable[tuple[str, dict[str, str]]], *, always: bool = False
) -> str:
    """Rows under their columns; without a row only a queue's columns are `always` there."""
    names = columns.split("|")
    lines = [
        "|".join((first, *(fields.get(name, "") for name in names[1:]))) for first, fields in rows
    ]
    return "\n".join([columns, *lines, "+OK"]) + "\n" if lines or always else "+OK\n"
