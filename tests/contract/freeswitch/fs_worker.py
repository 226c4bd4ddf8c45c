"""A worker that a dialplan's `socket` calls: one connection at a time, driven by the test."""

import socket
from urllib.parse import unquote


class Worker:
    """Listens on a loopback port; `take` accepts the channel that FreeSWITCH hands over."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(10.0)
        self.port = self._server.getsockname()[1]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def take(self) -> "Channel":
        link, _ = self._server.accept()
        link.settimeout(10.0)
        return Channel(link)


class Channel:
    """The connection for one channel."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._stream = link, link.makefile("rb")

    def send(self, *lines: str) -> None:
        self._link.sendall("\n".join((*lines, "", "")).encode())

    def ask(self, *lines: str) -> dict[str, str]:
        """Send a command and return its reply; events that come before it are dropped."""
        self.send(*lines)
        return self.await_type("command/reply")

    def execute(self, application: str, data: str = "") -> dict[str, str]:
        argument = [f"execute-app-arg: {data}"] if data else []
        return self.ask(
            "sendmsg", "call-command: execute", f"execute-app-name: {application}", *argument
        )

    def await_type(self, wanted: str) -> dict[str, str]:
        while True:
            message = self.read()
            if message.get("Content-Type") == wanted:
                return message

    def read(self) -> dict[str, str]:
        """The next message with its body under `body`; EOFError when FreeSWITCH has gone."""
        headers: dict[str, str] = {}
        while True:
            line = self._stream.readline()
            if not line:
                raise EOFError
            if line == b"\n":
                if headers:
                    break
                continue
            name, _, value = line.decode().rstrip("\n").partition(": ")
            headers[name] = unquote(value)
        length = int(headers.get("Content-Length", 0))
        return {**headers, "body": self._stream.read(length).decode()}

    def is_closed(self) -> bool:
        """Read on until FreeSWITCH closes; TimeoutError if it does not."""
        try:
            while True:
                self.read()
        except EOFError:
            return True

    def close(self) -> None:
        self._stream.close()
        self._link.close()
