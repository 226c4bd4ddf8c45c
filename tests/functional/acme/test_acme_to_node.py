"""From the ACME server through pillar to a node: issued, stored, compiled, deployed."""

import copy
import shutil
from pathlib import Path

import pytest
import salt.config
import salt.loader
import salt.pillar
import yaml

from guardian.fleet import pillar
from tests.support.aws import REGION, in_memory
from tests.support.loading import REPOSITORY

MINION = "pbx-01.prod-euw2"
SECRET = "rt/certificate/default"


@pytest.fixture(params=["file", "secretsmanager"])
def stored(request, master, aws, monkeypatch):
    """Where the certificate is kept, as the master's configuration and as pillar have it."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    if request.param == "file":
        return {"file": str(master.file)}
    aws.reset()
    aws.client("secretsmanager").create_secret(Name=SECRET)
    master.wanted["store"] = {"secretsmanager": SECRET, "region": REGION}
    return {"secretsmanager": SECRET}


class Node:
    """A node whose pillar is compiled by the master's external pillar, and its loader."""

    def __init__(self, root: Path, memory: Path, stored: dict) -> None:
        tree = root / "pillar"
        (tree / "workspaces").mkdir(parents=True)
        shutil.copy(REPOSITORY / "pillar" / "fleet.yaml", tree)
        fleet = {"pbx-01": {"role": "pbx", "zone": "a", "address": "192.0.2.1"}}
        (tree / "workspaces/prod-euw2.sls").write_text(yaml.safe_dump({"fleet": fleet}))
        (tree / "top.sls").write_text("base: {'*': [certificates]}\n")
        content = {
            "secrets": {
                f"certificate-default-{part}": {**stored, "field": part}
                for part in ("chain", "key")
            },
            "certificates": {
                "default": {
                    "chain": {"secret": "certificate-default-chain"},
                    "key": {"secret": "certificate-default-key"},
                    "dns_names": ["pbx.example.net"],
                }
            },
        }
        (tree / "certificates.sls").write_text(yaml.safe_dump(content))
        grants = root / "grants.yaml"
        grants.write_text(
            yaml.safe_dump([{"names": [f"{kind}:{name}"]} for kind, name in stored.items()])
        )
        self._directory = str(root / "tls")
        secrets = {"grants": str(grants), "region": REGION, "cache": str(memory / "secrets")}
        self.ext_pillar = [{"aws_secrets": secrets}]
        self._opts = salt.config.DEFAULT_MINION_OPTS.copy()
        self._opts.update(
            id=MINION,
            root_dir=str(root),
            cachedir=str(root / "node"),
            extension_modules=str(root / "node-extmods"),
            sock_dir=str(root),
            pki_dir=str(root),
            file_client="local",
            file_roots={"base": []},
            grains={},
            pillar_roots={"base": [str(tree)]},
            pillar_dirs=[str(REPOSITORY / "_pillar")],
            utils_dirs=[str(REPOSITORY / "_utils")],
            module_dirs=[str(REPOSITORY)],
            ext_pillar=self.ext_pillar,
        )

    def deploy(self):
        """Compile the pillar anew and deploy what it holds."""
        opts = copy.deepcopy(self._opts)
        opts["pillar"] = salt.pillar.Pillar(
            copy.deepcopy(opts), {}, MINION, "base"
        ).compile_pillar()
        assert "_errors" not in opts["pillar"]
        modules = salt.loader.minion_mods(opts, utils=salt.loader.utils(opts))
        return modules["certificate.deploy"](
            "default", dns_names=["pbx.example.net"], directory=self._directory
        )


@pytest.fixture
def node(tmp_path, stored):
    with in_memory() as memory:
        yield Node(tmp_path / "node", memory, stored)


def deployed(node):
    changes = node.deploy()["changes"]
    return changes["certificate"]["new"]["fingerprint"] if changes else None


def test_issued_certificate_is_deployed_and_so_is_the_next(master, node, monkeypatch):
    asked = []
    monkeypatch.setattr(pillar, "refresh", lambda opts, minions: asked.append(minions))
    master.options = {"ext_pillar": node.ext_pillar}
    first = master.run("issue", "default")["default"]["fingerprint"]
    assert first.startswith(deployed(node))
    assert deployed(node) is None
    assert asked == []  # nobody used it before there was one
    second = master.run("issue", "default")["default"]["fingerprint"]
    assert asked == [[MINION]]
    assert second.startswith(deployed(node))


@pytest.mark.parametrize("stored", ["file"], indirect=True)
def test_node_that_is_not_told_is_a_failure_and_loses_nothing(master, node):
    master.options = {"ext_pillar": node.ext_pillar}
    master.run("issue", "default")
    node.deploy()
    told = master.run("issue", "default")  # with no master that would publish
    assert (told["default"]["result"], told["retcode"]) == (True, 1)
    assert "stored, but nodes do not know yet: the master does not publish" in told["comment"]
    assert told["default"]["fingerprint"].startswith(deployed(node))
