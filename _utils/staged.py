"""Replace a configuration tree whole: staged beside the live one, then exchanged in one step.

The live tree is at every moment either entirely the old one or entirely the new one. What a
crash leaves behind is a hidden sibling that the next run removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import hashlib
import os
import pwd
import shutil
import stat
from pathlib import Path

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AT_FDCWD = -100


class StagedError(OSError):
    """A tree could not be staged, exchanged or put back; the message says which and why."""


def staged_path(dest: str) -> str:
    """Return where the next tree for ``dest`` is prepared."""
    path = Path(dest)
    return str(path.with_name(f".{path.name}.staged"))


def previous_path(dest: str) -> str:
    """Return where the tree that ``dest`` replaced is kept."""
    path = Path(dest)
    return str(path.with_name(f".{path.name}.previous"))


def stage(
    dest: str,
    files: dict[str, bytes],
    *,
    owner: str,
    group: str,
    dir_mode: int = 0o750,
    file_mode: int = 0o640,
    keep: tuple[str, ...] = (),
) -> str:
    """Write ``files`` (relative path -> content) beside ``dest``, fsynced; return that path.

    ``keep`` names top-level entries of the live tree that others own (keys, for one); they are
    copied over as they are. Raises ``StagedError`` and leaves nothing behind when anything
    fails; ``ValueError`` for a path that would leave the tree.
    """
    relative = {_relative(name): content for name, content in files.items()}
    ids = _ids(dest, owner, group)
    target = Path(staged_path(dest))
    try:
        _remove(target)
        _make_directory(target, ids, dir_mode)
        for name in sorted(relative):
            parent = target
            for part in name.parent.parts:
                parent = parent / part
                if not parent.is_dir():
                    _make_directory(parent, ids, dir_mode)
            _write(target / name, relative[name], ids, file_mode)
        for name in keep:
            _carry_over(Path(dest) / name, target / name)
        for directory in sorted(p for p in target.rglob("*") if p.is_dir() and not p.is_symlink()):
            sync_directory(directory)
        sync_directory(target)
        sync_directory(target.parent)
    except BaseException as err:
        with contextlib.suppress(OSError):
            _remove(target)
        if isinstance(err, OSError):
            raise StagedError(_line("cannot stage", dest, err)) from None
        raise
    return str(target)


def compare(dest: str, files: dict[str, bytes], keep: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return the relative paths ``added``, ``changed``, ``removed`` if ``files`` became ``dest``.

    Compares content; something other than a regular file in a file's place counts as changed.
    """
    live = read(dest, keep)
    return {
        "added": sorted(name for name in files if name not in live),
        "changed": sorted(name for name in files if name in live and live[name] != files[name]),
        "removed": sorted(name for name in live if name not in files),
    }


def read(dest: str, keep: tuple[str, ...] = ()) -> dict[str, bytes | None]:
    """Return relative path -> content of the live tree; None marks what is not a regular file.

    A tree that does not exist is empty. Raises ``StagedError`` if it cannot be read.
    """
    root = Path(dest)
    found: dict[str, bytes | None] = {}
    try:
        for directory, subdirectories, names in os.walk(root, onerror=_raise):
            at = Path(directory)
            if at == root:
                subdirectories[:] = [name for name in subdirectories if name not in keep]
                names = [name for name in names if name not in keep]
            for name in list(subdirectories):
                if (at / name).is_symlink():
                    found[str((at / name).relative_to(root))] = None
            for name in names:
                path = at / name
                regular = stat.S_ISREG(path.lstat().st_mode)
                found[str(path.relative_to(root))] = path.read_bytes() if regular else None
    except FileNotFoundError:
        if root.exists():
            raise StagedError(f"{dest}: changed while it was read; run again") from None
        return {}
    except OSError as err:
        raise StagedError(_line("cannot read", dest, err)) from None
    return found


