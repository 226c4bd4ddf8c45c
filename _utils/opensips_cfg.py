"""What a change of an OpenSIPS configuration costs, told from which files it touches.

The tree is split so that this is a fact of the file system: ``reload_routes`` takes over routes
and silently ignores everything else (measured on 3.4.18), so anything that is not known to be
reloadable counts as a restart.
"""

from __future__ import annotations

import re

# First match decides. Source: measured tables for OpenSIPS 3.4.18 (reload_routes, ds_reload with
# db_text, address_reload); a whole-directory entry ends in a slash.
CLASSES = (
    ("routes.d/", "reload", ("reload_routes",)),
    ("dbtext/dispatcher", "reload", ("dbt_reload", "ds_reload")),
    ("dbtext/address", "reload", ("dbt_reload", "address_reload")),
    ("opensips.cfg", "restart", ("restart",)),
    ("conf.d/", "restart", ("restart",)),
)
ORDER = ("dbt_reload", "address_reload", "ds_reload", "reload_routes", "restart")
_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<comment>\#[^\n]*|/\*.*?\*/)|\s+""",
    re.DOTALL,
)
_SOCKET = re.compile(
    r"^[ \t]*socket[ \t]*=[ \t]*(\w+):([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::([0-9]{1,5}))?",
    re.MULTILINE,
)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s\"]+:)[^@\s\"]+@")


def classify(old: dict[str, bytes], new: dict[str, bytes]) -> dict:
    """Return ``{"disruption", "why", "actions": [{"do"}], "files"}``: from ``old`` to ``new``.

    Trees are relative path -> content; ``files`` names those whose meaning changes.
    """
    why: list[str] = []
    actions: set[str] = set()
    files: list[str] = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is not None and after is not None and meaning(before) == meaning(after):
            continue
        files.append(path)
        actions.update(_known(path)[1])
        why.append(_told(path, before, after))
    disruption = "none"
    for path in files:
        disruption = "restart" if _known(path)[0] == "restart" else disruption
        if disruption == "none":
            disruption = "reload"
    if disruption == "restart":
        actions = {"restart"}
    return {
        "disruption": disruption,
        "why": why,
        "actions": [{"do": action} for action in ORDER if action in actions],
        "files": files,
    }


def safe_part(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, bytes]:
    """Return ``old`` with those files of ``new`` whose change is no restart."""
    mixed = {path: content for path, content in old.items() if _known(path)[0] == "restart"}
    mixed.update({path: content for path, content in new.items() if _known(path)[0] != "restart"})
    return mixed


def meaning(content: bytes) -> str:
    """Return a file's text without comments and with white space folded; strings stay whole."""

    def fold(match: re.Match[str]) -> str:
        return match["string"] or " "

    return re.sub(r" +", " ", _TOKEN.sub(fold, content.decode("utf-8", "replace"))).strip()


def sockets(tree: dict[str, bytes], *protocols: str) -> list[tuple[str, int]]:
    """Return (IPv4 address, port) of what the configuration binds; of UDP unless said otherwise."""
    text = b"\n".join(tree.values()).decode("utf-8", "replace")
    return sorted(
        {
            (found[2], int(found[3] or 5060))
            for found in _SOCKET.finditer(text)
            if found[1] in (protocols or ("udp",))
        }
    )


def destinations(tree: dict[str, bytes]) -> dict[str, set[str]]:
    """Return set id -> URIs of the dispatcher table in the tree (db_text)."""
    found: dict[str, set[str]] = {}
    lines = tree.get("dbtext/dispatcher", b"").decode("utf-8", "replace").splitlines()
    for line in lines[1:]:
        fields = [re.sub(r"\\(.)", r"\1", field) for field in re.split(r"(?<!\\):", line)]
        if len(fields) > 2:
            found.setdefault(fields[1], set()).add(fields[2])
    return found


def _known(path: str) -> tuple[str, tuple[str, ...]]:
    for prefix, disruption, actions in CLASSES:
        if path == prefix or (prefix.endswith("/") and path.startswith(prefix)):
            return disruption, actions
    return "restart", ("restart",)


def _told(path: str, before: bytes | None, after: bytes | None) -> str:
    """Say what changes in a file, by its first differing line; passwords in URLs are masked."""
    if before is None or after is None:
        return f"{path} {'added' if before is None else 'removed'}"
    old, new = _lines(before), _lines(after)
    gone = next((line for line in old if line not in new), "")
    come = next((line for line in new if line not in old), "")
    change = " -> ".join(part for part in (gone, come) if part) or "order of lines"
    return f"{path}: {change}"


def _lines(content: bytes) -> list[str]:
    text = content.decode("utf-8", "replace")
    lines = (_URL_PASSWORD.sub(r"\1***@", line).strip() for line in text.splitlines())
    return [line[:120] for line in lines if line and not line.startswith("#")]
