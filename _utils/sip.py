"""Ask a SIP server whether it takes calls."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import time

STATUS = re.compile(r"SIP/2\.0 ([2-6][0-9]{2})\b")  # those that end a transaction


def options(host: str, port: int, timeout: float = 2.0) -> int:
    """Send OPTIONS over UDP, repeating it as RFC 3261 does; return the final status, 0 for none."""
    token = secrets.token_hex(8)
    deadline = time.monotonic() + timeout
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    unusable = (OSError, UnicodeError, OverflowError)  # the last two of a host and of a port
    with socket.socket(family, socket.SOCK_DGRAM) as link, contextlib.suppress(*unusable):
        link.connect((host, port))
        mine = link.getsockname()
        address = f"[{mine[0]}]" if family == socket.AF_INET6 else mine[0]
        target = f"[{host}]" if family == socket.AF_INET6 else host
        request = "\r\n".join(
            (
                f"OPTIONS sip:{target}:{port} SIP/2.0",
                f"Via: SIP/2.0/UDP {address}:{mine[1]};branch=z9hG4bK{token};rport",
                "Max-Forwards: 70",
                f"From: <sip:check@{address}>;tag={token}",
                f"To: <sip:{target}:{port}>",
                f"Call-ID: {token}@{address}",
                "CSeq: 1 OPTIONS",
                "Content-Length: 0",
                "",
                "",
            )
        ).encode()
        wait = 0.25
        while time.monotonic() < deadline:
            link.send(request)
            status = _answer(link, token, min(deadline, time.monotonic() + wait))
            if status:
                return status
            wait *= 2
    return 0


def _answer(link: socket.socket, token: str, until: float) -> int:
    while (left := until - time.monotonic()) > 0:
        link.settimeout(left)
        try:
            text = link.recv(65535).decode("utf-8", "replace")
        except TimeoutError:
            break
        status = STATUS.match(text)
        if status and token in text:
            return int(status[1])
    return 0
