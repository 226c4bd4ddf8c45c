"""uac_registrant and tcp_mgm: tables whose only visible act is to be read again."""

from typing import Any

from context import StartError
from engine import Engine
from errors import MiError, TableError


class Registrant:
    """Registrations the proxy would keep up elsewhere."""

    def __init__(self, engine: Engine) -> None:
        interval = int(engine.config.parameter("uac_registrant", "timer_interval", 100))
        if interval < 10:
            raise StartError(
                f"ERROR:uac_registrant:mod_init: timer_interval to short: [{interval}]<10"
            )
        self._database = engine._database("uac_registrant")
        self._database.check_version("registrant")
        self._rows = self._database.rows("registrant")

    def mi_reg_reload(self, **_: str) -> Any:
        try:
            self._rows = self._database.rows("registrant")
        except TableError:
            raise MiError(500, "Failed to reload") from None
        return "OK"

    def mi_reg_list(self, **_: str) -> Any:
        return {
            "Records": [
                {"AOR": row["aor"], "expires": int(row["expiry"] or 3600),
                 "state": "NOT_REGISTERED_STATE", "enabled": "yes",
                 "registrar": row["registrar"], "binding": row["binding_URI"]}
                for row in self._rows
            ]
        }  # fmt: skip


class TcpManagement:
    """What connections get which limits."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine._database("tcp_mgm")
        self._database.check_version("tcp_mgm")

    def mi_tcp_reload(self) -> Any:
        try:
            self._database.rows("tcp_mgm")
        except TableError:
            raise MiError(500, "Internal error") from None
        return "OK"
