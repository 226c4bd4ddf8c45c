"""domain: the names this proxy serves."""

from typing import Any

from context import Context
from engine import Engine
from errors import MiError, TableError


class Domains:
    """The names, cached until a reload."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine._database("domain")
        self._database.check_version("domain")
        self._names = self._read()

    def _read(self) -> list[str]:
        return [row["domain"] for row in self._database.rows("domain")]

    def do_is_domain_local(self, context: Context, name: str, *_: object) -> int:
        return 1 if name in self._names else -1

    def do_is_from_local(self, context: Context, *_: object) -> int:
        return self._is_local(context.request.get("From"))

    def do_is_uri_host_local(self, context: Context, *_: object) -> int:
        return self._is_local(context.request.uri)

    def _is_local(self, uri: str) -> int:
        host = uri.rpartition("@")[2].partition(">")[0].partition(";")[0].partition(":")[0]
        return 1 if host.removeprefix("sip:") in self._names else -1

    def mi_domain_reload(self) -> Any:
        try:
            self._names = self._read()
        except TableError:
            raise MiError(500, "Domain table reload failed") from None
        return "OK"

    def mi_domain_dump(self) -> Any:
        return {"Domains": [{"name": name} for name in self._names]}
