"""The management interface: JSON-RPC 2.0 over a unix datagram socket or a pipe, as measured."""

import asyncio
import contextlib
import inspect
import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfglexer import ConfigError
from cfgparse import parse
from context import StartError
from dispatcher import LETTERS
from engine import Engine
from errors import MiError, TableError
from mi_names import COMMANDS, NAMES_4, WITHOUT_ALIAS
from script import Script
from start import check, check_able

_MAX_BYTES = 65_536
_MAX_ANSWER = 65_457  # of a datagram; what is longer is answered with no JSON
_LEAK = 30_000  # bytes of private memory a reload of the routes costs for good
_UNKNOWN = {"code": -32601, "message": "Method not found"}
_BAD_PARAMS = {
    "code": -32602,
    "message": "Invalid params",
    "data": "Too few or too many parameters",
}


class Management(asyncio.DatagramProtocol):
    """One socket; each datagram is a request, its answer goes to the sender's own path."""

    def __init__(self, engine: Engine, file: Path, version: str) -> None:
        self._engine, self._file, self._version = engine, file, version
        self._transport: asyncio.DatagramTransport | None = None
        self._log = logging.getLogger("mi")
        self._reloads = 0
        self.listed: list[str] = []
        self.commands = self._available()

    def _available(self) -> dict[str, Callable[..., Any]]:
        """What can be asked for by which name; `listed` is what `which` tells of it."""
        handlers: dict[str, Callable[..., Any]] = {}
        for module, names in COMMANDS.items():
            if not module or module in self._engine.config.modules:
                handlers |= {name: getattr(self, f"mi_{name}") for name in names}
        for owner in self._engine.features.values():
            for name in vars(type(owner)):
                if name.startswith("mi_"):
                    handlers[name.removeprefix("mi_")] = getattr(owner, name)
        if not self._version.startswith("4."):
            self.listed = list(handlers)
            return handlers
        renamed = {NAMES_4[name]: handler for name, handler in handlers.items()}
        self.listed = list(renamed)
        aliases = {
            name: handler
            for name, handler in handlers.items()
            if not NAMES_4[name].startswith(WITHOUT_ALIAS)
        }
        return renamed | aliases

    async def open(self, path: Path, mode: int) -> None:
        """Listen at `path`; what an earlier run left there is replaced."""
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listening.bind(str(path))
        except OSError as err:
            raise StartError(
                f"ERROR:mi_datagram:mi_init_datagram_server: bind: {err.strerror or err}\n"
                "ERROR:core:main_loop: failed to fork module processes"
            ) from None
        path.chmod(mode)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not addr:
            return  # nobody to answer
        answer = self.encoded(data)
        if len(answer) > _MAX_ANSWER:
            answer = b"Internal error"
        if answer and self._transport:
            with contextlib.suppress(OSError):
                self._transport.sendto(answer, addr)

    def encoded(self, data: bytes) -> bytes:
        """The answer as it is sent; empty for a notification."""
        answer = self.answer(data)
        return b"" if answer is None else json.dumps(answer, separators=(",", ":")).encode()

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
            params = _named(request.get("params"))
            inspect.signature(handler).bind(**params)
        except TypeError:
            return _error(number, _BAD_PARAMS)
        try:
            result = handler(**params)
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

    def mi_which(self, command: str | None = None) -> Any:
        return self.listed if command is None else [[]]

    def mi_help(self, mi_cmd: str | None = None) -> Any:
        return {"Help": "the lab's twin"}

    def mi_ps(self) -> Any:
        host, port = self._engine.own
        kinds = ("attendant", "MI Datagram", "time_keeper", "timer",
                 f"SIP receiver udp:{host}:{port}", "Timer handler")  # fmt: skip
        return {
            "Processes": [{"ID": n, "PID": os.getpid(), "Type": k} for n, k in enumerate(kinds)]
        }

    def _statistics(self) -> dict[str, int]:
        engine = self._engine
        private = self._reloads * _LEAK
        return {
            **dict.fromkeys(("core:rcv_requests", "core:rcv_replies", "core:fwd_requests",
                             "core:drop_requests", "core:bad_msg_hdr", "tm:UAS_transactions",
                             "tm:2xx_transactions", "tm:4xx_transactions",
                             "tm:5xx_transactions", "tm:6xx_transactions"), 0),
            **engine.counters,
            "tm:inuse_transactions": engine.transactions.in_use,
            "dialog:active_dialogs": len(engine.dialogs),
            "dialog:early_dialogs": 0,
            "shmem:total_size": 512 << 20,
            "shmem:used_size": 8 << 20,
            "shmem:real_used_size": 8 << 20,
            "pkmem:1-total_size": 16 << 20,
            "pkmem:1-real_used_size": (1 << 20) + private,
            "pkmem:1-free_size": (15 << 20) - private,
        }  # fmt: skip

    def mi_list_statistics(self, statistics: list[str] | None = None) -> Any:
        return dict.fromkeys(self._statistics(), "counter")

    def mi_get_statistics(self, statistics: list[str]) -> Any:
        known = self._statistics()
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

    def mi_sr_list_status(self, group: str | None = None) -> Any:
        identifiers = [{"Name": "main", **self.mi_sr_get_status("core")}]
        return [{"Name": "core", "Identifiers": identifiers}] if group is None else identifiers

    def mi_sr_get_status(self, group: str, identifier: str | None = None) -> Any:
        if group != "core":
            raise MiError(404, "Group not found")
        return {"Readiness": True, "Status": 1, "Details": "running"}

    def mi_list_tcp_conns(self) -> Any:
        return {"Connections": []}

    def mi_reload_routes(self) -> Any:
        """Swap the routes; modules, params and sockets that changed too are silently ignored."""
        try:
            config = parse(self._file)
            check(config)
            check_able(self._engine, Script(self._engine, config))
        except (ConfigError, StartError) as err:
            self._log.error("%s", err)
            raise MiError(500, "reload failed") from None
        self._engine.config.routes = config.routes
        self._reloads += 1
        self._engine.script = Script(self._engine, self._engine.config)
        return "OK"

    # cfgutils, dialog

    def mi_shv_get(self, name: str | None = None) -> Any:
        shared = self._engine.shared
        if name is None:
            return [[{"name": key, **_shown(value)} for key, value in shared.items()]]
        if name not in shared:
            raise MiError(404, "Not found")
        return {"VAR": _shown(shared[name])}

    def mi_shv_set(self, name: str, type: str, value: str | int) -> Any:
        """Set a variable, also one that nobody has."""
        try:
            self._engine.shared[name] = str(value) if type == "str" else int(value)
        except ValueError:
            raise MiError(-32602, "Invalid params") from None
        return "OK"

    def mi_dlg_list(self) -> Any:
        dialogs = self._engine.dialogs.items()
        return {"Dialogs": [{"callid": c, "from_tag": tag, "state": 4} for c, tag in dialogs]}

    def mi_dlg_end_dlg(self, dialog_id: str) -> Any:
        if self._engine.dialogs.pop(dialog_id, None) is None:
            raise MiError(404, "Dialog not found")
        return "OK"

    # db_text, permissions

    def mi_dbt_dump(self) -> Any:
        self.save()
        return "OK"

    def note(self) -> None:
        """Write the states of destinations to their table."""
        if self._engine.dispatcher:
            self._engine.dispatcher.save()

    def save(self) -> None:
        """Write the states of destinations and what db_text has changed; on a clean stop, too."""
        self.note()
        for database in self._engine.databases.values():
            database.dump()

    def mi_dbt_reload(self, db_name: str | None = None, table_name: str | None = None) -> Any:
        """Read the tables again; one that is missing stays as it was, the others are renewed."""
        failed = False
        for database in self._engine.databases.values():
            if db_name in (None, str(database.directory)):
                try:
                    database.reload(table_name)
                except TableError as err:
                    self._log.error("%s", err)
                    failed = True
        if failed:
            raise MiError(500, "Internal error")
        return "OK"

    def mi_address_reload(self, partition: str | None = None) -> Any:
        try:
            self._engine.reload_addresses()
        except TableError as err:
            self._log.error("%s", err)
            raise MiError(400, "failed to reload partition default!") from None
        return "OK"

    def mi_address_dump(self, partition: str | None = None) -> Any:
        return self._trusted(networks=False)

    def mi_subnet_dump(self, partition: str | None = None) -> Any:
        return self._trusted(networks=True)

    def _trusted(self, *, networks: bool) -> Any:
        """Rows of the table: single addresses with their length, networks with their netmask."""
        rows = []
        for row in self._engine.addresses:
            try:
                network = ipaddress.ip_network(f"{row['ip']}/{row['mask']}", strict=False)
            except ValueError:
                continue  # passed over without a word
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

    # dispatcher

    def mi_ds_set_state(self, state: str, group: int | str, address: str) -> Any:
        dispatcher = self._engine.dispatcher
        if state.lower() not in LETTERS:
            raise MiError(500, "Bad state value")
        found = dispatcher.find(int(group), address) if dispatcher else None
        if found is None:
            raise MiError(404, "destination not found")
        found.become(LETTERS[state.lower()])
        return "OK"

    def mi_ds_list(self, full: int | None = None, partition: str | None = None) -> Any:
        if partition not in (None, "default"):
            raise MiError(500, "ERROR Unknown partition")
        dispatcher = self._engine.dispatcher
        sets = []
        for number, destinations in (dispatcher.sets if dispatcher else {}).items():
            rows = []
            for d in destinations:
                row: dict[str, Any] = {"URI": d.uri, "state": d.state, "first_hit_counter": 0}
                if d.attributes:
                    row["attr"] = d.attributes
                if full:
                    row |= {"weight": d.weight, "priority": d.priority}
                    if d.description:
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
            raise MiError(500, "ERROR Reloading data") from None
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
