"""The LXC box: Debian with sshd, the user `vagrant` and Salt, built once and kept in the cache."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from lab import image
from lab.host import _EMULATE, _EMULATED_SYSCTL
from lab.names import CACHE, MIRROR_PORT
from lab.progress import say
from lab.shell import run

GATEWAY = "10.77.0.254"
SALT_HOME = "opt/salt"
_PACKAGES = (
    *image.PACKAGES, "openssh-server", "sudo", "rsync", "apt-utils", "gnupg", "python3-yaml",
)  # fmt: skip
_SALT = ("salt", "jsonschema")
_COMMANDS = ("salt", "salt-call", "salt-key", "salt-master", "salt-minion", "salt-run")
_BUILD_SECONDS = 900
_METADATA = {"provider": "lxc", "version": "1.0.0"}
_LXC_CONFIG = """\
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed
"""
_SALT_UNIT = f"""\
[Unit]
Description=The Salt {{kind}}
After=network.target
[Service]
Type=notify
NotifyAccess=all
Environment=LANG=C.UTF-8
ExecStart=/{SALT_HOME}/bin/salt-{{kind}}
LimitNOFILE=100000
KillMode=process
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""
# A container may not write these; see lab/host.py.
_SYSCTL_UNIT = """\
[Unit]
Description=Kernel settings of this container's own
DefaultDependencies=no
Before=systemd-sysctl.service sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/emulate-sysctl
[Install]
WantedBy=sysinit.target
"""


def box() -> Path:
    """Return the box file, building it when what goes into it has changed; LabError if it fails."""
    kept = CACHE / f"vagrant-{_key()}.box"
    if kept.is_file():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    say("building the LXC box (once, a minute or two)")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="vagrant.") as temporary:
        work = Path(temporary)
        _build_root(work / "rootfs", _insecure_key(work / "home"))
        say("packing the box")
        _tar("-C", work, "--use-compress-program=gzip -1", "-cf", work / "rootfs.tar.gz",
             "./rootfs")  # fmt: skip
        (work / "metadata.json").write_text(json.dumps(_METADATA) + "\n")
        (work / "lxc-config").write_text(_LXC_CONFIG)
        _tar("-C", work, "-cf", work / "box", "metadata.json", "lxc-config", "rootfs.tar.gz")
        (work / "box").rename(kept)
    for stale in CACHE.glob("vagrant-*.box"):
        if stale != kept:
            stale.unlink()
    return kept


def _key() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(" ".join(_PACKAGES).encode())
    digest.update("".join((_EMULATE, *_EMULATED_SYSCTL)).encode())
    for name in sorted(_closure(_SALT)):
        digest.update(f"{name}={importlib.metadata.version(name)}".encode())
    return digest.hexdigest()[:12]


def _tar(*words: str | Path) -> None:
    run(["tar", "--numeric-owner", *words], timeout=_BUILD_SECONDS)


def _insecure_key(home: Path) -> str:
    """The public half of the key every Vagrant tries first and then replaces."""
    environment = {**os.environ, "VAGRANT_HOME": str(home), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    run(["vagrant", "box", "list"], environment=environment)
    return run(["ssh-keygen", "-y", "-f", home / "insecure_private_key"]).stdout


def _build_root(root: Path, public_key: str) -> None:
    run(
        [
            "mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}",
            "--skip=cleanup/apt/lists", '--aptopt=Acquire::Languages "none"',
            "--customize-hook=chroot \"$1\" useradd --create-home --shell /bin/bash vagrant",
            image.SUITE, root, "http://deb.debian.org/debian",
        ],
        timeout=_BUILD_SECONDS,
    )  # fmt: skip
    # Without these a container has no name, identity or resolver of the machine it was built on.
    for path in ("etc/hostname", "etc/resolv.conf"):
        (root / path).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/sudoers.d/vagrant").write_text("vagrant ALL=(ALL) NOPASSWD: ALL\n")
    _write(root / "etc/apt/apt.conf.d/80lab",
           f'Acquire::http::Proxy "http://{GATEWAY}:{MIRROR_PORT}";\n'
           'Acquire::http::Proxy::10.77.0.1 "DIRECT";\n')  # fmt: skip
    _write(root / "home/vagrant/.ssh/authorized_keys", public_key, 0o600)
    run(["chroot", root, "chown", "-R", "vagrant:vagrant", "/home/vagrant/.ssh"])
    (root / "home/vagrant/.ssh").chmod(0o700)
    script = f"#!/bin/sh\nset -- {' '.join(_EMULATED_SYSCTL)}\n{_EMULATE}"
    _write(root / "usr/local/sbin/emulate-sysctl", script, 0o755)
    _unit(root, "emulate-sysctl", _SYSCTL_UNIT, wanted_by="sysinit.target")
    for kind in ("master", "minion"):
        _unit(root, f"salt-{kind}", _SALT_UNIT.format(kind=kind))
    _bake_salt(root)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _unit(root: Path, name: str, text: str, wanted_by: str | None = None) -> None:
    units = root / "etc/systemd/system"
    _write(units / f"{name}.service", text)
    if wanted_by:
        wants = units / f"{wanted_by}.wants"
        wants.mkdir(exist_ok=True)
        (wants / f"{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")


def _closure(names: tuple[str, ...]) -> set[str]:
    """The distributions that `names` need, themselves included, as installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return found


def _bake_salt(root: Path) -> None:
    """Copy Salt and what it needs from our own environment into one of the box."""
    home = root / SALT_HOME
    run(["/usr/bin/python3", "-m", "venv", "--without-pip", home])
    here = Path(sysconfig.get_path("purelib"))
    there = home / "lib" / here.parent.name / "site-packages"
    for name in _closure(_SALT):
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] != ".."}:
            if top == "__pycache__":
                continue
            if (here / top).is_dir():
                shutil.copytree(here / top, there / top, dirs_exist_ok=True)
            elif (here / top).is_file():  # what a wheel put elsewhere is still in its record
                shutil.copy2(here / top, there / top)
    # External pillars use the package beside them, at its place on the master.
    _write(there / "guardian.pth", "/srv/guardian\n")
    for command in _COMMANDS:
        script = (Path(sys.prefix) / "bin" / command).read_text()
        _, _, body = script.partition("\n")
        _write(home / "bin" / command, f"#!/{SALT_HOME}/bin/python3\n{body}", 0o755)
        link = root / "usr/local/bin" / command
        link.symlink_to(f"/{SALT_HOME}/bin/{command}")


if __name__ == "__main__":
    print(box())
