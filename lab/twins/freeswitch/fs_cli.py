"""fs_cli for scripts: `fs_cli -x COMMAND`; exit 0 even on -ERR, 255 when it cannot log in."""

import argparse
import configparser
import socket
import sys
from pathlib import Path


def _defaults() -> dict[str, str]:
    """The [default] section of the first fs_cli.conf there is."""
    reader = configparser.ConfigParser(delimiters=("=>", "="))
    for path in (Path.home() / ".fs_cli_conf", Path("/etc/fs_cli.conf")):
        if path.is_file():
            reader.read(path)
            break
    return dict(reader["default"]) if reader.has_section("default") else {}


def _read(stream: "socket.SocketIO | object") -> tuple[dict[str, str], str]:
    headers: dict[str, str] = {}
    for raw in iter(stream.readline, b""):  # type: ignore[attr-defined]
        line = raw.decode().rstrip("\n")
        if not line:
            break
        name, _, value = line.partition(": ")
        headers[name] = value
    body = stream.read(int(headers.get("Content-Length", "0")))  # type: ignore[attr-defined]
    return headers, body.decode()


def main() -> int:
    known = _defaults()
    parser = argparse.ArgumentParser(prog="fs_cli")
    parser.add_argument("-H", "--host", default=known.get("host", "127.0.0.1"))
    parser.add_argument("-P", "--port", type=int, default=int(known.get("port", "8021")))
    parser.add_argument("-p", "--password", default=known.get("password", "ClueCon"))
    parser.add_argument("-t", "--connect-timeout", type=int, default=2000)
    parser.add_argument("-x", "--execute", required=True)
    options = parser.parse_args()
    try:
        with socket.create_connection((options.host, options.port), 5) as connection:
            stream = connection.makefile("rwb", buffering=65_536)
            _read(stream)
            stream.write(f"auth {options.password}\n\n".encode())
            stream.flush()
            headers, _ = _read(stream)
            if headers.get("Reply-Text") != "+OK accepted":
                raise OSError("Authentication failed")
            connection.settimeout(None)
            stream.write(f"api {options.execute}\n\n".encode())
            stream.flush()
            print(_read(stream)[1])
    except OSError as err:
        print(f"[ERROR] fs_cli.c:1699 main() Error Connecting [{err}]", file=sys.stderr)
        return 255
    return 0


if __name__ == "__main__":
    sys.exit(main())
