"""The Vagrantfile is valid, names the whole fleet, and its master is the lab's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab import master
from lab.names import HUB_ADDRESS, MASTER_ADDRESS, REPOSITORY, fleet
from lab.vagrant import trial
from lab.vagrant.box import GATEWAY

SCRIPTS = sorted((REPOSITORY / "lab/vagrant").glob("*.sh"))
needs_vagrant = pytest.mark.skipif(
    shutil.which("vagrant") is None,
    reason="vagrant is not installed: apt-get install --no-install-recommends vagrant",
)


def vagrant(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["vagrant", *words],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "VAGRANT_HOME": str(home / "home"),
            "VAGRANT_DOTFILE_PATH": str(home / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_vagrant
def test_vagrantfile_is_valid_for_every_machine(tmp_path):
    done = vagrant(tmp_path, "validate", "--ignore-provider")
    assert done.returncode == 0, done.stderr
    assert "Vagrantfile validated successfully." in done.stdout
    for name in ("master", *(node.name for node in fleet())):
        assert f"==> {name}: " in done.stdout


@needs_vagrant
def test_keys_are_made_once_and_kept_from_other_users(tmp_path):
    vagrant(tmp_path, "validate", "--ignore-provider")
    keys = tmp_path / "machines" / "keys"
    private = {node.name: keys / f"{node.name}.pem" for node in fleet()}
    first = {name: path.read_bytes() for name, path in private.items()}
    assert len(set(first.values())) == len(first)
    assert {path.stat().st_mode & 0o777 for path in private.values()} == {0o600}
    for path in private.values():
        public = subprocess.run(
            ["openssl", "rsa", "-in", path, "-pubout"], capture_output=True, check=True
        ).stdout
        assert Path(f"{path}.pub").read_bytes() == public
    vagrant(tmp_path, "validate", "--ignore-provider")
    assert {name: path.read_bytes() for name, path in private.items()} == first


def test_addresses_are_the_labs():
    text = (REPOSITORY / "Vagrantfile").read_text()
    assert f'master_address = "{MASTER_ADDRESS}"' in text
    assert f'packages_address = "{HUB_ADDRESS}"' in text
    assert f'host_address = "{GATEWAY}"' in text


def test_master_is_configured_as_in_the_lab():
    ours = yaml.safe_load((REPOSITORY / "lab/vagrant/master.yaml").read_text())
    # The provisioner applies the first highstate, so there is no reactor; a log level is taste.
    labs = {k: v for k, v in master._CONFIG.items() if k not in ("reactor", "log_level_logfile")}
    assert ours == labs


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_shell_and_may_be_run(script):
    assert os.access(script, os.X_OK)
    done = subprocess.run(["sh", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bootstrap_refuses_an_option_it_does_not_know(tmp_path):
    baked = tmp_path / "bin"
    baked.mkdir()
    (baked / "salt-call").write_text("")
    (baked / "salt-call").chmod(0o755)
    script = tmp_path / "bootstrap.sh"
    text = (REPOSITORY / "lab/vagrant/bootstrap.sh").read_text()
    script.write_text(text.replace("BAKED=/opt/salt/bin", f"BAKED={baked}"))
    done = subprocess.run(["sh", script, "-S", "stable"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["bootstrap: option -S is not for a box with Salt in it"]


def test_counted_adds_errors_to_failures(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="9"/></testsuites>'
    )
    assert trial.counted(report) == {"tests": 9, "failed": 3, "skipped": 3}


def test_trial_says_in_one_line_what_is_missing(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(trial.shutil, "which", lambda tool: None)
    result = trial.run(quick=True)
    assert result["ok"] is False
    assert result["error"] == "vagrant is missing: apt-get install vagrant"
    assert result["seconds"] == {}


def test_specifications_are_not_run_on_this_machine():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/testinfra", "--collect-only", "-q"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
