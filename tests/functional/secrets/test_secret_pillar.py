"""Secrets in pillar, compiled by Salt's own machinery against AWS on loopback."""

import copy
from pathlib import Path

import pytest
import salt.config
import salt.pillar
import yaml

from tests.support.loading import REPOSITORY

PBX = "pbx-01.prod-euw2"
SIP = "sip-01.prod-euw2"
GRANTS = [
    {"names": ["parameter:/voice/{workspace}/{role}/*", "parameter:rt.certificate.*"]},
]
SECRETS = {
    "esl-password": {
        "parameter": "/voice/{workspace}/{role}/esl-password",
        "dummy": "esl-not-a-secret",
    },
    "key": {"parameter": "rt.certificate.default.key", "dummy": "key-not-a-secret"},
    "proxy": {"parameter": "/voice/{workspace}/sip/proxy"},
    "banner": {"parameter": "/voice/{workspace}/{role}/banner", "required": False},
}


class Compiler:
    """Compiles a pillar of ``content`` for a minion, through aws_secrets alone."""

    def __init__(self, directory: Path, memory: Path) -> None:
        self.tree = directory / "pillar"
        self.tree.mkdir()
        self.grants = directory / "grants.yaml"
        self.options = {
            "grants": str(self.grants),
            "region": "eu-west-2",
            "cache": str(memory / "secrets"),
            "dummies": ["lab"],
        }
        self.opts = salt.config.DEFAULT_MASTER_OPTS.copy()
        self.opts.update(
            cachedir=str(directory / "salt"),
            extension_modules=str(directory / "extmods"),
            sock_dir=str(directory),
            pki_dir=str(directory),
            file_roots={"base": []},
            pillar_roots={"base": [str(self.tree)]},
            pillar_dirs=[str(REPOSITORY / "_pillar")],
            utils_dirs=[str(REPOSITORY / "_utils")],
            file_client="local",
        )
        self.write({"freeswitch": {"esl_password": {"secret": "esl-password"}}})

    def write(self, content: dict, secrets: dict = SECRETS, grants: list = GRANTS) -> None:
        (self.tree / "top.sls").write_text("base: {'*': [all]}\n")
        (self.tree / "all.sls").write_text(yaml.safe_dump({"secrets": secrets, **content}))
        self.grants.write_text(yaml.safe_dump(grants))

    def __call__(self, minion_id: str, grains: dict | None = None, **override: object) -> dict:
        self.opts["ext_pillar"] = [{"aws_secrets": self.options}]
        return salt.pillar.Pillar(
            copy.deepcopy(self.opts), grains or {}, minion_id, "base", pillar_override=override
        ).compile_pillar()


@pytest.fixture
def compiled(tmp_path: Path, memory: Path) -> Compiler:
    return Compiler(tmp_path, memory)


def test_node_of_an_account_of_dummies_gets_them_without_aws(compiled):
    assert compiled("pbx-01.lab-local")["secret_values"] == {"esl-password": "esl-not-a-secret"}


def test_reference_is_read_from_where_it_is_declared(compiled, aws):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": "V4lue"})
    pillar = compiled(PBX)
    assert "_errors" not in pillar
    assert pillar["secret_values"] == {"esl-password": "V4lue"}
    assert pillar["freeswitch"] == {"esl_password": {"secret": "esl-password"}}
