"""db_sqlite: a file others may write, too; each question sees what is there now."""

import sqlite3
from pathlib import Path

from errors import TableError


class File:
    """One sqlite:// file; it must exist, as for the real one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            raise TableError(
                "ERROR:db_sqlite:db_sqlite_connect: Can't open database:"
                " unable to open database file\n"
                "ERROR:db_sqlite:db_sqlite_new_connection: initial connect failed\n"
                "ERROR:core:db_do_init: could not add connection to the pool"
            )

    def _link(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._path}?mode=rw", uri=True, timeout=5)

    def read(self, table: str) -> list[dict[str, str]]:
        try:
            link = self._link()
            found = link.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in found.description]
            rows = [dict(zip(columns, map(_text, row), strict=True)) for row in found]
            link.close()
        except sqlite3.Error as err:
            raise TableError(f"ERROR:db_sqlite:db_sqlite_query: {table}: {err}") from None
        return rows

    def update(self, table: str, known: dict[str, str], column: str, value: str) -> None:
        where = " AND ".join(f'"{name}" = ?' for name in known)
        with self._link() as link:
            link.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE {where}',
                         (value, *known.values()))  # fmt: skip


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
