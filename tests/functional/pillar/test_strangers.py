"""A minion obtains nothing that is another's, whatever it says of itself or sends along."""

import copy
import json
from typing import Any

import pytest
import salt.pillar
import yaml

from guardian.secrets import declarations, node
from tests.functional.test_pillar import Compiler
from tests.support import workspaces

PBX = "pbx-006a1.prod-euw2"
SIP = "sip-006a1.prod-euw2"
FAR = "pbx-004a1.prod-apse2"
FORGED = {"pbx-666": {"role": "pbx", "zone": "a", "address": "10.0.0.66"}}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """All workspaces' pillar; every account has dummies, so that what is given can be told."""
    compiler = Compiler(tmp_path_factory.mktemp("strangers"), dummies=workspaces.accounts())
    workspaces.publish(compiler.outputs)
    return compiler


def of(compiled: Compiler, minion_id: str, **request: Any) -> dict[str, Any]:
    """Compile as a master does for a request with these parts: ext, pillarenv, grains …"""
    grains = request.pop("grains", {})
    pillar = salt.pillar.get_pillar(
        copy.deepcopy(compiled.opts), grains, minion_id, request.pop("saltenv", "base"), **request
    )
    return pillar.compile_pillar()


# -- grains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grains",
    [
        {"id": SIP},
        {"id": SIP, "host": "sip-006a1", "fqdn": SIP, "localhost": "sip-006a1"},
        {"role": "sip", "roles": ["sip"], "node": {"role": "sip", "workspace": "prod-apse2"}},
        {"account": "security", "region": "apse2", "workspace": "prod-apse2"},
        {"ec2": {"region": "ap-southeast-2", "account_id": "1"}, "pillar": {"fleet": FORGED}},
    ],
    ids=lambda grains: ",".join(grains),
)
def test_forged_grains_change_nothing(compiled, grains):
    assert of(compiled, PBX, grains=grains) == of(compiled, PBX)


# -- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minion_id", "told"),
    [
        ("pbx-666.prod-euw2", "is not in the fleet of prod-euw2"),
        ("sip-106a2.prod-euw2", "is not in the fleet of prod-euw2"),
        ("fsx-006a1.prod-apse2", "is not in the fleet of prod-apse2"),
        ("pbx-006a1.prod-euc1", "is not in the fleet of prod-euc1"),
        ("pbx-006a1.prod-use1", "account prod has the regions"),
        ("pbx-006a1.stage-use2", "account stage has the regions"),
        ("pbx-006a1.prdo-euw2", "account prdo is unknown (did you mean prod?)"),
        ("pbx-01.nexus-use1", "account nexus (global shared services) holds no voice nodes"),
        ("sip-01.build-use1", "holds no voice nodes"),
        ("fsx-01.security-use1", "holds no voice nodes"),
        ("web-01.prod-euw2", "account prod has no role web"),
        ("pbx-006a1.prod-mars1", "region 'mars1' unknown"),
        ("pbx-006a1", "not ACCOUNT-REGIONSHORT"),
        ("pbx-006a1.prod-euw2.lab-local", "not ACCOUNT-REGIONSHORT"),
        ("pbx-006a1.prod-euw2\n", "not ACCOUNT-REGIONSHORT"),
        ("PBX-006a1.prod-euw2", "not <role>-<instance>.<workspace>"),
        ("*-*.prod-euw2", "not <role>-<instance>.<workspace>"),
        ("../pbx-006a1.prod-euw2", "not ACCOUNT-REGIONSHORT"),
        ("{role}-1.prod-euw2", "not <role>-<instance>.<workspace>"),
    ],
)
@pytest.mark.parametrize("override", [{}, {"fleet": FORGED, "node": {"id": PBX}}], ids=["", "sent"])
def test_stranger_gets_nothing_but_what_it_sent(compiled, minion_id, told, override):
    pillar = of(compiled, minion_id, pillar_override=override)
    assert set(pillar) == {"_errors", *override}
    assert told in pillar["_errors"][0]
    assert "not-a-secret" not in json.dumps(pillar)


def test_node_of_a_zone_that_its_region_has_not_is_none(compiled):
    made = {"pbx-ffff": {"role": "pbx", "zone": "z", "address": "10.106.10.99"}}
    compiled.publish("rt-pbx", json.dumps({"nodes": made}), workspace="qa02-usw2")
    pillar = of(compiled, "pbx-ffff.qa02-usw2")
    assert set(pillar) == {"_errors"}
    assert "fleet:pbx-ffff:zone: region usw2 has the zones a, b, c" in pillar["_errors"][0]


