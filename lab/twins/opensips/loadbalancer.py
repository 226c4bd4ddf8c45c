"""load_balancer: destinations with resources that calls take up."""

from typing import Any

from context import Context
from engine import Engine
from errors import MiError, TableError


class LoadBalancer:
    """Destinations by their order; one that MI disabled stays so over a reload."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine._database("load_balancer")
        self._database.check_version("load_balancer")
        self._disabled: set[tuple[str, str]] = set()  # group and URI
        self._loads: dict[tuple[str, str], int] = {}
        self._rows = self._database.rows("load_balancer")

    def _key(self, row: dict[str, str]) -> tuple[str, str]:
        return row["group_id"], row["dst_uri"]

    def _find(self, number: int) -> dict[str, str]:
        try:
            return next(row for row in self._rows if int(row["id"]) == number)
        except StopIteration:
            raise MiError(404, "Destination ID not found") from None

    def do_lb_start(self, context: Context, group: int, resources: str, *_: object) -> int:
        """The enabled destination of a group with the least of its calls."""
        fit = [
            row
            for row in self._rows
            if row["group_id"] == str(group) and self._key(row) not in self._disabled
        ]
        if not fit:
            return -1
        row = min(fit, key=lambda one: self._loads.get(self._key(one), 0))
        self._loads[self._key(row)] = self._loads.get(self._key(row), 0) + 1
        context.destination = row["dst_uri"]
        return 1

    do_load_balance = do_lb_start

    def mi_lb_reload(self) -> Any:
        try:
            self._rows = self._database.rows("load_balancer")
        except TableError:
            raise MiError(500, "Failed to reload") from None
        return "OK"

    def mi_lb_list(self) -> Any:
        shown = []
        for row in self._rows:
            enabled = self._key(row) not in self._disabled
            resources = [
                {"name": name, "max": int(most), "load": 0}
                for name, _, most in (one.partition("=") for one in row["resources"].split(";"))
            ]
            shown.append({
                "uri": row["dst_uri"], "id": int(row["id"]), "group": int(row["group_id"]),
                "enabled": "yes" if enabled else "no",
                "auto-reenable": "on" if enabled else "off", "Resources": resources,
            })  # fmt: skip
        return {"Destinations": shown}

    def mi_lb_status(self, destination_id: int, new_status: int | None = None) -> Any:
        key = self._key(self._find(int(destination_id)))
        if new_status is None:
            return {"enable": "no" if key in self._disabled else "yes"}
        (self._disabled.discard if int(new_status) else self._disabled.add)(key)
        return "OK"