def digest(files: dict[str, bytes | None]) -> str:
    """Return one SHA-256 (hex) for a whole tree, given relative path -> content."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0")
        total.update(hashlib.sha256(files[name] or b"").digest())
    return total.hexdigest()


def wrong_attributes(
    dest: str,
    *,
    owner: str,
    group: str,
    dir_mode: int = 0o750,
    file_mode: int = 0o640,
    keep: tuple[str, ...] = (),
) -> list[str]:
    """Return the relative paths in ``dest`` whose owner, group or mode differ."""
    ids = _ids(dest, owner, group)
    wrong = []
    for path in _walk(Path(dest), keep):
        status = path.lstat()
        mode = dir_mode if stat.S_ISDIR(status.st_mode) else file_mode
        if stat.S_ISLNK(status.st_mode):
            continue
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (*ids, mode):
            wrong.append(str(path.relative_to(dest)))
    return sorted(wrong)


def set_attributes(
    dest: str,
    names: list[str],
    *,
    owner: str,
    group: str,
    dir_mode: int = 0o750,
    file_mode: int = 0o640,
) -> None:
    """Give the relative paths ``names`` in ``dest`` the owner, group and mode they should have."""
    ids = _ids(dest, owner, group)
    try:
        for name in names:
            path = Path(dest) / name
            os.chown(path, *ids, follow_symlinks=False)
            path.chmod(dir_mode if path.is_dir() else file_mode)
    except OSError as err:
        raise StagedError(_line("cannot set the owner in", dest, err)) from None


def swap(dest: str, staged: str) -> str:
    """Exchange ``dest`` and ``staged`` in one step; return where the previous tree is now.

    The answer is empty when there was no previous tree. Raises ``StagedError``.
    """
    live, new, previous = Path(dest), Path(staged), Path(previous_path(dest))
    try:
        if live.is_symlink() or (live.exists() and not live.is_dir()):
            raise StagedError(f"{dest}: not a directory; move it away and run again")
        if not live.exists():
            _rename(new, live, RENAME_NOREPLACE)
            sync_directory(live.parent)
            return ""
        _rename(new, live, RENAME_EXCHANGE)
        sync_directory(live.parent)
        # `new` now holds what was live. Exchange it into place so that a previous tree exists
        # at every moment, then drop the older one.
        if previous.exists():
            _rename(new, previous, RENAME_EXCHANGE)
            _remove(new)
        else:
            _rename(new, previous, RENAME_NOREPLACE)
        sync_directory(live.parent)
    except StagedError:
        raise
    except OSError as err:
        raise StagedError(_line("cannot exchange", dest, err)) from None
    return str(previous)


def restore(dest: str) -> None:
    """Exchange ``dest`` with the tree it replaced. Raises ``StagedError`` if there is none."""
    previous = Path(previous_path(dest))
    if not previous.is_dir():
        raise StagedError(f"{dest}: no previous tree at {previous}; nothing to restore")
    try:
        _rename(previous, Path(dest), RENAME_EXCHANGE)
        sync_directory(Path(dest).parent)
    except OSError as err:
        raise StagedError(_line("cannot restore", dest, err)) from None


def discard(dest: str) -> None:
    """Remove what an interrupted run left beside ``dest``; the previous tree is kept."""
    try:
        _remove(Path(staged_path(dest)))
    except OSError as err:
        raise StagedError(_line("cannot discard the staged tree of", dest, err)) from None


def point(link: str, target: str) -> None:
    """Have the symlink ``link`` name ``target``, in one step that outlives a power cut.

    Raises ``StagedError``; the link then names what it named before.
    """
    path = Path(link)
    temporary = path.with_name(f".{path.name}.staged")
    if path.exists() and not path.is_symlink():
        raise StagedError(f"cannot switch {link}: no symlink; move it away and run again")
    exchange = path.is_symlink()
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        # The old link is kept until the new one is synced: going back needs no room then.
        _rename(temporary, path, RENAME_EXCHANGE if exchange else RENAME_NOREPLACE)
        try:
            sync_directory(path.parent)
        except OSError:
            _rename(path, temporary, RENAME_EXCHANGE if exchange else RENAME_NOREPLACE)
            raise
        temporary.unlink(missing_ok=True)
    except OSError as err:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StagedError(_line("cannot switch", link, err)) from None


def sync_directory(path: str | Path) -> None:
    """Have what was created, renamed or removed in a directory outlive a power cut; ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str, content: bytes, mode: int = 0o640) -> None:
    """Replace one small file durably: temporary sibling, fsync, rename.

    Whose it was it stays; a new one is ours. Raises ``StagedError``.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.staged")
    try:
        temporary.unlink(missing_ok=True)
        _write(temporary, content, _owner(target), mode)
        temporary.replace(target)
        sync_directory(target.parent)
    except BaseException as err:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(err, OSError):
            raise StagedError(_line("cannot write", path, err)) from None
        raise


def put_file(path: str, content: bytes | None, mode: int = 0o640) -> None:
    """Have one small file with this content, or none for None. Raises ``StagedError``."""
    target = Path(path)
    try:
        if content is None:
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as err:
        raise StagedError(_line("cannot write", path, err)) from None
    write_file(path, content, mode)


def _owner(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (os.geteuid(), os.getegid())
    return (found.st_uid, found.st_gid)


def _ids(dest: str, owner: str, group: str) -> tuple[int, int]:
    try:
        return (pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
    except KeyError:
        raise StagedError(f"{dest}: no user {owner} or group {group} on this node") from None


def _relative(name: str) -> Path:
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or path == Path():
        raise ValueError(f"{name!r}: not a path inside the tree")
    return path


def _walk(root: Path, keep: tuple[str, ...]) -> list[Path]:
    if not root.is_dir():
        return []
    kept = {root / name for name in keep}
    return [
        root,
        *(p for p in root.rglob("*") if p not in kept and not kept.intersection(p.parents)),
    ]


def _make_directory(path: Path, ids: tuple[int, int], mode: int) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, *ids)
    path.chmod(mode)


def _write(path: Path, content: bytes, ids: tuple[int, int], mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchown(descriptor, *ids)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _carry_over(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if not source.exists():
        return
    status = source.stat()
    if source.is_dir():
        _make_directory(target, (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode))
        for entry in sorted(source.iterdir()):
            _carry_over(entry, target / entry.name)
    elif source.is_file():
        ids = (status.st_uid, status.st_gid)
        _write(target, source.read_bytes(), ids, stat.S_IMODE(status.st_mode))


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _rename(source: Path, target: Path, flags: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).renameat2
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _line(what: str, dest: str, err: OSError) -> str:
    """Return one line with a remedy for the errors an operator can do something about."""
    remedies = {
        errno.ENOSPC: "no space left; free some and run again, the live tree is untouched",
        errno.EDQUOT: "quota reached; raise it and run again, the live tree is untouched",
        errno.EXDEV: "a mount, or in an overlay's lower layer; mount or copy its parent",
        errno.EINVAL: "this file system cannot exchange directories; use ext4, xfs, btrfs or tmpfs",
        errno.EBUSY: "it is a mount point; mount its parent directory instead",
        errno.EROFS: "the file system is read-only; remount it writable",
        errno.EACCES: "permission denied; run as root",
        errno.EPERM: "operation not permitted; run as root",
        errno.ENOENT: f"{err.filename or 'its parent directory'} does not exist",
    }
    reason = remedies.get(err.errno or 0, err.strerror or str(err))
    return f"{what} {dest}: {reason}"


def _raise(err: OSError) -> None:
    raise err
