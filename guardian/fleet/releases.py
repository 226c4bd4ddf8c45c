"""Commits on a master: each in a directory of its own, and a link to the one that is served.

Runs on the master, whose `file_roots` and `pillar_roots` lie under `<root>/current`. What arrives
is a tar of `git archive`; nothing in it may lie, or lead, outside of it.
"""

import base64
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

KEPT = 5
BYTES = 256 * 1024 * 1024
MEMBERS = 50_000
_COMMIT = re.compile(r"[0-9a-f]{40}")


def upload(root: str, commit: str, offset: int, data: str) -> int:
    """Take the next part of a commit's archive; how much of it is there now."""
    path = _incoming(root, commit)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    raw = base64.b64decode(data, validate=True)
    if offset + len(raw) > BYTES:
        raise ValueError(f"{commit[:12]}: the archive has more than {BYTES} bytes")
    with path.open("wb" if offset == 0 else "r+b") as file:
        # A part that is sent again, its answer lost, lands where it was.
        file.seek(offset)
        file.truncate()
        file.write(raw)
        return file.tell()


def unpack(root: str, commit: str, digest: str) -> None:
    """Unpack an uploaded archive, unless the commit is there already."""
    target, archive = Path(root) / commit, _incoming(root, commit)
    if target.is_dir():
        archive.unlink(missing_ok=True)
        return
    found = hashlib.sha256(archive.read_bytes()).hexdigest() if archive.is_file() else "none"
    if found != digest:
        raise ValueError(f"{commit[:12]}: the archive did not arrive whole; deploy again")
    place = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    try:
        with tarfile.open(archive) as tar:
            if tar.pax_headers.get("comment", commit) != commit:
                raise ValueError(f"{commit[:12]}: the archive is of another commit")
            _extract(tar, place)
        place.chmod(0o755)
        place.rename(target)
    except (tarfile.TarError, EOFError, OSError) as problem:
        raise ValueError(f"{commit[:12]}: cannot be unpacked: {problem}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
        archive.unlink(missing_ok=True)


def select(root: str, what: str) -> str:
    """Have `current` lead to a commit, or to a tree (an absolute path), and drop old commits."""
    link = Path(root) / "current"
    target = Path(what) if os.path.isabs(what) else Path(root) / _named(what)  # noqa: PTH117
    if not target.is_dir():
        raise ValueError(f"{target}: is not there")
    if link.exists() and not link.is_symlink():
        raise ValueError(f"{link}: is no link; move it away")
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if target.parent == link.parent:
        os.utime(target)  # what was used last is kept longest
    fresh = link.with_name(f".current-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
    _forget(Path(root), target)
    return str(target)


def current(root: str) -> str:
    """The commit that is served, the path of another tree, or nothing."""
    try:
        target = (Path(root) / "current").readlink()
    except OSError:
        return ""
    return target.name if _COMMIT.fullmatch(target.name) else str(target)


def served(root: str, roots: Iterable[str]) -> None:
    """ValueError unless what the master serves lies under the link: moving it would do nothing."""
    link = Path(root) / "current"
    for one in roots:
        if not Path(one).is_relative_to(link):
            raise ValueError(f"the master serves {one}, which is not under {link}: docs/masters.md")


def _extract(tar: tarfile.TarFile, place: Path) -> None:
    members: dict[PurePosixPath, tarfile.TarInfo] = {}
    size = 0
    for member in tar:
        name = _inside(member.name)
        size += member.size
        if len(members) >= MEMBERS or size > BYTES:
            raise ValueError(f"more than {MEMBERS} files or {BYTES} bytes in the archive")
        if not (member.isfile() or member.isdir() or member.issym()):
            raise ValueError(f"{member.name!r}: neither file, directory nor link in the tree")
        members[name] = member
    links = {name for name, member in members.items() if member.issym()}
    for name, member in members.items():
        if links.intersection(name.parents):
            raise ValueError(f"{member.name!r}: lies behind a link")
        path = place / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(mode=0o755, exist_ok=True)
        elif member.issym():
            _inside(os.path.normpath(name.parent / member.linkname))
            path.symlink_to(member.linkname)
        elif (source := tar.extractfile(member)) is not None:
            with path.open("xb") as file:
                shutil.copyfileobj(source, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r}: leads out of the archive")
    return path


def _named(commit: str) -> str:
    if not _COMMIT.fullmatch(commit):
        raise ValueError(f"{commit[:60]!r}: not a full commit id")
    return commit


def _incoming(root: str, commit: str) -> Path:
    if not os.path.isabs(root):  # noqa: PTH117
        raise ValueError(f"master.releases: {root!r} is not an absolute path")
    return Path(root) / f".incoming-{_named(commit)}.tar"


def _forget(root: Path, serving: Path) -> None:
    held = [one for one in root.iterdir() if _COMMIT.fullmatch(one.name) and one.is_dir()]
    held.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    for old in held[KEPT:]:
        if old != serving:
            shutil.rmtree(old, ignore_errors=True)
