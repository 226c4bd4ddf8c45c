"""Ask a SIP server whether it takes calls."""

from __future__ import annotations

import secrets
import socket
import time


def options(host: str, port: int, timeout: float = 2.0) -> int:
    """Send OPTIONS over UDP, repeating it as RFC 3261 does; return the final status, 0 for none."""
    token = secrets.token_hex(8)
    deadline = time.monotonic() + timeout
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as link:
        try:
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
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return 0
                link.send(request)
                status = _answer(link, token, min(deadline, time.monotonic() + wait))
                if status:
                    return status
                wait *= 2
        except OSError:
            return 0


def _answer(link: socket.socket, token: str, until: float) -> int:
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return 0
        link.settimeout(left)
        try:
            text = link.recv(65535).decode("utf-8", "replace")
        except TimeoutError:
            return 0
        first = text.split("\r\n", 1)[0].split(" ")
        if token in text and first[0] == "SIP/2.0" and len(first) > 1 and first[1].isdigit():
            status = int(first[1])
            if status >= 200:
                return status
