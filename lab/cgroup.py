"""A control group a host, so that stopping one host can never reach another.

Seen without it: systemd-nspawn puts every payload into the same group when the machine itself is
not run by systemd.
"""

import contextlib
import os
import time
from pathlib import Path

from lab.names import LabError

_ROOT = Path("/sys/fs/cgroup")
_KILL_SECONDS = 10.0


def hierarchies() -> list[Path]:
    """The mounted hierarchies systemd uses: one on a cgroup v2 machine, two on a hybrid one."""
    if (_ROOT / "cgroup.procs").exists() and (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in (_ROOT / "unified", _ROOT / "systemd") if path.is_dir()]


def enter(group: str) -> None:
    """Move the calling process into `group` of every hierarchy."""
    for hierarchy in hierarchies():
        directory = hierarchy / group
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.procs").write_text(str(os.getpid()))


def _processes(directory: Path) -> set[int]:
    found: set[int] = set()
    # os.walk passes over a group that goes away meanwhile; rglob would raise.
    for group, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):  # gone by now, or threaded
            found.update(int(line) for line in (Path(group) / "cgroup.procs").read_text().split())
    return found


def kill(group: str) -> None:
    """End every process of `group` at once and remove it; LabError if one stays."""
    deadline = time.monotonic() + _KILL_SECONDS
    directories = [h / group for h in hierarchies() if (h / group).is_dir()]
    while directories:
        for directory in directories:
            switch = directory / "cgroup.kill"
            if switch.exists():
                switch.write_text("1")
        remaining: list[Path] = []
        for directory in directories:
            if _processes(directory) or not _remove(directory):
                remaining.append(directory)
        if remaining and time.monotonic() > deadline:
            raise LabError(f"control group {group} still has processes: {_processes(remaining[0])}")
        if remaining:
            time.sleep(0.02)
        directories = remaining


def _remove(directory: Path) -> bool:
    """Remove a group bottom up; False while the kernel still holds part of it."""
    try:
        for group, _, _ in os.walk(directory, topdown=False):
            Path(group).rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def of_lab(lab: str) -> list[str]:
    """Names of all groups this lab made."""
    return sorted({p.name for h in hierarchies() for p in h.glob(f"gl-{lab}-*") if p.is_dir()})
