"""The dialplan's `socket`: a worker is called by TCP and told what to do with the channel."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from calls import HOLDING, Call
from eslwire import read_command, write_message

Execute = Callable[[Call, str, str], Awaitable[bool]]


async def hand_over(call: Call, data: str, execute: Execute) -> None:
    """Give the call to the first worker that answers, until the call ends or the worker goes.

    ``data`` is ``host:port[|host:port…] async full``. Without a worker it returns at once, and
    the dialplan goes on.
    """
    for host in data.partition(" ")[0].split("|"):
        address, _, port = host.rpartition(":")
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(address, int(port))
            await _Session(call, execute, reader, writer).run()
            return


class _Session:
    """One connection to a worker; it ends when the worker goes, or, later, after the call."""

    def __init__(
        self,
        call: Call,
        execute: Execute,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._call, self._execute = call, execute
        self._reader, self._writer = reader, writer
        self._linger = 0
        self._applications: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def run(self) -> None:
        listening = asyncio.ensure_future(self._listen())
        working = asyncio.ensure_future(self._work())
        over = asyncio.ensure_future(self._call.over.wait())
        await asyncio.wait({listening, over}, return_when=asyncio.FIRST_COMPLETED)
        if not self._call.ended and self._call.application in HOLDING:
            await over
        if self._call.ended:
            await self._say_goodbye(listening)
        for task in (listening, working, over):
            task.cancel()
        self._writer.close()

    async def _listen(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                self._obey(await read_command(self._reader))
                await self._writer.drain()

    def _obey(self, lines: list[str]) -> None:
        word, _, rest = lines[0].partition(" ")
        match word:
            case "connect":
                write_message(self._writer, self._about())
            case "linger":
                self._linger = int(rest or 600)
                self._reply(f"+OK will linger {self._linger} seconds")
            case "nolinger":
                self._linger = 0
                self._reply("+OK will not linger")
            case "myevents":
                self._reply("+OK Events Enabled")
            case "sendmsg":
                told = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
                job = told.get("execute-app-name", ""), told.get("execute-app-arg", "")
                if told.get("call-command") == "hangup":
                    job = "hangup", ""
                self._applications.put_nowait(job)
                self._reply("+OK")
            case "exit":
                self._reply("+OK bye")
                raise EOFError
            case _:
                self._reply("-ERR command not found")

    async def _work(self) -> None:
        while True:
            application, data = await self._applications.get()
            await self._execute(self._call, application, data)

    async def _say_goodbye(self, listening: "asyncio.Future[None]") -> None:
        headers = {
            "Content-Type": "text/disconnect-notice",
            "Controlled-Session-UUID": self._call.uuid,
            "Content-Disposition": "linger" if self._linger else "disconnect",
        }
        with contextlib.suppress(OSError):
            write_message(self._writer, headers, "Disconnected, goodbye.\n")
            await self._writer.drain()
        if self._linger:
            await asyncio.wait({listening}, timeout=self._linger)

    def _reply(self, text: str) -> None:
        write_message(self._writer, {"Content-Type": "command/reply", "Reply-Text": text})

    def _about(self) -> dict[str, str]:
        """The channel as its worker first sees it; values are URL-encoded, as in every event."""
        call = self._call
        values = {
            "Event-Name": "CHANNEL_DATA",
            "Unique-ID": call.uuid,
            "Channel-Name": f"sofia/{call.profile}/{call.caller_address}",
            "Answer-State": "answered" if call.answered else "ringing",
            "Caller-Caller-ID-Number": call.caller,
            "Caller-Destination-Number": call.destination,
            "Caller-Context": call.context,
            "variable_sip_call_id": call.invite.call_id,
        }
        encoded = {name: quote(value, safe="") for name, value in values.items()}
        head = {"Content-Type": "command/reply", "Reply-Text": "+OK"}
        return {**encoded, **head, "Socket-Mode": "async", "Control": "full"}
