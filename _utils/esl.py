"""A client for FreeSWITCH's event socket: every wait ends at a deadline, every size has a limit."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from urllib.parse import unquote

HEADER_LIMIT = 64 * 1024
BODY_LIMIT = 16 * 1024 * 1024
EVENT_LIMIT = 10_000
CHUNK = 64 * 1024


class EslError(OSError):
    """The event socket refused us, misbehaved or was silent; one line, never the password."""


class AuthError(EslError):
    """The event socket answered, and did not accept who we said we are."""


class Frame:
    """One message from FreeSWITCH: its headers (names in lower case) and its body."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: dict[str, str], body: str) -> None:
        self.headers = headers
        self.body = body

    @property
    def kind(self) -> str:
        """The Content-Type, in lower case."""
        return self.headers.get("content-type", "").lower()


class Connection:
    """An authenticated connection; ``timeout`` (seconds) bounds each operation as a whole.

    Commands and events share the stream: events that arrive while a reply is awaited are kept
    for ``next_event``.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8021,
        *,
        password: str,
        timeout: float = 5.0,
        user: str = "",
    ) -> None:
        self.peer = f"{host}:{port}"
        self.timeout = timeout
        self._deadline = 0.0
        self._buffer = bytearray()
        self._events: deque[dict[str, str]] = deque(maxlen=EVENT_LIMIT)
        self._socket: socket.socket | None = None
        secret = f"userauth {user}:{password}" if user else f"auth {password}"
        if not password or _has_break(secret):
            raise AuthError(f"ESL {self.peer}: password is empty or has a line break; set one")
        self._start(timeout)
        try:
            self._socket = socket.create_connection((host, port), timeout=timeout)
        except TimeoutError:
            raise self._error(f"no connection within {timeout:g} s; is FreeSWITCH busy?") from None
        except (OSError, UnicodeError) as err:
            reason = getattr(err, "strerror", None) or "address not usable"
            raise self._error(f"cannot connect ({reason}); is FreeSWITCH running?") from None
        try:
            self._authenticate(secret)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; FreeSWITCH needs no goodbye."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def api(self, command: str, timeout: float | None = None) -> str:
        """Run an API command and return its answer as it came, ``-ERR …`` included."""
        self._send(f"api {command}", timeout)
        return self._await("api/response").body

    def bgapi(self, command: str, timeout: float | None = None) -> str:
        """Run an API command in FreeSWITCH's background and return its answer.

        Commands that block their connection, or reload the event socket itself, go this way.
        """
        self._send("event plain BACKGROUND_JOB", timeout)
        self._check_ok(self._await("command/reply"))
        self._send(f"bgapi {command}", None, keep_deadline=True)
        reply = self._await("command/reply")
        self._check_ok(reply)
        job = reply.headers.get("job-uuid", "")
        while True:
            event = self._next_event()
            if event.get("Event-Name") == "BACKGROUND_JOB" and event.get("Job-UUID") == job:
                return event.get("_body", "")

    def end_with(self, command: str, timeout: float | None = None) -> None:
        """Start a background command that ends this connection, and wait until it has.

        Reloading the event socket does so; its own reply may be lost on the way. Raises
        ``EslError`` if the connection is still there at the deadline.
        """
        self._send(f"bgapi {command}", timeout)
        while True:
            try:
                frame = self._frame()
            except EslError:
                if time.monotonic() >= self._deadline:
                    raise self._error(f"still connected after '{_short(command)}'") from None
                return self.close()
            if frame.kind == "text/disconnect-notice":
                return self.close()
            if "-ERR" in frame.headers.get("reply-text", ""):
                raise self._error(f"refused the command: {_short(frame.headers['reply-text'])}")

    def subscribe(self, *names: str) -> None:
        """Ask for the events ``names``, ``ALL`` included."""
        self._send("event plain " + " ".join(names or ("ALL",)), None)
        self._check_ok(self._await("command/reply"))

    def next_event(self, timeout: float | None = None) -> dict[str, str]:
        """Return the next event as name -> value, its body under ``_body``."""
        self._start(self.timeout if timeout is None else timeout)
        return self._next_event()

    def _next_event(self) -> dict[str, str]:
        while not self._events:
            self._keep_event(self._frame())
        return self._events.popleft()

    def _authenticate(self, secret: str) -> None:
        greeting = self._frame()
        if greeting.kind == "text/rude-rejection":
            raise AuthError(f"ESL {self.peer}: connection refused by its ACL; add this address")
        if greeting.kind != "auth/request":
            raise self._error("no greeting of an event socket; is this FreeSWITCH's port?")
        self._send(secret, None, keep_deadline=True)
        reply = self._await("command/reply").headers.get("reply-text", "")
        if not reply.startswith("+OK"):
            raise AuthError(f"ESL {self.peer}: password refused; compare event_socket.conf.xml")

    def _start(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout

    def _send(self, line: str, timeout: float | None, keep_deadline: bool = False) -> None:
        if _has_break(line):
            raise ValueError("ESL command has a line break; give one command on one line")
        if not keep_deadline:
            self._start(self.timeout if timeout is None else timeout)
        if self._socket is None:
            raise self._error("connection is closed; connect again")
        try:
            self._socket.settimeout(self._remaining())
            self._socket.sendall(line.encode() + b"\n\n")
        except TimeoutError:
            raise self._error("took no command before the deadline; is FreeSWITCH hung?") from None
        except OSError as err:
            raise self._error(f"connection lost ({err.strerror}); try again") from None

    def _await(self, kind: str) -> Frame:
        while True:
            frame = self._frame()
            if frame.kind == kind:
                return frame
            if frame.kind == "command/reply" and kind == "api/response":
                answer = frame.headers.get("reply-text", "")
                raise self._error(f"refused the command: {_short(answer)}")
            self._keep_event(frame)

    def _keep_event(self, frame: Frame) -> None:
        if frame.kind == "text/event-plain":
            self._events.append(self._event(frame.body))
        elif frame.kind == "text/disconnect-notice":
            raise self._error("FreeSWITCH closed the connection; try again")
        elif frame.kind in ("api/response", "command/reply"):
            raise self._error("an answer came that nobody asked for; connect again")
        elif not frame.kind:
            raise self._error("message without Content-Type; is this FreeSWITCH's port?")

    def _event(self, text: str) -> dict[str, str]:
        head, _, body = text.partition("\n\n")
        event = {}
        for line in head.split("\n"):
            name, colon, value = line.partition(":")
            if colon:
                event[name.strip()] = unquote(value.strip(), errors="replace")
        event["_body"] = body
        return event

    def _check_ok(self, frame: Frame) -> None:
        answer = frame.headers.get("reply-text", "")
        if not answer.startswith("+OK"):
            raise self._error(f"refused the command: {_short(answer)}")

    def _frame(self) -> Frame:
        headers = self._headers()
        text = headers.get("content-length")
        if text is None:
            if headers.get("content-type", "").lower() in ("api/response", "text/event-plain"):
                raise self._error("Content-Length missing")
            return Frame(headers, "")
        if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > BODY_LIMIT:
            raise self._error(f"Content-Length '{_short(text)}' invalid")
        # What a caller chose (a display name, say) may be any bytes: it must not stop a drain.
        return Frame(headers, self._read(int(text)))

    def _headers(self) -> dict[str, str]:
        searched = 0
        most = HEADER_LIMIT + 2
        while (end := self._buffer.find(b"\n\n", searched, most)) < 0:
            if len(self._buffer) >= most:
                raise self._error(f"header longer than {HEADER_LIMIT} bytes")
            searched = max(0, len(self._buffer) - 1)
            self._fill("in a header")
        block = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        try:
            lines = block.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise self._error("header is not UTF-8") from None
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not line.strip():
                continue
            if not colon:
                raise self._error(f"header '{_short(line)}' has no colon")
            headers.setdefault(name.strip().lower(), value.strip())
        return headers

    def _read(self, length: int) -> str:
        while len(self._buffer) < length:
            self._fill("in a body")
        with memoryview(self._buffer) as whole, whole[:length] as block:
            text = str(block, "utf-8", "replace")
        del self._buffer[:length]
        return text

    def _fill(self, where: str) -> None:
        if self._socket is None:
            raise self._error("connection is closed; connect again")
        try:
            self._socket.settimeout(self._remaining())
            data = self._socket.recv(CHUNK)
        except TimeoutError:
            raise self._error("no answer before the deadline; is FreeSWITCH hung?") from None
        except OSError as err:
            raise self._error(f"connection lost ({err.strerror}); try again") from None
        if not data:
            raise self._error(f"connection ended {where}; did FreeSWITCH stop?")
        self._buffer += data

    def _remaining(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _error(self, what: str) -> EslError:
        return EslError(f"ESL {self.peer}: {what}")


def connect(
    host: str = "127.0.0.1",
    port: int = 8021,
    *,
    password: str,
    timeout: float = 5.0,
    user: str = "",
) -> Connection:
    """Return an authenticated ``Connection``. Raises ``EslError``."""
    return Connection(host, port, password=password, timeout=timeout, user=user)


def api(
    command: str,
    *,
    password: str,
    host: str = "127.0.0.1",
    port: int = 8021,
    timeout: float = 5.0,
    user: str = "",
) -> str:
    """Connect, run one API command and return its answer within ``timeout`` seconds in all."""
    deadline = time.monotonic() + timeout
    with Connection(host, port, password=password, timeout=timeout, user=user) as link:
        return link.api(command, timeout=max(0.0, deadline - time.monotonic()))


def bgapi(
    command: str,
    *,
    password: str,
    host: str = "127.0.0.1",
    port: int = 8021,
    timeout: float = 5.0,
    user: str = "",
) -> str:
    """Connect, run one API command in the background and return its answer, all in ``timeout``."""
    deadline = time.monotonic() + timeout
    with Connection(host, port, password=password, timeout=timeout, user=user) as link:
        return link.bgapi(command, timeout=max(0.0, deadline - time.monotonic()))


def _has_break(text: str) -> bool:
    return any(mark in text for mark in "\r\n\0")


def _short(text: str) -> str:
    """Return ``text`` fit for one line of a message."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."
