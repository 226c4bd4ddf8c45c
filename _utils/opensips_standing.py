"""What a drain decided, in the files that a start of OpenSIPS reads.

States of destinations and the proxy's own drain live in the daemon's memory. A crash and systemd's
restart would forget both, before anybody is there to say so again; so the live tree says it too.
"""

from __future__ import annotations

import re

STANDING = "conf.d/15-standing.cfg"
DISPATCHER = "dbtext/dispatcher"
INACTIVE, ACTIVE = "1", "0"
_DRAINING = re.compile(rb"(draining=i:)[01]")
_FIELD = re.compile(r"(?<!\\):")


def changes(tree: dict[str, bytes], *, draining: bool, withdrawn: list[str]) -> dict[str, bytes]:
    """Return the files of the live tree that must change, path -> content.

    The next start then begins drained or not, and with the ``withdrawn`` destinations (URIs)
    inactive.
    """
    wanted = {}
    if STANDING in tree:
        wanted[STANDING] = _DRAINING.sub(rb"\g<1>%d" % draining, tree[STANDING])
    if DISPATCHER in tree:
        wanted[DISPATCHER] = states(tree[DISPATCHER], withdrawn)
    return {path: content for path, content in wanted.items() if content != tree[path]}


def states(table: bytes, withdrawn: list[str]) -> bytes:
    """Return a dispatcher table (db_text) with the withdrawn URIs inactive, all others active."""
    head, *lines = table.decode().split("\n")
    columns = [word.partition("(")[0] for word in head.split()]
    if "state" not in columns or "destination" not in columns:
        return table
    state, destination = columns.index("state"), columns.index("destination")
    out = set(withdrawn)
    told = [head]
    for line in lines:
        fields = _FIELD.split(line)
        if len(fields) > max(state, destination):
            uri = re.sub(r"\\(.)", r"\1", fields[destination])
            fields[state] = INACTIVE if uri in out else ACTIVE
            line = ":".join(fields)
        told.append(line)
    return "\n".join(told).encode()
