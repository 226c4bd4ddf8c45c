"""Talk to OpenSIPS's management interface: JSON-RPC over a unix datagram socket.

Names are resolved through ``which``: 4.0 renamed the commands (``dispatcher:list``) and keeps the
old names (``ds_list``) only as aliases.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket as sockets
import time
from pathlib import Path
from typing import Any

SOCKET = "/run/opensips/opensips_mi.sock"
MAX_BYTES = 4 * 1024 * 1024
NAMES = {
    "ds_list": "dispatcher:list",
    "ds_set_state": "dispatcher:set_state",
    "ds_reload": "dispatcher:reload",
    "address_reload": "permissions:address_reload",
    "address_dump": "permissions:address_dump",
    "subnet_dump": "permissions:subnet_dump",
    "dbt_reload": "db_text:reload",
    "shv_get": "cfgutils:shv_get",
    "shv_set": "cfgutils:shv_set",
    "dlg_list": "dialog:list",
    "tls_list": "tls_mgm:list",
    "tls_reload": "tls_mgm:reload",
}


class MiError(OSError):
    """The daemon did not answer, or answered with an error; one line, no parameter values."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def call(
    command: str,
    params: dict[str, Any] | None = None,
    *,
    socket: str = SOCKET,
    timeout: float = 5.0,
) -> Any:
    """Run one command and return its result; ``timeout`` is the total, in seconds.

    Raises ``MiError``; its ``code`` is the one of the JSON-RPC error, 0 when nobody answered.
    """
    deadline = time.monotonic() + timeout
    try:
        return _ask(command, params, socket, deadline)
    except MiError as err:
        if err.code != -32601 or command not in NAMES:
            raise
    known = _ask("which", None, socket, deadline)
    name = NAMES[command]
    if not isinstance(known, list) or name not in known:
        raise MiError(f"MI {socket}: {command} unknown there; is its module loaded?", -32601)
    return _ask(name, params, socket, deadline)


def _ask(command: str, params: dict[str, Any] | None, path: str, deadline: float) -> Any:
    number = secrets.randbelow(2**31)
    request = {"jsonrpc": "2.0", "method": command, "id": number}
    if params:
        request["params"] = params
    # The answer goes to our own path; it stands beside the daemon's, which may write there.
    own = Path(path).parent / f".mi-{os.getpid()}-{secrets.token_hex(4)}"
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as link, _bound(link, own, path):
        link.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, MAX_BYTES)
        _send(link, json.dumps(request).encode(), path, deadline)
        while True:
            answer = _receive(link, path, deadline)
            if answer.get("id") == number:
                return _result(answer, command, path)


@contextlib.contextmanager
def _bound(link: sockets.socket, own: Path, path: str):
    try:
        link.bind(str(own))
        own.chmod(0o666)
    except OSError as err:
        reason = err.strerror or str(err)
        raise MiError(f"MI {path}: {reason}; is opensips running here?") from None
    try:
        yield
    finally:
        own.unlink(missing_ok=True)


def _send(link: sockets.socket, data: bytes, path: str, deadline: float) -> None:
    link.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        link.sendto(data, path)
    except TimeoutError:
        raise MiError(f"MI {path}: no answer; the daemon is stuck or busy") from None
    except OSError as err:
        raise MiError(f"MI {path}: {err.strerror or err}; is opensips running here?") from None


def _receive(link: sockets.socket, path: str, deadline: float) -> dict[str, Any]:
    link.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        data = link.recv(MAX_BYTES)
        answer = json.loads(data)
    except TimeoutError:
        raise MiError(f"MI {path}: no answer; the daemon is stuck or busy") from None
    except (OSError, ValueError, RecursionError):
        raise MiError(f"MI {path}: answer is not JSON; is this OpenSIPS?") from None
    if not isinstance(answer, dict):
        raise MiError(f"MI {path}: answer is not a JSON object; is this OpenSIPS?")
    return answer


def _result(answer: dict[str, Any], command: str, path: str) -> Any:
    error = answer.get("error")
    if error is None and "result" in answer:
        return answer["result"]
    told = error if isinstance(error, dict) else {}
    code = told.get("code")
    message = " ".join(str(told.get("message", "no reason given")).split())[:200]
    raise MiError(f"MI {path}: {command}: {message}", code if isinstance(code, int) else 0)
