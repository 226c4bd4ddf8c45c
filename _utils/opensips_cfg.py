"""What a change of an OpenSIPS configuration costs, told from which files it touches.

The tree is split so that this is a fact of the file system: ``reload_routes`` takes over routes
and silently ignores everything else (measured on 3.4.18), so anything that is not known to be
reloadable counts as a restart.
"""

from __future__ import annotations

import re

# What makes a changed table effective. Source: the MI exports of each module in 3.4.18, 3.6.8 and
# 4.0.1. auth_db asks the table for every login, so `subscriber` needs no command of its own.
TABLES = {
    "address": ("address_reload",),
    "clusterer": ("clusterer_reload",),
    "dialplan": ("dp_reload",),
    "dispatcher": ("ds_reload",),
    "domain": ("domain_reload",),
    "dr_carriers": ("dr_reload",),
    "dr_gateways": ("dr_reload",),
    "dr_groups": ("dr_reload",),
    "dr_rules": ("dr_reload",),
    "fraud_detection": ("fraud_reload",),
    "load_balancer": ("lb_reload",),
    "registrant": ("reg_reload",),
    "rtpengine": ("rtpengine_reload",),
    "subscriber": (),
    "tcp_mgm": ("tcp_reload",),
    "tls_mgm": ("tls_reload",),
}
# What a release cannot take over while it runs. 4.0.1 says OK to tls_reload, then serves the old
# certificate or dies: its contexts are made in the private memory of another process (measured).
RESTARTS = {"tls_mgm": (4, 0)}
# Tables first, then who may call and where calls may go, then the routes that use them.
ORDER = (
    *("dbt_reload", "sync", "address_reload", "domain_reload", "dp_reload", "dr_reload"),
    *("lb_reload", "rtpengine_reload", "clusterer_reload", "tcp_reload", "reg_reload"),
    *("fraud_reload", "tls_reload", "ds_reload", "reload_routes", "restart"),
)
MAIN = "opensips.cfg"
ROUTES, ROWS = "routes.d/", "dbtext/"
# What a start begins with and a drain decides; `opensips_standing` keeps it right on disk.
STANDING = "conf.d/15-standing.cfg"
DISPATCHER = "dbtext/dispatcher"
# Columns that may be shown; a table that is not listed may hold keys and passwords.
SHOWN = {
    "address": ("ip", "mask", "grp"),
    "dispatcher": ("setid", "destination"),
    "dr_carriers": ("carrierid",),
    "dr_gateways": ("gwid", "address"),
    "dr_rules": ("prefix", "gwlist"),
    "domain": ("domain",),
    "rtpengine": ("socket",),
}
_TOKEN = re.compile(
    # What is never closed goes to the end, else each of its quotes would be tried anew.
    r"""(?P<string>"(?:\\.|[^"\\])*+(?:"|\\?\Z)|'(?:\\.|[^'\\])*+(?:'|\\?\Z))"""
    r"""|(?P<comment>\#[^\n]*|/\*.*?(?:\*/|\Z))|\s+""",
    re.DOTALL,
)
_SOCKET = re.compile(
    r"^[ \t]*socket[ \t]*=[ \t]*(\w+):([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::([0-9]{1,5}))?",
    re.MULTILINE,
)
_ROUTE_INCLUDE = re.compile(r'include_file "routes\.d/[^"]*"')
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s\"]*:)[^@\s\"]+@")
_FIELD = re.compile(r"(?<!\\):")


def classify(old: dict[str, bytes], new: dict[str, bytes], release: list[int]) -> dict:
    """Return ``{"disruption", "why", "actions": [{"do"}], "files"}``: from ``old`` to ``new``.

    Trees are relative path -> content; ``files`` names those whose meaning changes. ``release`` is
    the one that runs, ``[3, 4, 18]``.
    """
    why: list[str] = []
    actions: set[str] = set()
    files: list[str] = []
    disruption = "none"
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before == after or _same(path, before, after):
            continue
        needed = _needed(path, before, after, release)
        files.append(path)
        why.append(_told(path, before, after))
        actions.update(needed)
        if "restart" in needed:
            disruption = "restart"
        elif disruption == "none":
            disruption = "reload"
    if "rows" in actions:
        actions.add("sync" if driver(new) == "sqlite" else "dbt_reload")
    if disruption == "restart":
        actions = {"restart"}
    return {
        "disruption": disruption,
        "why": why,
        "actions": [{"do": action} for action in ORDER if action in actions],
        "files": files,
    }


def safe_part(old: dict[str, bytes], new: dict[str, bytes], release: list[int]) -> dict[str, bytes]:
    """Return ``old`` with those files of ``new`` whose change is no restart."""
    mixed = {}
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        kept = before if "restart" in _needed(path, before, after, release) else after
        if kept is not None:
            mixed[path] = kept
    return mixed


def meaning(content: bytes) -> str:
    """Return a file's text without comments and with white space folded; strings stay whole."""

    def fold(match: re.Match[str]) -> str:
        return match["string"] or " "

    return re.sub(r" +", " ", _TOKEN.sub(fold, content.decode("utf-8", "replace"))).strip()


