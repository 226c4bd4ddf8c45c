"""How event socket messages are framed on the wire."""

import asyncio


async def read_command(reader: asyncio.StreamReader) -> list[str]:
    """The lines of one command: up to an empty line."""
    lines: list[str] = []
    while True:
        line = (await reader.readuntil(b"\n")).decode("utf-8", "replace").strip("\r\n")
        if line:
            lines.append(line)
        elif lines:
            return lines


def write_message(
    writer: asyncio.StreamWriter,
    headers: dict[str, str],
    body: str = "",
    *,
    always_length: bool = False,
) -> None:
    """Send one message: headers, then the body with its length."""
    encoded = body.encode()
    if encoded or always_length:
        headers = {**headers, "Content-Length": str(len(encoded))}
    head = "".join(f"{name}: {value}\n" for name, value in headers.items())
    writer.write(head.encode() + b"\n" + encoded)
