"""Every secret that a node refers to is granted to it, and what is of its role to no other."""

from pathlib import Path

import pytest

from guardian.secrets import declarations, grants, node
from guardian.secrets.failures import SecretError
from tests.functional.test_pillar import Compiler
from tests.support import workspaces
from tests.support.loading import REPOSITORY
from tests.support.secrets import UTILS

ROLES = ("sip", "pbx", "fsx")
ACCOUNTS = {one.partition("-")[0]: one for one in workspaces.workspaces() if "lab" not in one}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    directory: Path = tmp_path_factory.mktemp("granted")
    compiler = Compiler(directory, dummies=workspaces.accounts())
    workspaces.publish(compiler.outputs)
    return compiler


@pytest.fixture(scope="module")
def rules() -> grants.Grants:
    return grants.load(REPOSITORY / "pillar" / "grants.yaml")


def first(compiled: Compiler, workspace: str, role: str) -> str | None:
    fleet = workspaces.fleet(workspace, compiled.outputs)
    hosts = [name for name, entry in fleet.items() if entry["role"] == role]
    return f"{hosts[0]}.{workspace}" if hosts else None


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("workspace", ACCOUNTS.values())
def test_what_a_node_refers_to_is_granted_to_it_and_nothing_of_its_role_to_others(
    compiled, rules, workspace, role
):
    minion_id = first(compiled, workspace, role)
    assert minion_id, f"{workspace} has no {role}"
    pillar = compiled(minion_id)
    assert "_errors" not in pillar
    asking = node.parse(minion_id)
    others = [node.parse(f"{other}-01.{workspace}") for other in ROLES if other != role]
    others.append(node.parse(f"{role}-01.nexus-use1"))
    wanting = {key: held for key, held in pillar.items() if not key.startswith("secret")}
    names = {name for _, name in UTILS["secret_refs.found"](wanting)}
    assert names, "a voice node has secrets"
    for name in names:
        declared = declarations.parse(name, pillar["secrets"][name])
        source = declarations.source(declared, asking.fill, region=asking.region, role=asking.role)
        assert rules.find(asking, source, name)
        if f"/{workspace}/{role}/" in source.name:
            for other in others:
                with pytest.raises(SecretError):
                    rules.find(other, source, name)
