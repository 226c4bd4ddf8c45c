"""dialplan: numbers translated by rules; a broken rule is passed over without a word to MI."""

import re
from typing import Any

from context import Context
from engine import Engine
from errors import MiError, TableError
from values import Reference


class Dialplan:
    """The rules by plan id."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine._database("dialplan")
        self._database.check_version("dialplan")
        self._rules: dict[int, list[dict[str, str]]] = {}
        self._load()

    def _load(self) -> None:
        rows = self._database.rows("dialplan")
        rules: dict[int, list[dict[str, str]]] = {}
        for row in sorted(rows, key=lambda one: int(one["pr"] or 0)):
            try:
                for expression in (row["match_exp"], row["subst_exp"]):
                    re.compile(expression)
            except re.error as err:
                self._engine.log.error("ERROR:dialplan:build_rule: %s", err)
                continue
            if row["disabled"] in ("0", ""):
                rules.setdefault(int(row["dpid"]), []).append(row)
        self._rules = rules

    def _translate(self, plan: int, text: str) -> tuple[str, str] | None:
        for row in self._rules[plan]:
            if row["match_op"] == "1":
                fits = re.search(row["match_exp"], text) is not None
            else:
                fits = row["match_exp"] == text
            if fits:
                out = re.search(row["subst_exp"], text) if row["subst_exp"] else None
                return (out.expand(row["repl_exp"]) if out else row["repl_exp"] or text,
                        row["attrs"])  # fmt: skip
        return None

    def do_dp_translate(
        self, context: Context, plan: int, text: str, out: Reference | None = None, *_: object
    ) -> int:
        found = self._translate(int(plan), str(text)) if int(plan) in self._rules else None
        if found is None:
            return -1
        if out is not None:
            out.set(found[0])
        return 1

    def mi_dp_reload(self, partition: str | None = None) -> Any:
        try:
            self._load()
        except TableError:
            raise MiError(-32000, "Server error") from None
        return "OK"

    def mi_dp_translate(self, dpid: int, input: str, partition: str | None = None) -> Any:
        if int(dpid) not in self._rules:
            raise MiError(404, "No information available for dpid")
        found = self._translate(int(dpid), str(input))
        if found is None:
            raise MiError(404, "No translation")
        return {"Output": found[0], "ATTRIBUTES": found[1]}
