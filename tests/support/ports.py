"""Loopback ports for daemons under test."""

import contextlib
import random
import socket


def free_ports(count: int = 1) -> int:
    """The first of so many loopback ports in a row that nobody has, for UDP and TCP.

    Below the range the kernel takes client ports from: a client that calls on a port while its
    daemon reopens it could otherwise be given that very port.
    """
    while True:
        first = random.randrange(22_000, 32_000 - count)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    probe = probes.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind(("127.0.0.1", port))
            return first
