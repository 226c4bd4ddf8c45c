"""drouting: gateways by prefix, with the states that MI and pings give them."""

import re
from typing import Any

from context import Context
from engine import Engine
from errors import MiError, TableError

_TABLES = ("dr_gateways", "dr_carriers", "dr_rules", "dr_groups")
_GATEWAY_STATES = {"0": "Active", "1": "Disabled MI", "2": "Probing"}
Rows = dict[str, dict[str, str]]


class Routing:
    """Gateways, carriers and rules; states survive a reload unless it is told otherwise."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine._database("drouting")
        for table in _TABLES:
            self._database.check_version(table)
        self.gateways: Rows = {}
        self.carriers: Rows = {}
        self.rules: list[dict[str, str]] = []
        name = str(engine.config.parameter("drouting", "gw_id_avp", ""))
        self._gateway_avp = "".join(re.findall(r"avp\(([^)]+)\)", name))
        self._load(inherit=False)

    def _load(self, *, inherit: bool) -> None:
        gateways, carriers, rules, _ = (self._database.rows(table) for table in _TABLES)
        made = {row["gwid"]: dict(row) for row in gateways}
        made_carriers = {row["carrierid"]: dict(row) for row in carriers}
        for old, new in ((self.gateways, made), (self.carriers, made_carriers)):
            for name in old.keys() & new.keys() if inherit else ():
                new[name]["state"] = old[name]["state"]
        self.gateways, self.carriers, self.rules = made, made_carriers, rules

    # script

    def do_do_routing(self, context: Context, group: int | str | None = None, *_: object) -> int:
        """The first usable gateway of the rule with the longest prefix."""
        number = context.request.uri.partition(":")[2].partition("@")[0]
        found = self._route(number, str(group or 0))
        if not found:
            return -1
        context.avps["drouting gateways"] = [*found[1]]
        return self._take(context)

    def do_use_next_gw(self, context: Context, *_: object) -> int:
        return self._take(context)

    def do_goes_to_gw(self, context: Context, *_: object) -> int:
        where = (context.destination or context.request.uri).partition("@")[2]
        return 1 if any(gateway["address"] in where for gateway in self.gateways.values()) else -1

    def do_is_from_gw(self, context: Context, *_: object) -> int:
        hosts = {gateway["address"].partition(":")[0] for gateway in self.gateways.values()}
        return 1 if context.source.host in hosts else -1

    def _take(self, context: Context) -> int:
        left = context.avps.get("drouting gateways", [])
        while left:
            name = str(left.pop(0))
            gateway = self.gateways.get(name)
            if gateway is None or gateway["state"] != "0":
                continue
            first = context.original_uri or context.request.uri
            context.original_uri = first
            user = first.partition(":")[2].partition("@")[0][int(gateway["strip"] or 0) :]
            address = gateway["address"].removeprefix("sip:")
            context.request.uri = f"sip:{gateway['pri_prefix']}{user}@{address}"
            context.destination = ""
            if self._gateway_avp:
                context.avps[self._gateway_avp] = [name]
            return 1
        return -1

    def _route(self, number: str, group: str) -> tuple[str, list[str]] | None:
        fit = [
            rule
            for rule in self.rules
            if group in re.split("[,;]", rule["groupid"]) and number.startswith(rule["prefix"])
        ]
        if not fit:
            return None
        rule = max(fit, key=lambda one: (len(one["prefix"]), int(one["priority"] or 0)))
        return rule["prefix"], self._gateways_of(rule["gwlist"])

    def _gateways_of(self, text: str) -> list[str]:
        names: list[str] = []
        for word in re.split("[,;]", text):
            name = word.partition("=")[0]
            if not name.startswith("#"):
                names.append(name)
            elif self.carriers.get(name[1:], {}).get("state", "1") == "0":
                names += self._gateways_of(self.carriers[name[1:]]["gwlist"])
        return names

    # management

    def mi_dr_reload(self, partition_name: str | None = None, inherit_state: str = "y") -> Any:
        try:
            self._load(inherit=inherit_state.lower() != "n")
        except TableError:
            raise MiError(500, "Failed to reload") from None
        return "OK"

    def mi_dr_gw_status(
        self, gw_id: str | None = None, status: int | None = None, partition_name: str | None = None
    ) -> Any:
        if gw_id is None:
            return {
                "Gateways": [
                    {"ID": name, "IP": row["address"], "State": _GATEWAY_STATES[row["state"]]}
                    for name, row in self.gateways.items()
                ]
            }
        row = self.gateways.get(gw_id)
        if row is None:
            raise MiError(404, "GW ID not found")
        if status is None:
            return {"State": _GATEWAY_STATES[row["state"]]}
        row["state"] = "0" if int(status) else "1"
        return "OK"

    def mi_dr_carrier_status(
        self,
        carrier_id: str | None = None,
        status: int | None = None,
        partition_name: str | None = None,
    ) -> Any:
        if carrier_id is None:
            return {
                "Carriers": [
                    {"ID": name, "Enabled": "yes" if row["state"] == "0" else "no "}
                    for name, row in self.carriers.items()
                ]
            }
        row = self.carriers.get(carrier_id)
        if row is None:
            raise MiError(404, "Carrier ID not found")
        if status is None:
            return {"Enabled": "yes" if row["state"] == "0" else "no "}
        row["state"] = "0" if int(status) else "1"
        return "OK"

    def mi_dr_number_routing(self, number: str, group_id: int = 0) -> Any:
        found = self._route(str(number), str(group_id))
        if found is None:
            return {}
        return {"Matched Prefix": found[0], "GW List": [{"GATEWAY": name} for name in found[1]]}

    def mi_dr_reload_status(self, partition_name: str | None = None) -> Any:
        return {"Date": "today"}
