"""rtpengine: the control sockets and which are in use; nobody answers them in the lab."""

import os
from dataclasses import dataclass
from typing import Any

from context import Context
from engine import Engine
from errors import MiError, TableError

_NEVER = 4_294_967_295
_ABORTED = 134


@dataclass
class Node:
    """A control socket; `disabled` by MI is not for a time."""

    url: str
    number: int
    by_mi: bool = False


class Rtpengine:
    """The sets; a `soft` reload keeps what MI has disabled, any other tears all down."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sets: dict[int, list[Node]] = {}
        self._database = None
        if engine.config.parameter("rtpengine", "db_url", ""):
            self._database = engine._database("rtpengine")
            self._database.check_version("rtpengine")
            self._load(soft=False)

    def _load(self, *, soft: bool) -> None:
        assert self._database
        known = {node.url: node for nodes in self._sets.values() for node in nodes}
        sets: dict[int, list[Node]] = {}
        for number, row in enumerate(self._database.rows("rtpengine")):
            node = Node(row["socket"], number)
            if soft and row["socket"] in known:
                node.by_mi = known[row["socket"]].by_mi
            sets.setdefault(int(row["set_id"]), []).append(node)
        self._sets = sets

    def do_rtpengine_offer(self, context: Context, *_: object) -> int:
        return -1

    do_rtpengine_answer = do_rtpengine_delete = do_rtpengine_manage = do_rtpengine_offer

    def do_rtpengine_use_set(self, context: Context, number: int) -> int:
        return 1 if int(number) in self._sets else -1

    def mi_rtpengine_reload(self, type: str = "") -> Any:
        try:
            self._load(soft=type == "soft")
        except TableError as err:
            self._engine.log.critical("%s", err)
            os._exit(_ABORTED)  # as measured: the process aborts, and the daemon ends with it
        return "OK"

    def mi_rtpengine_show(self) -> Any:
        return [
            {
                "Set": number,
                "Nodes": [
                    {"url": node.url, "index": node.number, "disabled": 1, "weight": 1,
                     "recheck_ticks": _NEVER if node.by_mi else 60}
                    for node in nodes
                ],
            }
            for number, nodes in self._sets.items()
        ]  # fmt: skip

    def mi_rtpengine_enable(self, url: str, enable: int, setid: int | None = None) -> Any:
        found = [node for nodes in self._sets.values() for node in nodes if node.url == url]
        if not found:
            raise MiError(404, "RTP engine not found")
        for node in found:
            node.by_mi = not int(enable)
        return "OK"