# -- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        {"fleet": FORGED},
        {"from_stacks": {"fleet": ["mine:nodes"]}, "stack": {"mine": {"nodes": FORGED}}},
        {"node": {"id": SIP, "role": "sip", "name": "sip-006a1", "workspace": "prod-euw2"}},
    ],
    ids=lambda override: ",".join(override),
)
def test_override_makes_nobody_a_member(compiled, override):
    pillar = of(compiled, "pbx-666.prod-euw2", pillar_override=override)
    assert set(pillar) == {"_errors", *override}


def test_override_of_who_it_is_gives_a_node_no_other_role_s_secret(compiled):
    """It may refer to what it likes: sources are filled in and granted by its id alone."""
    asked = {
        "node": {"role": "sip", "id": SIP},
        "secrets": {"mine": {"parameter": "/voice/prod-euw2/sip/database-password"}},
        "freeswitch": {"variables": {"stolen": {"secret": "mine"}}},
    }
    pillar = of(strict(compiled), PBX, pillar_override=asked)
    assert "secret_values" not in pillar
    name = "parameter /voice/prod-euw2/sip/database-password"
    assert f"no grant gives {name} to role pbx of prod-euw2" in "\n".join(pillar["_errors"])


@pytest.mark.parametrize(
    ("minion_id", "source"),
    [
        (PBX, {"parameter": "/voice/prod-apse2/pbx/esl-password"}),
        (PBX, {"parameter": "/voice/{workspace}/sip/database-password"}),
        (PBX, {"parameter": "/voice/stage-euw2/pbx/esl-password"}),
        (PBX, {"parameter": "/voice/prod-euw2/hosts/pbx-106a1/x"}),
        (PBX, {"parameter": "omni.rm-coreapi.auth-token"}),
        (SIP, {"secretsmanager": "voice/prod-euw2/pbx/x"}),
        (FAR, {"parameter": "/voice/prod-euw2/pbx/esl-password"}),
        (FAR, {"file": "/etc/shadow"}),
    ],
    ids=lambda one: one if isinstance(one, str) else next(iter(one.values())),
)
def test_source_of_another_is_refused_before_it_is_asked_for(compiled, minion_id, source):
    component = "opensips" if minion_id.startswith("sip") else "freeswitch"
    place = (
        {"registrar": {"users": {"voice.example.com": {"1": {"ha1": {"secret": "mine"}}}}}}
        if component == "opensips"
        else {"variables": {"stolen": {"secret": "mine"}}}
    )
    override = {"secrets": {"mine": source}, component: place}
    pillar = of(strict(compiled), minion_id, pillar_override=override)
    assert "secret_values" not in pillar
    assert "no grant gives" in "\n".join(pillar["_errors"])


def strict(compiled: Compiler) -> Compiler:
    """Return the same compiler on a master whose accounts have no dummies; it reaches no AWS."""
    real = copy.copy(compiled)
    real.opts = copy.deepcopy(compiled.opts)
    for one in real.opts["ext_pillar"]:
        if "aws_secrets" in one:
            one["aws_secrets"]["dummies"] = []
    return real


# -- on-demand pillar, environments, the loader --------------------------------------------------


@pytest.mark.parametrize(
    "ext",
    [
        {"git": [{"https://evil.example.com/pillar.git": [{"env": "base"}]}]},
        {"cmd_yaml": "cat /etc/shadow"},
        {"aws_secrets": {"grants": "/nonexistent/grants.yaml", "dummies": []}},
        {"fleet_node": True},
        {"stack_outputs": {"path": "/"}},
    ],
    ids=lambda ext: next(iter(ext)),
)
@pytest.mark.parametrize("minion_id", [PBX, "pbx-666.prod-euw2"], ids=["node", "stranger"])
def test_on_demand_pillar_gives_nothing_more(compiled, ext, minion_id):
    assert of(compiled, minion_id, ext=ext) == of(compiled, minion_id)


@pytest.mark.parametrize("environment", ["dev", "../base", "stage"])
def test_another_environment_holds_no_layer_and_no_secret(compiled, environment):
    pillar = of(compiled, PBX, saltenv=environment, pillarenv=environment)
    assert "secret_values" not in pillar
    assert "_errors" in pillar


def test_nodes_of_one_role_in_two_regions_ask_for_different_secrets():
    """What {workspace} and {role} stand for, in every declaration that has them."""
    common = workspaces.PILLAR / "common.sls"
    declared = yaml.safe_load(common.read_text())["secrets"]
    own = [name for name, entry in declared.items() if "{workspace}" in entry["parameter"]]
    assert len(own) >= 5
    for name in own:
        parsed = declarations.parse(name, declared[name])
        asked = {declarations.source(parsed, node.parse(one).fill).name for one in (PBX, SIP, FAR)}
        assert len(asked) == 3, name
