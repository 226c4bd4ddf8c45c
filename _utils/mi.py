"""Talk to OpenSIPS's management interface: JSON-RPC over a unix datagram socket.

Names are resolved through ``which``, once in a daemon's life: 4.0 renamed the commands
(``dispatcher:list``) and keeps some of the old names (``ds_list``) as aliases. An answer
longer than a datagram of OpenSIPS's (65,457 bytes, 480 destinations) comes over mi_fifo's pipe.
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
# Old name -> name since 4.0, from the exports in modules/*/*.c and mi/*.c of 4.0.1. The old ones
# are aliases there, but for those of domain and rtpengine (measured).
NAMES = {
    "address_dump": "permissions:address_dump",
    "address_reload": "permissions:address_reload",
    "cluster_broadcast_mi": "clusterer:broadcast_mi",
    "cluster_send_mi": "clusterer:send_mi",
    "clusterer_list": "clusterer:list",
    "clusterer_list_cap": "clusterer:list_cap",
    "clusterer_list_shtags": "clusterer:list_shtags",
    "clusterer_list_topology": "clusterer:list_topology",
    "clusterer_reload": "clusterer:reload",
    "clusterer_set_status": "clusterer:set_status",
    "clusterer_shtag_set_active": "clusterer:shtag_set_active",
    "dbt_dump": "db_text:dump",
    "dbt_reload": "db_text:reload",
    "dlg_end_dlg": "dialog:end_dlg",
    "dlg_list": "dialog:list",
    "domain_dump": "domain:dump",
    "domain_reload": "domain:reload",
    "dp_reload": "dialplan:reload",
    "dp_show_partition": "dialplan:show_partition",
    "dp_translate": "dialplan:translate",
    "dr_carrier_status": "drouting:carrier_status",
    "dr_gw_status": "drouting:gw_status",
    "dr_number_routing": "drouting:number_routing",
    "dr_reload": "drouting:reload",
    "dr_reload_status": "drouting:reload_status",
    "ds_list": "dispatcher:list",
    "ds_reload": "dispatcher:reload",
    "ds_set_state": "dispatcher:set_state",
    "fraud_reload": "fraud_detection:reload",
    "get_statistics": "statistics:get",
    "lb_list": "load_balancer:list",
    "lb_reload": "load_balancer:reload",
    "lb_status": "load_balancer:status",
    "list_statistics": "statistics:list",
    "list_tcp_conns": "tcp:list",
    "profile_get_size": "dialog:profile_get_size",
    "profile_get_values": "dialog:profile_get_values",
    "ps": "core:ps",
    "reg_list": "uac_registrant:list",
    "reg_reload": "uac_registrant:reload",
    "reload_routes": "core:reload_routes",
    "rl_list": "ratelimit:list",
    "rtpengine_enable": "rtpengine:enable",
    "rtpengine_reload": "rtpengine:reload",
    "rtpengine_show": "rtpengine:show",
    "show_fraud_stats": "fraud_detection:show_stats",
    "shv_get": "cfgutils:shv_get",
    "shv_set": "cfgutils:shv_set",
    "sr_get_status": "status_report:get",
    "sr_list_identifiers": "status_report:identifiers",
    "sr_list_reports": "status_report:reports",
    "sr_list_status": "status_report:status",
    "subnet_dump": "permissions:subnet_dump",
    "tcp_reload": "tcp_mgm:reload",
    "tls_list": "tls_mgm:list",
    "tls_reload": "tls_mgm:reload",
    "uptime": "core:uptime",
    "version": "core:version",
    "which": "core:which",
}
PIPE_BYTES = 64 * 1024 * 1024
PIPE_PAUSE = 0.002  # seconds
_LIVES: dict[str, _Life] = {}


class MiError(OSError):
    """The daemon did not answer, or answered with an error; one line, no parameter values."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class _CutError(MiError):
    """An answer that is no JSON, as one too long for a datagram."""


