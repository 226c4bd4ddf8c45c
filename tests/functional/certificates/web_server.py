"""A web server in small: it serves what ``current`` named when it started or was last reloaded.

Run as ``web_server.py <directory of the certificate> <port> <pid file>``. While a file ``stubborn``
lies beside its pid file a reload changes nothing.
"""

import contextlib
import os
import signal
import socket
import ssl
import sys
from pathlib import Path


def context(home: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(home / "current" / "fullchain.pem", home / "current" / "privkey.pem")
    return made


def main(home: Path, port: int, pidfile: Path) -> None:
    serving = context(home)

    def reload(*_: object) -> None:
        nonlocal serving
        if not pidfile.with_name("stubborn").exists():
            serving = context(home)

    signal.signal(signal.SIGHUP, reload)
    with socket.create_server(("127.0.0.1", port)) as listening:
        pidfile.write_text(str(os.getpid()))
        while True:
            client, _ = listening.accept()
            client.settimeout(5)
            with contextlib.suppress(OSError), serving.wrap_socket(client, server_side=True):
                pass


main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
