"""The lab's Salt master, a host like the others, and what is asked of it from outside."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.host import Host
from lab.minion import BIN, install_unit, write_config
from lab.names import LabError, Node

REPOSITORY = "/srv/guardian"
OUTPUTS = "/srv/guardian-outputs"
_CONFIG: dict[str, object] = {
    "interface": "0.0.0.0",
    "transport": "tcp",
    "user": "root",
    "worker_threads": 3,
    "file_roots": {"base": [f"{REPOSITORY}/salt"]},
    "pillar_roots": {"base": [f"{REPOSITORY}/pillar"]},
    "pillar_dirs": [f"{REPOSITORY}/_pillar"],
    "utils_dirs": [f"{REPOSITORY}/_utils"],
    "runner_dirs": [f"{REPOSITORY}/_runners"],
    "engines_dirs": [f"{REPOSITORY}/_engines"],
    "ext_pillar": [
        {"stack_outputs": {"path": OUTPUTS}},
        {"fleet_node": True},
        {
            "aws_secrets": {
                "grants": f"{REPOSITORY}/pillar/grants.yaml",
                "cache": "/run/guardian/secrets",
                "dummies": ["lab"],
            }
        },
        {"pillar_schema": {"path": f"{REPOSITORY}/pillar/schema"}},
        {"secrets_sealed": {"plain": ["lab"]}},
    ],
    "on_demand_ext_pillar": [],
    "reactor": [{"salt/minion/*/start": [f"{REPOSITORY}/reactor/minion_start.sls"]}],
    "log_level_logfile": "info",
    "keep_jobs_seconds": 86400,
    "minion_data_cache": False,
    "gather_job_timeout": 5,
    "timeout": 15,
}


def configure(host: Host, nodes: Iterable[Node], extra: dict[str, object]) -> None:
    """Write a prepared, not yet booted master's configuration and accept the nodes' keys."""
    write_config(host.root / "etc/salt/master", {**_CONFIG, **extra})
    accepted = host.root / "etc/salt/pki/master/minions"
    accepted.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        shutil.copy(
            host.names.directory / "keys" / node.minion_id / "minion.pub", accepted / node.minion_id
        )
    install_unit(host, "master")
    (host.root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 master\n")


class Returns:
    """The returns of jobs nobody of us published, as the master's event bus tells them."""

    def __init__(self, master: Host) -> None:
        script = f"{REPOSITORY}/lab/onmaster.py"
        self._process = subprocess.Popen(
            master.command([str(BIN / "python"), script]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = self._process.stdout.readline() if self._process.stdout else ""
        if not first:
            said = self._process.stderr.read().strip() if self._process.stderr else ""
            raise LabError(f"master: its event bus cannot be read: {said.splitlines()[-1:]}")

    def read(self, seconds: float) -> Iterator[dict[str, object]]:
        """Yield returns until `seconds` have passed or the reader is closed."""
        timer = threading.Timer(seconds, self.close)
        timer.start()
        try:
            for line in self._process.stdout or ():
                yield json.loads(line)
        finally:
            timer.cancel()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def read_json_documents(text: str) -> list[dict[str, object]]:
    """Parse the documents that `salt --out=json --static` and friends print one after another."""
    decoder, documents, at = json.JSONDecoder(), [], 0
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        document, at = decoder.raw_decode(text, at)
        documents.append(document)
    return documents


def log(host: Host) -> Path:
    return host.root / "var/log/salt/master"
