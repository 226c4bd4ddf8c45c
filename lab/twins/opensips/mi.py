"""The management interface: JSON-RPC 2.0 over a unix datagram socket, as 3.4.18 answers."""

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogue import COMMANDS, NAMES_4
from cfglexer import ConfigError
from cfgparse import parse
from dbtext import TableError
from dispatcher import LETTERS
from engine import Engine
from script import Script

_MAX_BYTES = 65_536
_UNKNOWN = {"code": -32601, "message": "Method not found"}
_BAD_PARAMS = {
    "code": -32602,
    "message": "Invalid params",
    "data": "Too few or too many parameters",
}


class MiError(Exception):
    """An error reply: code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "message": message}


class Management(asyncio.DatagramProtocol):
    """One socket; each datagram is a request, its answer goes to the sender's own path."""

    def __init__(self, engine: Engine, file: Path, version: str) -> None:
        self._engine, self._file, self._version = engine, file, version
        self._transport: asyncio.DatagramTransport | None = None
        self._log = logging.getLogger("mi")
        self.commands = self._available()

    def _available(self) -> dict[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {}
        for module, names in COMMANDS.items():
            if module and module not in self._engine.config.modules:
                continue
            for name in names:
                handler = getattr(self, f"mi_{name}")
                found[name] = handler
                if self._version.startswith("4.") and name in NAMES_4:
                    found[NAMES_4[name]] = handler
        return found

    async def open(self, path: Path, mode: int) -> None:
        """Listen at `path`; what an earlier run left there is replaced."""
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(path))
        path.chmod(mode)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not addr:
            return  # nobody to answer
        answer = self.answer(data)
        if answer is not None and self._transport:
            with contextlib.suppress(OSError):
                self._transport.sendto(json.dumps(answer, separators=(",", ":")).encode(), addr)

    def answer(self, data: bytes) -> dict[str, Any] | None:
        """The reply to one request, None for a notification; never raises for what it is given."""
        try:
            request = json.loads(data[:_MAX_BYTES])
        except (ValueError, RecursionError):
            return _error(None, {"code": -32700, "message": "Parse error"})
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, {"code": -32600, "message": "Invalid Request"})
        number = request.get("id")
        handler = self.commands.get(request["method"])
        if handler is None:
            return _error(number, _UNKNOWN)
        try:
            result = handler(**_named(request.get("params")))
        except TypeError:
            return _error(number, _BAD_PARAMS)
        except MiError as err:
            return _error(number, err.body)
        if "id" not in request:
            return None
        return {"jsonrpc": "2.0", "result": result, "id": number}

    # core

    def mi_version(self) -> Any:
        return {"Server": f"OpenSIPS ({self._version} (x86_64/linux))"}

    def mi_uptime(self) -> Any:
        started = self._engine.started
        return {
            "Now": time.ctime(),
            "Up since": time.ctime(started),
            "Up time": f"{int(time.time() - started)} [sec]",
        }

    def mi_which(self) -> Any:
        return list(self.commands)

    mi_help = mi_which

    def mi_ps(self) -> Any:
        host, port = self._engine.own
        kinds = ("attendant", "MI Datagram", "time_keeper", "timer",
                 f"SIP receiver udp:{host}:{port}", "Timer handler")  # fmt: skip
        return {
            "Processes": [{"ID": n, "PID": os.getpid(), "Type": k} for n, k in enumerate(kinds)]
        }

    def mi_get_statistics(self, statistics: list[str]) -> Any:
        engine = self._engine
        known: dict[str, int] = {
            **dict.fromkeys(("core:rcv_requests", "core:rcv_replies", "core:fwd_requests",
                             "core:bad_msg_hdr", "tm:UAS_transactions", "tm:2xx_transactions",
                             "tm:4xx_transactions", "tm:5xx_transactions"), 0),
            **engine.counters,
            "tm:inuse_transactions": engine.transactions.in_use,
            "dialog:active_dialogs": len(engine.dialogs),
        }  # fmt: skip
        wanted: dict[str, int] = {}
        for name in statistics:
            if name == "all":
                wanted |= known
            elif name.endswith(":"):
                wanted |= {key: value for key, value in known.items() if key.startswith(name)}
            else:
                # By bare name only; a name nobody has is passed over without a word.
                wanted |= {key: v for key, v in known.items() if key.split(":", 1)[1] == name}
        return wanted

    def mi_reload_routes(self) -> Any:
        """Swap the routes; modules, params and sockets that changed too are silently ignored."""
        try:
            config = parse(self._file)
        except ConfigError as err:
            self._log.error("%s", err)
            raise MiError(500, "reload failed") from None
        self._engine.config.routes = config.routes
        self._engine.script = Script(self._engine, self._engine.config)
        return "OK"

    # cfgutils, dialog

    def mi_shv_get(self, name: str | None = None) -> Any:
        shared = self._engine.shared
        if name is None:
            return {"VARs": [{"name": key, **_shown(value)} for key, value in shared.items()]}
        if name not in shared:
            raise MiError(404, "Not found")
        return {"VAR": _shown(shared[name])}

    def mi_shv_set(self, name: str, type: str, value: str | int) -> Any:
        if name not in self._engine.shared:
            raise MiError(404, "Not found")
        try:
            self._engine.shared[name] = int(value) if type == "int" else str(value)
        except ValueError:
            raise MiError(400, "Bad parameter") from None
        return "OK"

    def mi_dlg_list(self) -> Any:
        dialogs = self._engine.dialogs.items()
        return {"Dialogs": [{"callid": c, "from_tag": tag, "state": 4} for c, tag in dialogs]}

    def mi_dlg_end_dlg(self, dialog_id: str) -> Any:
        if self._engine.dialogs.pop(dialog_id, None) is None:
            raise MiError(404, "Dialog not found")
        return "OK"

    # db_text, permissions, tls_mgm

    def mi_dbt_dump(self) -> Any:
        return "OK"

    def mi_dbt_reload(self, db_name: str | None = None, table_name: str | None = None) -> Any:
        for database in self._engine.databases.values():
            if db_name in (None, str(database.directory)):
                try:
                    database.reload(table_name)
                except TableError as err:
                    self._log.error("%s", err)
                    raise MiError(500, "Internal error") from None
        return "OK"

    def mi_address_reload(self, partition: str | None = None) -> Any:
        try:
            self._engine.reload_addresses()
        except TableError as err:
            self._log.error("%s", err)
            raise MiError(500, "Trusted table reload failed") from None
        return "OK"

    def mi_address_dump(self, partition: str | None = None) -> Any:
        return self._trusted(networks=False)

    def mi_subnet_dump(self, partition: str | None = None) -> Any:
        return self._trusted(networks=True)

    def _trusted(self, *, networks: bool) -> Any:
        """Rows of the table: single addresses with their length, networks with their netmask."""
        rows = []
        for row in self._engine.addresses:
            network = ipaddress.ip_network(f"{row['ip']}/{row['mask']}", strict=False)
            if (network.num_addresses > 1) != networks:
                continue
            rows.append(
                {
                    "grp": int(row["grp"]),
                    "ip": row["ip"],
                    "mask": str(network.netmask) if networks else row["mask"],
                    "port": int(row["port"] or 0),
                    "proto": row["proto"],
                    "pattern": row["pattern"],
                    "context_info": row["context_info"],
                }
            )
        return {"Partitions": [{"name": "default", "Destinations": rows}]}

    def mi_tls_list(self) -> Any:
        domains = self._engine.config.parameters.get("tls_mgm", {}).get("server_domain", [])
        return {"Domains": [{"name": str(d), "type": "TLS_DOMAIN_SRV"} for d in domains]}

    def mi_tls_reload(self) -> Any:
        # Domains of the script are not reloaded; only a database's are.
        raise MiError(500, "DB url not set")

    # dispatcher

    def mi_ds_set_state(self, state: str, group: int | str, address: str) -> Any:
        dispatcher = self._engine.dispatcher
        if state.lower() not in LETTERS:
            raise MiError(500, "Bad state value")
        found = dispatcher.find(int(group), address) if dispatcher else None
        if found is None:
            raise MiError(404, "destination not found")
        found.state, found.failures = LETTERS[state.lower()], 0
        return "OK"

    def mi_ds_list(self, full: int | None = None) -> Any:
        dispatcher = self._engine.dispatcher
        sets = []
        for number, destinations in (dispatcher.sets if dispatcher else {}).items():
            rows = []
            for d in destinations:
                row: dict[str, Any] = {"URI": d.uri, "state": d.state, "first_hit_counter": 0}
                row["attr"] = d.attributes
                if full:
                    row |= {"weight": d.weight, "priority": d.priority}
                    row["description"] = d.description
                row["resolved_addresses"] = ["{}:{}".format(*d.address)]
                rows.append(row)
            sets.append({"id": number, "Destinations": rows})
        return {"PARTITIONS": [{"name": "default", "SETS": sets}]}

    def mi_ds_reload(self, inherit_state: str = "y", partition: str | None = None) -> Any:
        dispatcher = self._engine.dispatcher
        try:
            if dispatcher:
                dispatcher.reload(inherit=inherit_state.lower() != "n")
        except (ValueError, KeyError) as err:
            self._log.error("ds_reload: %s", err)
            raise MiError(500, "Failed to reload") from None
        return "OK"


def _shown(value: str | int) -> dict[str, Any]:
    return {"type": "integer" if isinstance(value, int) else "string", "value": value}


def _named(params: Any) -> dict[str, Any]:
    """Params by name; those by position are refused as the real handler's recipes refuse most."""
    if params is None or params == []:
        return {}
    if isinstance(params, dict):
        return {str(key): value for key, value in params.items()}
    raise TypeError("positional parameters")


def _error(number: Any, body: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": body, "id": number}
