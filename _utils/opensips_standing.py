"""Write what a drain decided into what a start of OpenSIPS reads.

States of destinations and the proxy's own drain live in the daemon's memory. A crash and systemd's
restart would forget both, before anybody is there to say so again; so the live tree says it too.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

STANDING = "conf.d/15-standing.cfg"
DISPATCHER = "dbtext/dispatcher"
INACTIVE, ACTIVE = "1", "0"
BUSY_SECONDS = 5.0
_DRAINING = re.compile(rb"(draining=i:)[01]")
_FIELD = re.compile(r"(?<!\\):")


def write(
    conf_dir: str, *, draining: bool, withdrawn: list[str], sqlite: str | None = None
) -> list[str]:
    """Have the next start begin drained or not, and with these destinations (URIs) inactive.

    Rewrites two files of the live tree where they differ, keeping owner and mode, and the states
    in the database at ``sqlite``. Returns the paths that changed; raises ``OSError``.
    """
    root = Path(conf_dir)
    changed = []
    for name, turned in (
        (STANDING, lambda content: _DRAINING.sub(rb"\g<1>%d" % draining, content)),
        (DISPATCHER, lambda content: states(content, withdrawn)),
    ):
        path = root / name
        if not path.exists():
            continue
        before = path.read_bytes()
        after = turned(before)
        if after != before:
            _replace(path, after)
            changed.append(name)
    if sqlite and Path(sqlite).exists():
        changed += _database(sqlite, withdrawn)
    return changed


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


def _replace(path: Path, content: bytes) -> None:
    """Exchange one file in one step; what was there tells owner and mode."""
    was = path.stat()
    new = path.with_name(f".{path.name}.standing")
    try:
        with new.open("wb") as file:
            os.fchown(file.fileno(), was.st_uid, was.st_gid)
            os.fchmod(file.fileno(), was.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _database(path: str, withdrawn: list[str]) -> list[str]:
    """Withdraw in the daemon's own table; who was probing when it wrote its states stays so."""
    try:
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as database:
            rows = database.execute("SELECT id, destination, state FROM dispatcher").fetchall()
            out = set(withdrawn)
            turned = [
                (1 if uri in out else 0, number)
                for number, uri, state in rows
                if (uri in out) != (state == 1)
            ]
            database.executemany("UPDATE dispatcher SET state = ? WHERE id = ?", turned)
    except sqlite3.Error as err:
        raise OSError(f"{path}: {err}; remove it, then apply the state again") from None
    finally:
        database.close()
    return [path] if turned else []
