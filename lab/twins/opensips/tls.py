"""tls_mgm: a real TLS listener, with the domains of the table or of the script.

As measured: a domain that cannot be used disappears while the reload says OK, and then whoever
connects waits for a handshake that never comes (4.0 hangs up at once). After a reload 4.0.1 ends
with the next connection.
"""

import asyncio
import fnmatch
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from engine import Engine
from errors import MiError, TableError
from release import release

_CRASHED = 139
OnConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Tls:
    """The domains; connections that are up keep the context they began with."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._reloaded = engine, False
        self._database = None
        self._domains: list[dict[str, str]] = []
        self._contexts: dict[str, ssl.SSLContext] = {}  # of servers, by domain
        if engine.config.parameter("tls_mgm", "db_url", ""):
            self._database = engine._database("tls_mgm")
            self._database.check_version("tls_mgm")
            self._take(self._database.rows("tls_mgm"))
        else:
            self._take(self._of_script())

    def _of_script(self) -> list[dict[str, str]]:
        given = self._engine.config.parameters.get("tls_mgm", {})
        rows = {}
        for kind, number in (("server_domain", "2"), ("client_domain", "1")):
            for name in given.get(kind, []):
                rows[str(name)] = {"domain": str(name), "type": number}
        names = {"certificate": "certificate", "private_key": "private_key",
                 "match_ip_address": "match_ip_address", "match_sip_domain": "match_sip_domain",
                 "verify_cert": "verify_cert", "require_cert": "require_cert",
                 "tls_method": "method"}  # fmt: skip
        for parameter, column in names.items():
            for text in given.get(parameter, []):
                domain, _, value = str(text).removeprefix("[").partition("]")
                if domain in rows:
                    is_file = parameter in ("certificate", "private_key")
                    rows[domain][column] = Path(value).read_text() if is_file else value
        return list(rows.values())

    def _take(self, rows: list[dict[str, str]]) -> None:
        self._domains, self._contexts = [], {}
        for row in rows:
            try:
                context = _context(row) if row["type"] == "2" else None
                if context is None:
                    _outward(row)
            except (OSError, ValueError) as err:
                self._engine.log.error(
                    "ERROR:tls_openssl: unable to load certificate of domain '%s': %s",
                    row["domain"], err,
                )  # fmt: skip
                continue
            self._domains.append(row)
            if context:
                self._contexts[row["domain"]] = context

    def _for(self, host: str, port: int) -> ssl.SSLContext | None:
        """The context for a connection here: by address before any, then by the name asked for."""
        mine, any_address = [], []
        for row in self._domains:
            if row["domain"] in self._contexts:
                filters = row.get("match_ip_address", "").split(",")
                if f"{host}:{port}" in filters:
                    mine.append(row)
                elif "*" in filters or filters == [""]:
                    any_address.append(row)
        found = mine or any_address
        if not found:
            return None
        context = self._contexts[(_named(found, None) or found[0])["domain"]]

        def choose(link: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            row = _named(found, name)
            if row:
                link.context = self._contexts[row["domain"]]

        context.sni_callback = choose
        return context

    async def listen(self, host: str, port: int, accepted: OnConnection) -> Any:
        """Open a TLS socket; the context is looked up for each connection."""

        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._reloaded and release() >= 40:
                os._exit(_CRASHED)
            context = self._for(host, port)
            if context is None:
                if release() < 40:
                    await reader.read()  # the client waits, until it has enough of it
                writer.close()
                return
            try:
                await writer.start_tls(context)
            except (OSError, ssl.SSLError):
                writer.close()
                return
            await accepted(reader, writer)

        return await asyncio.start_server(begin, host, port)

    def client(self, host: str, port: int) -> ssl.SSLContext:
        """For a connection of our own; OSError where no domain stands for whom it goes to."""
        for wanted in (f"{host}:{port}", "*"):
            for row in self._domains:
                filters = (row.get("match_ip_address") or "*").split(",")
                if row["type"] == "1" and wanted in filters:
                    return _outward(row)
        raise OSError("no TLS client domain found")

    def mi_tls_reload(self) -> Any:
        if self._database is None:
            raise MiError(500, "DB url not set")
        try:
            rows = self._database.rows("tls_mgm")
        except TableError:
            raise MiError(500, "Failed to reload") from None
        self._take(rows)
        self._reloaded = True
        return "OK"

    def mi_tls_list(self) -> Any:
        return {"Domains": [self._shown(row) for row in self._domains]}

    def _shown(self, row: dict[str, str]) -> dict[str, Any]:
        kind = "SRV" if row["type"] == "2" else "CLI"
        return {
            "name": row["domain"],
            "type": f"TLS_DOMAIN_{kind}",
            "IP ADDRESS FILTERS": (row.get("match_ip_address") or "*").split(","),
            "SIP DOMAIN FILTERS": (row.get("match_sip_domain") or "*").split(","),
            "METHOD": row.get("method") or "SSLv23",
            "VERIFY_CERT": row.get("verify_cert", "1") != "0",
            "REQ_CLI_CERT": row.get("require_cert", "1") != "0",
        }


def _named(rows: list[dict[str, str]], name: str | None) -> dict[str, str] | None:
    """The domain for a name; one that takes any where no other does."""
    for wanted in (name, "*"):
        for row in rows:
            filters = (row.get("match_sip_domain") or "*").split(",")
            if wanted == "*" and "*" in filters:
                return row
            if wanted and any(fnmatch.fnmatchcase(wanted, one) for one in filters if one != "*"):
                return row
    return None


def _outward(row: dict[str, str]) -> ssl.SSLContext:
    """A client's context, with a certificate where it has one; OSError when that is no pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if row.get("certificate"):
        _load(context, row)
    if row.get("verify_cert", "1") != "0":
        if row.get("ca_list"):
            context.load_verify_locations(cadata=row["ca_list"])
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, row: dict[str, str]) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="tls-") as pair:
        pair.write(f"{row.get('certificate', '')}\n{row.get('private_key', '')}\n")
        pair.flush()
        context.load_cert_chain(pair.name)


def _context(row: dict[str, str]) -> ssl.SSLContext:
    """A server's context; OSError (SSLError is one) when certificate and key are no pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, row)
    if row.get("verify_cert", "1") != "0":
        optional = row.get("require_cert", "1") == "0"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context
