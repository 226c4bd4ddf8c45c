"""An event socket client that shows the frames as they came."""

import socket


class EslRefusedError(OSError):
    """The daemon did not let us in."""


class Connection:
    """One connection, logged in unless `password` is None."""

    def __init__(self, host: str, port: int, password: str | None) -> None:
        self._socket = socket.create_connection((host, port), 5)
        self._stream = self._socket.makefile("rwb")
        self.banner = self.read()
        if password is not None:
            headers, _ = self.ask(f"auth {password}")
            if headers.get("Reply-Text") != "+OK accepted":
                raise EslRefusedError(headers)

    def send(self, command: str) -> None:
        self._stream.write(f"{command}\n\n".encode())
        self._stream.flush()

    def read(self, seconds: float = 10.0) -> tuple[dict[str, str], str]:
        """One frame: headers and body; EOFError when the daemon has closed."""
        self._socket.settimeout(seconds)
        headers: dict[str, str] = {}
        while True:
            line = self._stream.readline()
            if not line:
                raise EOFError
            line = line.decode().rstrip("\n")
            if not line:
                break
            name, _, value = line.partition(": ")
            headers[name] = value
        return headers, self._stream.read(int(headers.get("Content-Length", 0))).decode()

    def ask(self, command: str, seconds: float = 10.0) -> tuple[dict[str, str], str]:
        self.send(command)
        return self.read(seconds)

    def api(self, command: str, seconds: float = 10.0) -> str:
        return self.ask(f"api {command}", seconds)[1]

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
