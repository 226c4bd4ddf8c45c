"""What the lab needs of the machine, said in one line before anything starts."""

import os
import shutil
import socket
from pathlib import Path

from lab import cgroup
from lab.image import SUITE
from lab.names import CACHE, REPOSITORY, LabError

_FREE_BYTES = 3 * 1024**3
_TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "openssl": "openssl",
    "sipp": "sip-tester",
    "dpkg-deb": "dpkg",
    "apt-ftparchive": "apt-utils",
    "gpg": "gnupg",
}
_REGISTRY = "deb.debian.org"
_REGISTRY_SECONDS = 10.0


def check() -> None:
    """Raise LabError for the first thing that is missing."""
    if os.geteuid() != 0:
        raise LabError("needs root: namespaces and mounts are made here; use sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            raise LabError(f"{tool} is missing: `make setup`, or apt-get install {package}")
    if shutil.which("terraform") is None:
        raise LabError("terraform is missing: install 1.6 or later and put it on PATH")
    if not cgroup.hierarchies():
        raise LabError("no cgroup v2 hierarchy at /sys/fs/cgroup: mount one (cgroup2)")
    if "overlay" not in Path("/proc/filesystems").read_text():
        raise LabError("this kernel has no overlayfs: modprobe overlay")
    if not Path("/usr/bin/python3").exists():
        raise LabError(f"/usr/bin/python3 is missing: the hosts run Debian {SUITE}'s")
    free = shutil.disk_usage(REPOSITORY).free
    if free < _FREE_BYTES:
        raise LabError(f"{REPOSITORY} has {free // 1024**2} MiB free, 3072 are needed")
    if not any(CACHE.glob("base-*")):
        _registry()


def _registry() -> None:
    """A first build fetches packages; say so before half of it is done."""
    if os.environ.get("http_proxy"):
        return
    try:
        socket.create_connection((_REGISTRY, 80), _REGISTRY_SECONDS).close()
    except OSError as err:
        raise LabError(
            f"{_REGISTRY} cannot be reached ({err.strerror or err}): the first build needs packages"
        ) from None
