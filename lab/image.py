"""The base root every host is a clone of, built once and kept in the cache."""

import hashlib
import os
import shutil
from pathlib import Path

from lab.names import CACHE, LabError
from lab.progress import say
from lab.shell import run

SUITE = "bookworm"
# tzdata is here although states set the zone: a package that pulls it in later would reset it.
PACKAGES = (
    "systemd-sysv",
    "dbus",
    "python3",
    "iproute2",
    "ca-certificates",
    "procps",
    "kmod",
    "tzdata",
    "locales",
    "openssl",
    "cron",
    "less",
)
_BUILD_SECONDS = 900


def _key() -> str:
    return hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]


def base_root() -> Path:
    """Return the base root, building it first when the package list is new."""
    root = CACHE / f"base-{_key()}"
    if root.is_dir():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = CACHE / f"base-{_key()}.unfinished.{os.getpid()}"
    say(f"building the base host: Debian {SUITE} (once, half a minute)")
    try:
        run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=apt",
                f"--include={','.join(PACKAGES)}",
                # Hosts start with these lists and only ask what has changed.
                "--skip=cleanup/apt/lists",
                '--aptopt=Acquire::Languages "none"',
                SUITE,
                unfinished,
                "http://deb.debian.org/debian",
            ],
            timeout=_BUILD_SECONDS,
        )
        for path in ("etc/hostname", "etc/machine-id", "etc/resolv.conf"):
            (unfinished / path).unlink(missing_ok=True)
        (unfinished / "etc/machine-id").touch()
        unfinished.rename(root)
    except (LabError, OSError):
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for stale in CACHE.glob("base-*"):
        if stale != root and ".unfinished." not in stale.name:
            shutil.rmtree(stale, ignore_errors=True)
    return root
