"""The enrolment report, from real key directories and the real pillar."""

import pytest
import salt.config
import salt.loader

from tests.functional.test_pillar import Compiler
from tests.support.loading import REPOSITORY

PUBLIC = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD9\n"
PUBLIC += "-----END PUBLIC KEY-----\n"


@pytest.fixture
def report(tmp_path):
    """Run the runner on a master that holds these keys."""

    def run(workspace, accepted=(), pending=()):
        given = {
            **Compiler(tmp_path).opts,
            "pki_dir": str(tmp_path / "pki"),
            "runner_dirs": [str(REPOSITORY / "_runners")],
            "root_dir": "/",
        }
        opts = salt.config.apply_master_config(given)
        opts["__role"] = "master"
        for kind, names in (("minions", accepted), ("minions_pre", pending)):
            directory = tmp_path / "pki" / kind
            directory.mkdir(parents=True, exist_ok=True)
            for name in names:
                (directory / name).write_text(PUBLIC)
        for kind in ("minions_denied", "minions_rejected"):
            (tmp_path / "pki" / kind).mkdir(exist_ok=True)
        return salt.loader.runner(opts)["enrolment.report"](workspace)

    return run


def test_accepted_keys_are_held_against_the_fleet(report):
    seen = report(
        "lab-local",
        accepted=["sip-01.lab-local", "pbx-01.lab-local", "pbx-77.lab-local", "pbx-01.prod-euw2"],
        pending=["fsx-01.lab-local", "pbx-99.stage-euw2"],
    )
    assert seen["accepted"] == ["pbx-01.lab-local", "sip-01.lab-local"]
    assert seen["strangers"] == ["pbx-77.lab-local"]
    assert seen["missing"] == ["fsx-01.lab-local", "pbx-02.lab-local"]
    (fingerprint,) = seen["pending"].values()
    assert list(seen["pending"]) == ["fsx-01.lab-local"]
    assert len(fingerprint.split(":")) == 32


def test_workspace_without_a_known_node_trusts_nobody(report):
    seen = report("prod-euw2", accepted=["pbx-01.prod-euw2"])
    assert seen == {
        "accepted": [],
        "strangers": ["pbx-01.prod-euw2"],
        "missing": [],
        "pending": {},
    }
