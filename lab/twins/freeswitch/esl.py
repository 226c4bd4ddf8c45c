"""The event socket: one connection is auth, then commands, framed as the real one does."""

import asyncio
import ipaddress
import logging
import socket
import uuid

from acl import AccessLists
from commands import Commands
from core import Core
from eslwire import read_command, write_message
from rights import Rights, of_user

log = logging.getLogger("event_socket")
_UNLOADED = "The system is being shut down.\n"
_GOODBYE = "Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"
_DENIED = "-ERR permission denied"
_MAX_LINE = 8192


class EventSocket:
    """The listening side; `open` reads event_socket.conf from the tree in force."""

    def __init__(self, core: Core, commands: Commands) -> None:
        self._core, self._commands = core, commands
        self._listener: socket.socket | None = None
        self._password = ""
        self._access = ""
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen where the configuration says; an absent password is ClueCon, as ever."""
        settings = self._core.tree.settings("event_socket.conf")
        self._password = settings.get("password") or "ClueCon"
        self._access = settings.get("apply-inbound-acl", "")
        host = settings.get("listen-ip", "::")
        port = int(settings.get("listen-port", "8021"))
        self._listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            dualstack_ipv6=host == "::",
        )
        self._listener.setblocking(False)
        # Not asyncio's Server: closing that one loses, unanswered, whom it has just accepted.
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # who called has gone
        self._commands.switch.spawn(self._welcome(connection))

    async def reopen(self) -> None:
        """End every connection and listen again with the new configuration, as unloading does."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for writer in list(self._open):
            write_message(writer, {"Content-Type": "text/disconnect-notice"}, _UNLOADED)
            writer.close()
        await self.open()

    def _lets_in(self, address: str) -> bool:
        address = address.removeprefix("::ffff:")
        if self._access:
            return AccessLists(self._core.tree.configuration("acl.conf")).allows(
                address, self._access
            )
        return ipaddress.ip_address(address).is_loopback

    async def _welcome(self, connection: socket.socket) -> None:
        await self._serve(*await asyncio.open_connection(sock=connection, limit=_MAX_LINE))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if not self._lets_in(writer.get_extra_info("peername")[0]):
                refusal = "Access Denied, go away.\n"
                write_message(writer, {"Content-Type": "text/rude-rejection"}, refusal)
                return
            write_message(writer, {"Content-Type": "auth/request"})
            rights = await self._authenticated(reader, writer)
            if rights:
                await self._converse(reader, writer, rights)
            write_message(writer, {"Content-Type": "text/disconnect-notice"}, _GOODBYE)
            await writer.drain()
        except (
            ConnectionError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ValueError,
        ):
            pass  # the client went away or sent what no client sends
        finally:
            self._open.discard(writer)
            writer.close()

    async def _authenticated(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Rights | None:
        while True:
            lines = await read_command(reader)
            word, _, given = lines[0].partition(" ")
            if word == "auth":
                ok = given == self._password
                _reply(writer, "+OK accepted" if ok else "-ERR invalid")
                return Rights() if ok else None
            if word == "userauth":
                rights, told = of_user(self._core.users, given) or (None, {})
                _reply(writer, "+OK accepted" if rights else "-ERR invalid", told)
                return rights
            if word == "exit":
                _reply(writer, "+OK bye")
                return None
            _reply(writer, "-ERR command not found")

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rights: Rights
    ) -> None:
        listening = False
        while True:
            lines = await read_command(reader)
            word, _, rest = lines[0].partition(" ")
            match word:
                case "api" | "bgapi" if not rights.may_run(rest):
                    _reply(writer, _DENIED)  # no api/response comes
                case "event" | "events" if not rights.may_hear(rest.split()[1:]):
                    _reply(writer, _DENIED)
                case "log" if not rights.log:
                    _reply(writer, _DENIED)
                case "api":
                    body = await self._commands.run(rest)
                    write_message(
                        writer, {"Content-Type": "api/response"}, body, always_length=True
                    )
                case "bgapi":
                    self._background(rest, writer, listening)
                case "event" | "events":
                    listening = True
                    _reply(writer, "+OK event listener enabled plain")
                case "noevents" | "nolog" | "log" | "filter" | "linger" | "nolinger":
                    _reply(writer, "+OK")
                case "exit" | "...":
                    _reply(writer, "+OK bye")
                    return
                case _:
                    _reply(writer, "-ERR command not found")
            await writer.drain()

    def _background(self, line: str, writer: asyncio.StreamWriter, listening: bool) -> None:
        job = str(uuid.uuid4())
        accepted = {"Reply-Text": f"+OK Job-UUID: {job}", "Job-UUID": job}
        write_message(writer, {"Content-Type": "command/reply", **accepted})

        async def run() -> None:
            body = await self._commands.run(line)
            if listening and not writer.is_closing():
                event = (
                    f"Event-Name: BACKGROUND_JOB\nJob-UUID: {job}\nJob-Command: {line.split()[0]}\n"
                    f"Content-Length: {len(body.encode())}\n\n{body}"
                )
                write_message(writer, {"Content-Type": "text/event-plain"}, event)

        self._commands.switch.spawn(run())


def _reply(writer: asyncio.StreamWriter, text: str, more: dict[str, str] | None = None) -> None:
    headers = {"Content-Type": "command/reply", "Reply-Text": text, **(more or {})}
    write_message(writer, headers)
