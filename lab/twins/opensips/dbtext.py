"""Tables behind a database URL: text:// is read once and cached until `dbt_reload`, sqlite:// is
read each time.
"""

import re
from pathlib import Path
from typing import Protocol

import sqlite
from errors import TableError
from release import release

__all__ = ["VERSIONS", "Database", "TableError"]

# What the modules expect in the `version` table, from the release on that first does.
VERSIONS: dict[str, dict[int, int]] = {
    "address": {3: 5},
    "clusterer": {3: 4},
    "dialog": {3: 12},
    "dialplan": {3: 5},
    "dispatcher": {3: 9},
    "domain": {3: 3, 36: 4},
    "dr_carriers": {3: 3},
    "dr_gateways": {3: 6},
    "dr_groups": {3: 2},
    "dr_rules": {3: 4},
    "fraud_detection": {3: 1},
    "load_balancer": {3: 3},
    "location": {3: 1013},
    "registrant": {3: 3},
    "rtpengine": {3: 1},
    "subscriber": {3: 8},
    "tcp_mgm": {3: 1, 40: 2},
    "tls_mgm": {3: 3},
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_SPECIAL = {"\\": "\\\\", ":": "\\:", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_LONGEST_FIELD = 4095
Rows = list[dict[str, str]]


class _Driver(Protocol):
    def read(self, table: str) -> Rows: ...
    def update(self, table: str, known: dict[str, str], column: str, value: str) -> None: ...


class Row(dict[str, str]):
    """A row; a column it lacks is told in the words of the real one."""

    def __missing__(self, column: str) -> str:
        raise TableError(f"ERROR:db_text:dbt_get_refs: column <{column}> not found")


class Database:
    """One database URL; a file edit of a text:// one is not seen before `reload`."""

    def __init__(self, url: str) -> None:
        self.driver, _, path = url.partition("://")
        known = {"text": TextFiles, "sqlite": sqlite.File}
        if self.driver not in known:
            told = f"module db_{self.driver} does not export db_use_table function"
            raise TableError(f"ERROR:core:db_check_api: {told}")
        self.directory = Path(path)
        if self.driver == "text" and not self.directory.is_dir():
            raise TableError(
                f"ERROR:db_text:dbt_cache_get_db: database [{path}] does not exist!\n"
                "ERROR:db_text:dbt_init: cannot get the link to database"
            )
        self._driver: _Driver = known[self.driver](self.directory)

    def rows(self, table: str) -> Rows:
        """The table's rows as {column: text}; TableError when missing."""
        return [Row(row) for row in self._driver.read(table)]

    def update(self, table: str, known: dict[str, str], column: str, value: str) -> None:
        """Set a column of the rows that have these values."""
        self._driver.update(table, known, column, value)

    def check_version(self, table: str, kind: str = "") -> None:
        """TableError when a table has not the version of its kind, which is its usual name."""
        versions = VERSIONS[kind or table]
        expected = max((since, n) for since, n in versions.items() if since <= release())[1]
        found = {row["table_name"]: row["table_version"] for row in self.rows("version")}
        if found.get(table) != str(expected):
            raise TableError(
                f"ERROR:core:db_check_table_version: invalid version {found.get(table, 0)} for"
                f" table {table} found, expected {expected}"
            )

    def reload(self, table: str | None = None) -> None:
        """dbt_reload: TableError when a table could not be read again; its old rows stay."""
        if isinstance(self._driver, TextFiles):
            self._driver.reload(table)

    def dump(self) -> None:
        """dbt_dump, and a clean stop: the tables the daemon has changed go back to their files."""
        if isinstance(self._driver, TextFiles):
            self._driver.dump()


class TextFiles:
    """The cache of a directory of table files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tables: dict[str, Rows] = {}
        self._heads: dict[str, str] = {}
        self._changed: set[str] = set()

    def read(self, table: str) -> Rows:
        if table not in self._tables:
            self._load(table)
        return self._tables[table]

    def update(self, table: str, known: dict[str, str], column: str, value: str) -> None:
        for row in self.read(table):
            if known.items() <= row.items():
                row[column] = value
                self._changed.add(table)

    def reload(self, table: str | None) -> None:
        failed: TableError | None = None
        for name in [table] if table else list(self._tables):
            try:
                self._load(name)
            except TableError as err:
                failed = err
        if failed:
            raise failed

    def dump(self) -> None:
        for table in self._changed:
            lines = [":".join(map(_escaped, row.values())) for row in self._tables[table]]
            text = "".join(f"{line}\n" for line in [self._heads[table], *lines])
            (self._directory / table).write_text(text)
        self._changed.clear()

    def _load(self, table: str) -> None:
        path = self._directory / table
        try:
            lines = path.read_text().splitlines()
        except OSError as err:
            raise TableError(
                f"ERROR:db_text:dbt_load_file: cannot open {path}: {err.strerror}"
            ) from None
        if not lines:
            raise TableError(f"ERROR:db_text:dbt_load_file: {path} is empty")
        columns = [word.split("(")[0] for word in lines[0].split()]
        rows = []
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            values = _split(line)
            too_long = any(len(value.encode()) > _LONGEST_FIELD for value in values)
            if len(values) != len(columns) or too_long:
                raise TableError(f"ERROR:db_text:dbt_load_file: bad row at {path}:{number}")
            rows.append(dict(zip(columns, values, strict=True)))
        self._tables[table], self._heads[table] = rows, lines[0]
        self._changed.discard(table)


def _split(line: str) -> list[str]:
    """Fields between colons; a backslash takes the next character as it is, or as its escape."""
    fields, current, characters = [], "", iter(line)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            current += _ESCAPES.get(escaped, escaped)
        elif character == ":":
            fields.append(current)
            current = ""
        else:
            current += character
    return [*fields, current]


def _escaped(value: str) -> str:
    return re.sub(r"[\\:\n\r\t\0]", lambda match: _SPECIAL[match[0]], value)
