"""Keep the proxy's local database at what the tree says.

The tree holds every table Salt owns as a db_text file. Where the daemon reads sqlite, the rows are
brought into its file, in one transaction; the states of destinations that are there already belong
to the daemon and stay. Tables that calls fill are only created.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

ROWS, RUNTIME = "dbtext/", "runtime/"
VERSION = "version"
BUSY_SECONDS = 10.0
FILE_MODE, DIRECTORY_MODE = 0o660, 0o770
KINDS = {
    "int": "INTEGER",
    "long": "INTEGER",
    "time": "INTEGER",
    "bigint": "INTEGER",
    "auto": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "double": "REAL",
    "blob": "BLOB",  # modules ask for the type that the column declares
}
TEXTS = ("str", "string", "blob")
_FIELD = re.compile(r"((?:[^\\:]|\\.)*)(?::|$)")
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def sync(path: str, tree: dict[str, bytes], *, owner: str, group: str) -> list[str]:
    """Bring the tables of ``tree`` into the sqlite file at ``path``; return those that changed.

    Raises ``OSError`` naming the file, ``ValueError`` naming the table that is no table.
    """
    tables = {
        name.partition("/")[2]: (name.startswith(ROWS), _table(name, content))
        for name, content in sorted(tree.items(), reverse=True)  # runtime first: ours wins
        if name.startswith((ROWS, RUNTIME)) and not name.endswith(f"/{VERSION}")
    }
    versions = {
        row["table_name"]: row["table_version"]
        for kind in (RUNTIME, ROWS)
        for row in _named(*_table(VERSION, tree.get(f"{kind}{VERSION}", b"")))
    }
    file = Path(path)
    _directory(file.parent, owner, group)
    fresh = not file.exists()
    changed = []
    try:
        with _opened(file) as database:
            if fresh:
                _own(file, owner, group, FILE_MODE)
            database.execute("BEGIN IMMEDIATE")
            for table, (ours, (columns, rows)) in tables.items():
                made = _made(database, table, columns)
                if (ours and _filled(database, table, columns, rows)) or made:
                    changed.append(table)
            _versioned(database, versions)
            database.execute("COMMIT")
    except sqlite3.Error as err:
        raise _unusable(path, err) from None
    return sorted(changed)


def withdraw(path: str, uris: list[str]) -> bool:
    """Have a start find these destinations inactive, no others; tell whether a row changed.

    Who was probing when the daemon wrote its states stays so. Raises ``OSError``.
    """
    if not Path(path).exists():
        return False
    out = set(uris)
    try:
        with _opened(Path(path)) as database:
            database.execute("BEGIN IMMEDIATE")
            rows = database.execute("SELECT id, destination, state FROM dispatcher").fetchall()
            turned = [
                (1 if uri in out else 0, number)
                for number, uri, state in rows
                if (uri in out) != (state == 1)
            ]
            database.executemany("UPDATE dispatcher SET state = ? WHERE id = ?", turned)
            database.execute("COMMIT")
    except sqlite3.Error as err:
        raise _unusable(path, err) from None
    return bool(turned)


def seed(directory: str, tree: dict[str, bytes], *, owner: str, group: str) -> list[str]:
    """Put the tables that calls fill into ``directory`` where they are missing (db_text).

    Returns those that were put there; what is there already is never touched.
    """
    put = []
    for name, content in sorted(tree.items()):
        file = Path(directory) / name.removeprefix(RUNTIME)
        if not name.startswith(RUNTIME) or (file.exists() and file.name != VERSION):
            continue
        if file.name == VERSION and file.exists() and file.read_bytes() == content:
            continue
        _directory(file.parent.parent, owner, group)
        _directory(file.parent, owner, group)
        new = file.with_name(f".{file.name}.new")
        new.write_bytes(content)
        _own(new, owner, group, FILE_MODE)
        new.replace(file)
        put.append(file.name)
    return put


def _unusable(path: str, err: sqlite3.Error) -> OSError:
    """Return the error to raise; OpenSIPS may write for longer than we wait, on a slow disk."""
    remedy = "" if "locked" in str(err) else "move it away, then "
    return OSError(f"{path}: {err}; {remedy}apply the state again")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        yield database
    finally:
        database.close()  # what was not committed is undone


def _made(database: sqlite3.Connection, table: str, columns: list[tuple[str, str, bool]]) -> bool:
    """Create a table, or a new one in place of one with other columns."""
    there = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    if there == [name for name, _, _ in columns]:
        return False
    if there:
        database.execute(f"DROP TABLE {table}")
    described = ", ".join(
        f"{name} {KINDS.get(kind, 'TEXT')}{'' if null or kind == 'auto' else ' NOT NULL'}"
        for name, kind, null in columns
    )
    database.execute(f"CREATE TABLE {table} ({described})")
    return True


def _filled(
    database: sqlite3.Connection, table: str, columns: list[tuple[str, str, bool]], rows: list
) -> bool:
    """Make the rows of a table those given; tell whether more than numbers and states changed."""
    names = [name for name, _, _ in columns]
    own = [at for at, name in enumerate(names) if name == "state" and table == "dispatcher"]
    hidden = {at for at, (_, kind, _) in enumerate(columns) if kind == "auto"} | set(own)
    there = database.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()

    def content(row: tuple) -> tuple:
        return tuple(value for at, value in enumerate(row) if at not in hidden)

    if [content(row) for row in there] == [content(row) for row in rows]:
        return False
    if own:
        key = [names.index("setid"), names.index("destination")]
        states = {tuple(row[at] for at in key): row[own[0]] for row in there}
        rows = [
            tuple(
                states.get(tuple(row[k] for k in key), value) if at == own[0] else value
                for at, value in enumerate(row)
            )
            for row in rows
        ]
    database.execute(f"DELETE FROM {table}")
    marks = ", ".join("?" * len(names))
    database.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
    return True


def _versioned(database: sqlite3.Connection, versions: dict) -> None:
    database.execute(
        "CREATE TABLE IF NOT EXISTS version"
        " (table_name TEXT NOT NULL UNIQUE, table_version INTEGER NOT NULL)"
    )
    there = set(database.execute("SELECT table_name, table_version FROM version"))
    missing = sorted(versions.items() - there)
    database.executemany("INSERT OR REPLACE INTO version VALUES (?, ?)", missing)


def _table(name: str, content: bytes) -> tuple[list[tuple[str, str, bool]], list[tuple]]:
    """Return the columns (name, kind, may be NULL) and rows of a db_text file."""
    table = name.partition("/")[2] or name
    head, *lines = content.decode().split("\n")
    columns = []
    for word in head.split():
        column, _, kind = word.rstrip(")").partition("(")
        kind, *flags = kind.split(",")
        columns.append((column, "auto" if "auto" in flags else kind, "null" in flags))
    if not all(_NAME.fullmatch(word) for word in [table, *(c[0] for c in columns)]):
        raise ValueError(f"{name}: not a table of db_text; apply the state again")
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        fields = [found[1] for found in _FIELD.finditer(f"{line}:")][:-1]
        if len(fields) != len(columns):
            raise ValueError(f"{name}:{number}: {len(fields)} fields for {len(columns)} columns")
        try:
            rows.append(
                tuple(
                    _value(field, kind, null)
                    for field, (_, kind, null) in zip(fields, columns, strict=True)
                )
            )
        except ValueError:
            raise ValueError(f"{name}:{number}: text where a number is wanted") from None
    return columns, rows


def _value(text: str, kind: str, null: bool) -> object:
    if not text:
        return None if null or kind not in TEXTS else ""
    if KINDS.get(kind, "").startswith("INTEGER"):
        return int(text)
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


def _named(columns: list, rows: list) -> list[dict]:
    return [dict(zip((name for name, _, _ in columns), row, strict=True)) for row in rows]


def _directory(path: Path, owner: str, group: str) -> None:
    if not path.exists():
        path.mkdir(mode=DIRECTORY_MODE, parents=True)
        _own(path, owner, group, DIRECTORY_MODE)


def _own(path: Path, owner: str, group: str, mode: int) -> None:
    try:
        os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
    except KeyError as err:
        raise OSError(f"{path}: {err.args[0]}; install the package first") from None
    path.chmod(mode)
