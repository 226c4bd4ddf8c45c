"""Certificates on disk: ``<home>/<version>/``, and ``<home>/current`` that names the live one.

A version is named after its leaf's fingerprint. Its directory bears the time at which it went live;
one that never did bears none, so that a run that was killed before the flip can be told and
mended. ``staged`` writes and switches; here is what to write, where, and what to remove.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path

KEPT = 3
VERSION_LENGTH = 16  # hexadecimal digits of the leaf's fingerprint that name a version
SHOWN = ("subject", "serial", "not_after", "fingerprint")  # of a leaf, in changes
LAYOUTS = ("plain", "sofia", "nginx")
_VERSION = re.compile(r"[0-9a-f]{16}(-\d+)?")
_LEFT = re.compile(r"\.(current|[0-9a-f]{16}(-\d+)?)\.(staged|previous|unfinished|pruned)")
_NEVER = (0, 0)


def files(layout: str, certificates: list[str], key: str) -> dict[str, bytes]:
    """Return file name -> content of a layout; ``ValueError`` for one that does not exist.

    Every layout has ``chain.pem`` (the leaf first) and ``key.pem``. ``sofia`` has what FreeSWITCH's
    SIP stack reads: ``agent.pem`` (leaf and key), ``cafile.pem`` (the intermediates, which it sends
    from there), ``wss.pem`` (chain and key); ``nginx`` has ``fullchain.pem`` and ``privkey.pem``.
    """
    key = key.rstrip("\n") + "\n"
    leaf, *issuers = certificates
    chain = "".join(certificates)
    found = {"chain.pem": chain, "key.pem": key}
    if layout == "sofia":
        # Without a cafile.pem FreeSWITCH signs a certificate of its own and serves that.
        authorities = "".join(issuers) or leaf
        found |= {"agent.pem": leaf + key, "cafile.pem": authorities, "wss.pem": chain + key}
    elif layout == "nginx":
        found |= {"fullchain.pem": chain, "privkey.pem": key}
    elif layout != "plain":
        raise ValueError(f"layout is none of {', '.join(LAYOUTS)}")
    return {name: text.encode() for name, text in found.items()}


def plan(home: str, fingerprint: str, wanted: dict[str, bytes]) -> dict:
    """Return what leads to these files being live.

    ``version`` is their name and ``old`` that of what is live; ``intact`` says that they are there,
    ``flip`` that the link must change, ``unmarked`` that a run was killed right after it did.
    ``left`` is what interrupted runs left, ``surplus`` goes when they are live.
    """
    version, intact = slot(home, fingerprint, wanted)
    old = live(home)
    since = {one["version"]: one["since"] for one in versions(home)}
    return {
        "version": version,
        "intact": intact,
        "old": old,
        "flip": version != old,
        "unmarked": version == old and since[version] is None,
        "left": leftovers(home, version),
        "surplus": surplus(home, version),
    }


def changes(name: str, plan: dict, old: dict | None, new: dict) -> dict:
    """Return what a plan changes for who reads it, empty if nothing.

    ``old`` is what the live leaf says, None if it cannot be read; ``new`` what the new one says.
    The plan has besides ``wrong`` (files whose owner or mode is), ``stale`` (sockets that serve
    another, and what they do) and ``reload``.
    """
    made: dict = {}
    why = []
    removed = plan["left"] if plan["flip"] else plan["left"] + plan["surplus"]
    if plan["flip"]:
        before = (old and _shown(old)) or "damaged"
        made["certificate"] = {"old": before if plan["old"] else None, "new": _shown(new)}
        why.append(f"certificate {name} {'replaced' if plan['old'] else 'deployed'}")
    if plan["stale"]:
        wanted = f"serves serial {new['serial']}"
        made["served"] = {at: {"old": told, "new": wanted} for at, told in plan["stale"].items()}
        why += [f"{at} does not serve certificate {name}" for at in plan["stale"]]
    if plan["wrong"]:
        made["attributes"] = plan["wrong"]
        why.append(f"owner or mode of certificate {name}")
    if removed:
        made["removed"] = removed
        why.append(f"certificate {name}: an interrupted run left {len(removed)} entries")
    if plan["unmarked"]:
        made["completed"] = plan["version"]
        why.append(f"certificate {name}: an interrupted run is completed")
    # Whoever is not reloaded goes on with what it has read.
    disruption = "reload" if plan["reload"] else "none"
    return {**made, "disruption": disruption, "why": why} if made else {}


def live(home: str) -> str | None:
    """Return the name of the live version, None if there is none."""
    try:
        name = (Path(home) / "current").readlink().name
    except OSError:
        return None
    return name if (Path(home) / name).is_dir() else None


def versions(home: str) -> list[dict]:
    """Return ``{"version", "live", "since"}`` of what is on disk, the last that went live first.

    ``since`` is in seconds since the epoch, None for one that never was live.
    """
    current = live(home)
    found = [
        {"version": path.name, "live": path.name == current, "since": path.stat().st_mtime or None}
        for path in _versions(home)
    ]
    return sorted(found, key=lambda one: (-(one["since"] or 0), one["version"]))


def slot(home: str, fingerprint: str, wanted: dict[str, bytes]) -> tuple[str, bool]:
    """Return the name for these files, and whether they are there already.

    What is there but damaged keeps its name: whoever has it open goes on with it, and what is live
    is replaced by the flip alone.
    """
    version = fingerprint[:VERSION_LENGTH]
    there = [path for path in _versions(home) if path.name.partition("-")[0] == version]
    current = live(home)
    for path in sorted(there, key=lambda one: (one.name != current, one.name)):
        if _has(path, wanted):
            return path.name, True
    taken = {path.name for path in there}
    names = itertools.chain([version], (f"{version}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken), False


def leftovers(home: str, wanted: str | None = None) -> list[str]:
    """Return what interrupted runs left, but for the version ``wanted``, which is taken up."""
    root, current = Path(home), live(home)
    if not root.is_dir():
        return []
    found = [path.name for path in root.iterdir() if _LEFT.fullmatch(path.name)]
    for path in _versions(home):
        if path.name not in (current, wanted) and not path.stat().st_mtime_ns:
            found.append(path.name)
    return sorted(found)


def surplus(home: str, wanted: str) -> list[str]:
    """Return the versions that go when ``wanted`` is live: all but the newest that were live."""
    others = [one["version"] for one in versions(home) if one["since"] or one["live"]]
    return [name for name in others if name != wanted][KEPT - 1 :]


def make(home: str) -> None:
    """Have the directory around the versions; ``OSError``."""
    Path(home).mkdir(mode=0o755, parents=True, exist_ok=True)


def remove(home: str, names: list[str]) -> None:
    """Remove versions and leftovers, but never what is live; ``OSError`` with the file's name.

    A version is hidden before, so that none is ever seen with some of its files.
    """
    root = Path(home)
    for name in names:
        path = root / name
        if name == live(home) or not (path.is_symlink() or path.exists()):
            continue
        if _VERSION.fullmatch(name):
            hidden = path.with_name(f".{name}.pruned")
            _delete(hidden)
            path = path.rename(hidden)
        _delete(path)


def forget(home: str, version: str) -> None:
    """Take back a version that did not go live, and the directory around it if it is empty."""
    with contextlib.suppress(OSError):
        remove(home, [f".{version}.staged", version])
    with contextlib.suppress(OSError):
        Path(home).rmdir()


def mark(version: str, is_live: bool) -> None:
    """Note on the directory of a version that it goes live now, or that it never did."""
    os.utime(version, None if is_live else _NEVER)


def _shown(leaf: dict) -> dict:
    return {key: leaf[key] for key in SHOWN}


def _versions(home: str) -> list[Path]:
    root = Path(home)
    if not root.is_dir():
        return []
    return [
        path
        for path in root.iterdir()
        if _VERSION.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]


def _has(version: Path, wanted: dict[str, bytes]) -> bool:
    try:
        return all(
            not (version / name).is_symlink() and (version / name).read_bytes() == content
            for name, content in wanted.items()
        )
    except OSError:
        return False


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
