"""A host's Salt minion: keys made beforehand, configuration, unit."""

import json
import shutil
import sys
from pathlib import Path

from lab.host import Host
from lab.names import HUB_ADDRESS, MASTER_ADDRESS, MIRROR_PORT, Node
from lab.shell import run

BIN = Path(sys.prefix) / "bin"
_UNIT = """\
[Unit]
Description=The Salt {kind}
After=network.target
[Service]
Type=notify
NotifyAccess=all
Environment=LANG=C.UTF-8
ExecStart={bin}/salt-{kind}
LimitNOFILE=100000
KillMode=process
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


def install_unit(host: Host, kind: str) -> None:
    """Put salt-<kind>.service into a host's root, enabled."""
    unit = host.root / f"etc/systemd/system/salt-{kind}.service"
    unit.write_text(_UNIT.format(kind=kind, bin=BIN))
    wanted = host.root / "etc/systemd/system/multi-user.target.wants" / unit.name
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if not wanted.is_symlink():
        wanted.symlink_to(f"/etc/systemd/system/{unit.name}")


def write_config(path: Path, config: dict[str, object]) -> None:
    """Write a Salt configuration; JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_keys(directory: Path) -> None:
    """Make minion.pem and minion.pub unless they are there.

    A fresh clone that made its own would be denied by a master which knew the last one.
    """
    if (directory / "minion.pub").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    private = directory / "minion.pem"
    run(["openssl", "genrsa", "-traditional", "-out", private, "2048"])
    private.chmod(0o400)
    run(["openssl", "rsa", "-in", private, "-pubout", "-out", directory / "minion.pub"])


def configure(host: Host, node: Node) -> None:
    """Write a prepared, not yet booted host's minion and package sources."""
    keys = host.names.directory / "keys" / node.minion_id
    make_keys(keys)
    pki = host.root / "etc/salt/pki/minion"
    pki.mkdir(parents=True, exist_ok=True)
    for key in keys.iterdir():
        shutil.copy(key, pki)
    write_config(
        host.root / "etc/salt/minion",
        {
            "id": node.minion_id,
            "master": MASTER_ADDRESS,
            "transport": "tcp",
            "log_level_logfile": "info",
            # A return that found no master is asked for again: keep it.
            "cache_jobs": True,
            "return_retry_tries": 10,
            "acceptance_wait_time": 1,
            "recon_max": 2000,
            "grains_cache": True,
        },
    )
    install_unit(host, "minion")
    (host.root / "etc/apt/apt.conf.d/80lab").write_text(
        f'Acquire::http::Proxy "http://{HUB_ADDRESS}:{MIRROR_PORT}";\n'
    )
    (host.root / "etc/hosts").write_text(
        f"127.0.0.1 localhost\n{node.address} {node.minion_id} {node.name}\n"
        f"{MASTER_ADDRESS} master\n{HUB_ADDRESS} hub\n"
    )