class _Life:
    """What was learnt of one life of a daemon: its own names, and which answers are too long."""

    def __init__(self, born: tuple[int, int]) -> None:
        self.born = born
        self.known: set[str] | None = None
        self.long: set[str] = set()


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
    life = _life(socket)
    if life.known is None or command not in NAMES:
        try:
            return _asked(command, params, socket, deadline, life)
        except MiError as err:
            if err.code != -32601 or command not in NAMES:
                raise
        known = _ask("which", None, socket, deadline)
        life.known = {str(name) for name in known} if isinstance(known, list) else set()
    name = next((word for word in (NAMES[command], command) if word in life.known), "")
    if not name:
        raise MiError(f"MI {socket}: {command} unknown there; is its module loaded?", -32601)
    return _asked(name, params, socket, deadline, life)


def _life(path: str) -> _Life:
    """Return what is known of the daemon that made this socket."""
    try:
        found = Path(path).stat()
        born = (found.st_ino, found.st_ctime_ns)
    except OSError:
        born = (0, 0)
    if path not in _LIVES or _LIVES[path].born != born:
        _LIVES[path] = _Life(born)
    return _LIVES[path]


def _asked(
    command: str, params: dict[str, Any] | None, path: str, deadline: float, life: _Life
) -> Any:
    """Ask by datagram, and by the pipe beside it what is too long an answer for one."""
    if command not in life.long:
        try:
            return _ask(command, params, path, deadline)
        except _CutError:
            if not pipe_path(path).is_fifo():
                raise
            life.long.add(command)
    return _ask_pipe(command, params, path, deadline)


def pipe_path(path: str) -> Path:
    """Return where the pipe of mi_fifo is that belongs to a datagram socket."""
    return Path(path).with_suffix(".fifo")


def _ask_pipe(command: str, params: dict[str, Any] | None, path: str, deadline: float) -> Any:
    number, pipe = secrets.randbelow(2**31), pipe_path(path)
    # mi_fifo refuses a name with a dot in it.
    own = pipe.parent / f"mi-{os.getpid()}-{secrets.token_hex(4)}"
    request = _request(command, params, number)
    try:
        os.mkfifo(own)
        own.chmod(0o666)
        # Opened for both, so that neither the open nor a read waits for a writer.
        descriptor = os.open(own, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        own.unlink(missing_ok=True)
        raise MiError(f"MI {pipe}: {err.strerror}; is opensips running here?") from None
    try:
        written = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(written, f":{own.name}:{json.dumps(request)}\n\n".encode())
        finally:
            os.close(written)
        return _result(_read_pipe(descriptor, pipe, deadline), command, path)
    except MiError:
        raise
    except OSError as err:
        raise MiError(f"MI {pipe}: {err.strerror}; is opensips running here?") from None
    finally:
        os.close(descriptor)
        own.unlink(missing_ok=True)


def _read_pipe(descriptor: int, pipe: Path, deadline: float) -> dict[str, Any]:
    """Read until it is a whole answer; the pipe has no end that could be waited for."""
    data = bytearray()
    while time.monotonic() < deadline:
        try:
            data += os.read(descriptor, 65536)
        except BlockingIOError:
            if data.rstrip().endswith(b"}"):
                with contextlib.suppress(ValueError, RecursionError):
                    answer = json.loads(data)
                    if isinstance(answer, dict):
                        return answer
            time.sleep(PIPE_PAUSE)
        if len(data) > PIPE_BYTES:
            raise MiError(f"MI {pipe}: answer is longer than {PIPE_BYTES} bytes")
    raise MiError(f"MI {pipe}: no answer; the daemon is stuck or busy")


def _request(command: str, params: dict[str, Any] | None, number: int) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "method": command, "id": number}
    return {**request, "params": params} if params else request


def _ask(command: str, params: dict[str, Any] | None, path: str, deadline: float) -> Any:
    number = secrets.randbelow(2**31)
    request = _request(command, params, number)
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
        raise _CutError(
            f"MI {path}: answer is not JSON; is this OpenSIPS, and {pipe_path(path).name} there?"
        ) from None
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
