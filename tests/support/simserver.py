"""Simulated regions in a process of their own, which outlives every guardian that talks to one.

    python -m tests.support.simserver SOCKET             serve
    python -I -S tests/support/simserver.py SOCKET NAME  be the agent of one region on stdio; as
                                                         `command` of guardian.yaml, what that
                                                         appends is ignored

The first line to the socket names the world ({"world", and "make" to make it}), the rest is the
agent's protocol, plus "truth": what became of the region.
"""

import json
import os
import socket
import sys
import threading


def relay(path: str, name: str) -> None:
    """Carry lines between stdio and the world of that name; it imports little to start at once."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    link.sendall(json.dumps({"world": name}).encode() + b"\n")

    def answers() -> None:
        while data := link.recv(65536):
            os.write(1, data)
        os._exit(0)

    threading.Thread(target=answers, daemon=True).start()
    while data := os.read(0, 65536):
        link.sendall(data)
    os._exit(0)


def main() -> None:
    """Serve, or be an agent."""
    if len(sys.argv) > 2:
        relay(sys.argv[1], sys.argv[2])
    else:
        from tests.support.simworlds import serve

        serve(sys.argv[1])


if __name__ == "__main__":
    main()
