"""Loopback ports for daemons under test."""

import collections
import contextlib
import os
import random
import socket

_FIRST, _LAST = 22_000, 32_000
_PER_WORKER = 2_500
_given: collections.deque[int] = collections.deque(maxlen=100)  # one node wants several, none twice


def free_ports(count: int = 1) -> int:
    """The first of so many loopback ports in a row that nobody has, for UDP and TCP.

    Below the range the kernel takes client ports from: a client that calls on a port while its
    daemon reopens it could otherwise be given that very port. Tests that run side by side have
    a part of the ports each, for a port stands free between this and the daemon's start.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    lowest = _FIRST + worker * _PER_WORKER % (_LAST - _FIRST)
    while True:
        first = random.randrange(lowest, lowest + _PER_WORKER - count)
        if set(range(first, first + count)) & set(_given):
            continue
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    probe = probes.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind(("127.0.0.1", port))
            _given.extend(range(first, first + count))
            return first
