"""db_text: tables in files, read once and cached until `dbt_reload`."""

from pathlib import Path

# What the modules of 3.4 expect in the `version` table.
VERSIONS = {"dispatcher": 9, "address": 5}


class TableError(ValueError):
    """A table that cannot be used, in one line."""


class Database:
    """The cache of one text:// directory; a file edit is not seen before `reload`."""

    def __init__(self, url: str) -> None:
        if not url.startswith("text://"):
            raise TableError(f"ERROR:core:db_bind_mod: no database module for {url.split(':')[0]}")
        self.directory = Path(url.removeprefix("text://"))
        self._tables: dict[str, list[dict[str, str]]] = {}

    def rows(self, table: str) -> list[dict[str, str]]:
        """The table's rows as {column: text}; TableError when missing or of another version."""
        if table not in self._tables:
            self._tables[table] = self._read(table)
        return self._tables[table]

    def reload(self, table: str | None = None) -> None:
        """Read again what has been read before; TableError leaves the cache as it was."""
        names = [table] if table else list(self._tables)
        self._tables |= {name: self._read(name) for name in names}

    def check_version(self, table: str) -> None:
        found = {row["table_name"]: row["table_version"] for row in self._read("version")}
        if found.get(table) != str(VERSIONS[table]):
            raise TableError(
                f"ERROR:core:db_check_table_version: invalid version {found.get(table, 0)} for"
                f" table {table} found, expected {VERSIONS[table]}"
            )

    def _read(self, table: str) -> list[dict[str, str]]:
        path = self.directory / table
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
            if len(values) != len(columns):
                raise TableError(f"ERROR:db_text:dbt_load_file: bad row at {path}:{number}")
            rows.append(dict(zip(columns, values, strict=True)))
        return rows


def _split(line: str) -> list[str]:
    """Fields between colons; a backslash takes the next character as it is."""
    fields, current, characters = [], "", iter(line)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == ":":
            fields.append(current)
            current = ""
        else:
            current += character
    return [*fields, current]