def sockets(tree: dict[str, bytes], *protocols: str) -> list[tuple[str, int]]:
    """Return (IPv4 address, port) of what the configuration binds; of UDP unless said otherwise."""
    text = b"\n".join(tree[path] for path in sorted(tree) if _is_script(path))
    return sorted(
        {
            (found[2], int(found[3] or 5060))
            for found in _SOCKET.finditer(text.decode("utf-8", "replace"))
            if found[1] in (protocols or ("udp",))
        }
    )


def destinations(tree: dict[str, bytes]) -> dict[str, set[str]]:
    """Return set id -> URIs of the dispatcher table in the tree (db_text)."""
    found: dict[str, set[str]] = {}
    for row in _rows(tree.get(DISPATCHER)):
        if row.get("setid") and row.get("destination"):
            found.setdefault(row["setid"], set()).add(row["destination"])
    return found


def driver(tree: dict[str, bytes]) -> str:
    """Return where the daemon reads Salt's tables: ``sqlite``, or ``text`` for the tree's own."""
    named = any(
        b'"sqlite:' in content for path, content in tree.items() if path.startswith("conf.d/")
    )
    return "sqlite" if named else "text"


def masked(text: str) -> str:
    """Return a text without the passwords of its URLs."""
    return _URL_PASSWORD.sub(r"\1***@", text)


def _is_script(path: str) -> bool:
    return path.endswith(".cfg")


def _same(path: str, before: bytes | None, after: bytes | None) -> bool:
    """Tell whether a difference is none: layout, comments, or what only a start reads."""
    if path == STANDING:
        return True
    if before is None or after is None:
        return False
    if path == DISPATCHER:
        return _rows(before, drop=("id", "state")) == _rows(after, drop=("id", "state"))
    return meaning(before) == meaning(after)


def _needed(
    path: str, before: bytes | None, after: bytes | None, release: list[int]
) -> tuple[str, ...]:
    """Return the commands that make a changed file effective, ("restart",) if none does."""
    if before == after or path == STANDING:
        return ()
    if path.startswith(ROUTES):
        return ("reload_routes",)
    if path == MAIN and before is not None and after is not None:
        # reload_routes reads the includes again, so a file of routes may come or go.
        old, new = (_ROUTE_INCLUDE.sub("", meaning(text)).split() for text in (before, after))
        return ("reload_routes",) if old == new else ("restart",)
    table = path.removeprefix(ROWS)
    if table in RESTARTS and tuple(release) >= RESTARTS[table]:
        return ("restart",)
    if path.startswith(ROWS) and table in TABLES and before is not None and after is not None:
        return (*TABLES[table], "rows")
    return ("restart",)


def _rows(content: bytes | None, drop: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Return the rows of a db_text file as column -> text; what is no row is left out."""
    head, *lines = (content or b"").decode("utf-8", "replace").split("\n")
    columns = [word.partition("(")[0] for word in head.split()]
    found = []
    for line in lines:
        fields = _FIELD.split(line) if "\\" in line else line.split(":")
        if len(fields) == 1 and not fields[0]:
            continue
        row = dict(zip(columns, (re.sub(r"\\(.)", r"\1", field) for field in fields), strict=False))
        found.append({column: text for column, text in row.items() if column not in drop})
    return found


def _told(path: str, before: bytes | None, after: bytes | None) -> str:
    """Say what changes in a file, by its first differing line; passwords in URLs are masked."""
    if before is None or after is None:
        return f"{path} {'added' if before is None else 'removed'}"
    if path.startswith(ROWS):
        return f"{path}: {_told_rows(path.removeprefix(ROWS), before, after)}"
    old, new = _lines(before), _lines(after)
    gone = next((line for line in old if line not in new), "")
    come = next((line for line in new if line not in old), "")
    change = " -> ".join(part for part in (gone, come) if part) or "order of lines"
    return f"{path}: {change}"


def _told_rows(table: str, before: bytes, after: bytes) -> str:
    """Say how many rows come and go, and which is the first, where it may be shown."""
    old, new = (
        [tuple(sorted(row.items())) for row in _rows(content, drop=("id", "state"))]
        for content in (before, after)
    )
    known, wanted = set(old), set(new)
    come = [row for row in new if row not in known]
    gone = [row for row in old if row not in wanted]
    if not come and not gone:
        return "order of rows"
    counts = ", ".join(f"{sign}{len(rows)}" for sign, rows in (("+", come), ("-", gone)) if rows)
    first = dict((come or gone)[0])
    shown = " ".join(first[column] for column in SHOWN.get(table, ()) if first.get(column))
    rows = "row" if len(come) + len(gone) == 1 else "rows"
    return f"{counts} {rows}" + (f", first {shown[:120]}" if shown else "")


def _lines(content: bytes) -> list[str]:
    text = content.decode("utf-8", "replace")
    lines = (masked(line).strip() for line in text.splitlines())
    return [line[:120] for line in lines if line and not line.startswith("#")]
