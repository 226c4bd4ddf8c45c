"""Rows of OpenSIPS's tables that states add beside those of pillar.

Pillar's rows are never changed or taken away here, so that the two do not undo each other.
"""

from __future__ import annotations

# The columns that name a row, in the tables that may have rows beside pillar's.
KEYS = {
    "address": ("grp", "ip", "mask"),
    "dispatcher": ("setid", "destination"),
    "dr_gateways": ("gwid",),
    "load_balancer": ("group_id", "dst_uri"),
    "rtpengine": ("set_id", "socket"),
    "tls_mgm": ("domain", "type"),
}
NO_CONTENT = ("id", "state")  # a row's place, and what drain decides

Rows = list[dict]


def tables() -> list[str]:
    """Return the tables that may have rows beside pillar's."""
    return list(KEYS)


def joined(table: str, pillars: Rows, extra: Rows) -> Rows:
    """Return pillar's rows and the extra ones that are none of pillar's, without their numbers."""
    names = {_key(table, row) for row in pillars}
    return _bare([*pillars, *(row for row in extra if _key(table, row) not in names)])


def changed(
    table: str,
    on_disk: Rows,
    extra: Rows,
    *,
    present: Rows = (),
    absent: Rows = (),
    only: dict | None = None,
) -> tuple[Rows, Rows]:
    """Return (all rows, extra rows) once ``present`` are there and ``absent`` are not.

    ``only`` names columns; every row that holds them and is not in ``present`` goes. Raises
    ``ValueError`` where a row of pillar's would have to change.
    """
    ours = {_key(table, row): row for row in extra}
    pillars = {_key(table, row): row for row in on_disk if _key(table, row) not in ours}
    asked = {_key(table, row): row for row in present}
    gone = [_key(table, row) for row in absent]
    if only is not None:
        gone += [
            name
            for name, row in {**pillars, **ours}.items()
            if name not in asked and all(row.get(key) == value for key, value in only.items())
        ]
    clash = [name for name, row in asked.items()
             if name in pillars and _content(pillars[name]) != _content(row)]  # fmt: skip
    for name in [*clash, *(name for name in gone if name in pillars)]:
        raise ValueError(
            f"{table} {' '.join(name)} is a row of pillar opensips; change it there,"
            " or the two would undo each other"
        )
    ours.update({name: row for name, row in asked.items() if name not in pillars})
    kept = [row for name, row in ours.items() if name not in gone]
    return _bare([*pillars.values(), *kept]), _bare(kept)


def _key(table: str, row: dict) -> tuple[str, ...]:
    return tuple(str(row.get(column)) for column in KEYS[table])


def _content(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in NO_CONTENT}


def _bare(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]
