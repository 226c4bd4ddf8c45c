"""Every role of every workspace, offline: pillar and states compile, and the tree is fit."""

import json

import pytest
import yaml

from guardian.workspace import REGIONS
from tests.functional.pillar.conftest import DAEMONS, UTILS
from tests.support import workspaces

ROLES = ("sip", "pbx", "fsx")
EVERY = [(workspace, role) for workspace in workspaces.workspaces() for role in ROLES]
RELEASES = ([3, 4, 18], [3, 6, 8], [4, 0, 1])
FREESWITCH = (1, 10, 12)


@pytest.mark.parametrize(("workspace", "role"), EVERY)
def test_role_of_a_workspace_compiles(region, workspace, role):
    pillar = region.pillar(region.one(workspace, role))
    assert pillar["node"]["role"] == role
    assert pillar["node"]["workspace"] == workspace
    assert DAEMONS[role] in pillar
    references = set(dict(UTILS["secret_refs.found"](_but_sources(pillar))).values())
    assert references == set(pillar["secret_values"])


def _but_sources(pillar):
    return {key: value for key, value in pillar.items() if key not in ("secrets", "secret_values")}


@pytest.mark.parametrize(("workspace", "role"), EVERY)
def test_its_states_compile(region, workspace, role):
    chunks = region.low(region.one(workspace, role))
    assert [chunk for chunk in chunks if not isinstance(chunk, dict)] == []
    ours = [chunk["fun"] for chunk in chunks if chunk["state"] == DAEMONS[role]]
    assert ours == ["installed", "configured", "running"]
    assert not any("not-a-secret" in str(chunk) or "PRIVATE KEY" in str(chunk) for chunk in chunks)


@pytest.mark.parametrize(("workspace", "role"), [one for one in EVERY if one[1] != "sip"])
def test_tree_of_a_freeswitch_passes_the_checks_of_the_house(region, workspace, role):
    tree = region.tree(region.one(workspace, role))
    document = UTILS["fsxml.load"](tree)
    assert UTILS["fsxml.check"](document) == []
    assert UTILS["fs_dialplan.check"](document) == []
    assert UTILS["fs_policy.check"](document, FREESWITCH) == []


@pytest.mark.parametrize("workspace", workspaces.workspaces())
def test_tree_of_a_proxy_passes_the_checks_of_the_house(region, workspace):
    for release in RELEASES:
        more = {"release": release, "local_driver": "sqlite", "draining": False, "withdrawn": []}
        tree = region.tree(region.one(workspace, "sip"), **more)
        assert UTILS["opensips_lint.problems"](tree) == [], release


# -- the tree itself -----------------------------------------------------------------------------


def test_every_workspace_of_every_account_with_voice_nodes_has_its_file():
    accounts = workspaces.catalogue()["accounts"]
    wanted = [
        f"{name}-{region}"
        for name, account in accounts.items()
        for region in account["regions"]
        if account["roles"]
    ]
    assert workspaces.workspaces() == sorted(wanted)


def test_every_layer_is_named_by_the_top_and_given_to_the_workspaces_it_is_for(region):
    """`'*.prod-*': accounts.prod`, and no layer is left out."""
    top = yaml.safe_load((workspaces.PILLAR / "top.sls").read_text())["base"]
    named = [one for layers in top.values() for one in layers if isinstance(one, str)]
    files = [file.relative_to(workspaces.PILLAR) for file in workspaces.PILLAR.rglob("*.sls")]
    there = [".".join(file.with_suffix("").parts) for file in files if file.name != "top.sls"]
    assert sorted(named) == sorted(there)
    patterns = {"accounts": "*.{}-*", "regions": "*.*-{}", "roles": "{}-*", "workspaces": "*.{}"}
    for pattern, layers in top.items():
        for layer in (one for one in layers if isinstance(one, str)):
            kind, _, name = layer.partition(".")
            if kind in patterns:
                assert pattern == patterns[kind].format(name), layer


@pytest.mark.parametrize(
    "file",
    sorted(workspaces.PILLAR.rglob("*.sls")),
    ids=lambda file: f"{file.parent.name}/{file.stem}",
)
def test_layer_is_short_and_chosen_by_the_id_alone(file):
    text = file.read_text()
    assert text.startswith("#"), "says in one line what it is for"
    assert "grains" not in text.replace("grains are the minion's own word", "")
    assert file.stem in ("top", "dummies") or len(text.splitlines()) <= 60
    assert not any(word in text for word in ("{% if", "{%- if", "{% for m", "minion_id"))


@pytest.mark.parametrize("file", sorted((workspaces.PILLAR / "workspaces").glob("*.sls")), ids=str)
def test_workspace_file_is_plain_yaml_for_it_says_who_is_trusted(file):
    assert isinstance(yaml.safe_load(file.read_text()), dict)
    assert "{%" not in file.read_text()


def test_every_secret_has_a_dummy_that_nobody_takes_for_a_secret(region):
    secrets = region.pillar(region.one("prod-euw2", "sip"))["secrets"]
    for name, declared in secrets.items():
        dummy = declared.get("dummy")
        if declared.get("required", True):
            assert dummy, f"{name}: pillar/dummies.sls has none"
        assert dummy is None or "not-a-secret" in dummy or "-----BEGIN" in dummy, name


def test_regions_are_those_that_workspaces_may_name():
    assert set(workspaces.catalogue()["regions"]) == set(REGIONS)


# -- what layers are for -------------------------------------------------------------------------


def test_endpoints_are_the_node_s_own_and_an_output_overrides_a_layer(region):
    services = region.pillar(region.one("stage-apse2", "fsx"))["services"]
    assert services["service-gateway"] == "https://service-gateway.apse2.stage.voice.internal"
    assert services["core-api"] == "https://core-api-0a1b2c.apse2.elb.example.com"


def test_workers_are_told_services_switches_and_where_their_secrets_are(region):
    minion_id = region.one("prod-euw2", "fsx")
    pillar, chunks = region.pillar(minion_id), region.low(minion_id)
    (settings,) = (one for one in chunks if one["name"] == "/etc/fsx/settings.json")
    assert settings["dataset"]["services"] == pillar["services"]
    assert settings["dataset"]["features"]["transcription"] is True
    (token,) = (one for one in chunks if one["name"] == "/etc/fsx/credentials/core-api-token")
    assert (token["state"], token["content"]) == ("secret_file", {"secret": "core-api-token"})


def test_switch_of_an_account_reaches_the_dialplan(region):
    for workspace, on in (("dev01-use2", "true"), ("prod-euw2", "false")):
        tree = region.tree(region.one(workspace, "pbx"))
        assert f'data="feature_echo={on}"'.encode() in tree["vars.xml"]


def test_carriers_of_production_are_regional_and_development_has_none(region):
    def addresses(workspace):
        gateways = region.pillar(region.one(workspace, "sip"))["opensips"]["gateways"]
        return {entry["address"] for entry in gateways.values()}

    prod = [one for one in workspaces.workspaces() if one.startswith("prod-")]
    seen = [addresses(one) for one in prod]
    assert len(set.union(*seen)) == sum(map(len, seen)), "no two regions share one"
    assert addresses("dev01-use2") == {"10.90.0.10"}


def test_country_that_is_not_listed_is_called_from_nowhere_in_production(region):
    for workspace in (one for one in workspaces.workspaces() if one.startswith("prod-")):
        rules = region.pillar(region.one(workspace, "sip"))["opensips"]["outbound"]
        prefixes = [rule["prefix"] for rule in rules]
        assert "44" in prefixes
        assert not any("93".startswith(prefix) for prefix in prefixes)


def test_database_of_a_proxy_is_where_its_stack_says(region):
    remote = region.pillar(region.one("prod-euw2", "sip"))["opensips"]["database"]["remote"]
    assert remote["host"] == "voice.euw2.rds.example.com"
    assert remote["password"] == {"secret": "database-password"}


def test_proxies_of_a_workspace_are_a_cluster_of_the_same_numbers(region):
    fleet = workspaces.fleet("prod-euw2", region.compiled.outputs)
    first, second = (
        region.pillar(f"{name}.prod-euw2")["opensips"]["cluster"]
        for name, entry in fleet.items()
        if entry["role"] == "sip"
    )
    assert first == second
    assert sorted(entry["id"] for entry in first["nodes"].values()) == [1, 2]


def test_nodes_hold_no_secret_of_another_role(region):
    names = {
        role: set(region.pillar(region.one("prod-euw2", role))["secret_values"]) for role in ROLES
    }
    assert "database-password" in names["sip"]
    assert "database-password" not in names["pbx"] | names["fsx"]
    assert "core-api-token" in names["fsx"]
    assert "core-api-token" not in names["sip"] | names["pbx"]
    assert "esl-password" not in names["sip"]


def test_ports_in_the_catalogue_are_those_that_nodes_open(region):
    """docs/fleet.md tells firewalls what to let through."""
    roles = workspaces.catalogue()["roles"]
    said = {
        role: {(str(one["port"]), one["protocol"]) for one in roles[role]["ports"]}
        for role in ROLES
    }
    proxy = region.context(region.one("prod-euw2", "sip"))
    opened = {(str(one["port"]), one["proto"]) for one in proxy["sockets"]}
    opened |= {(str(proxy["health"]["port"]), "tcp"), ("5555", "bin")}
    assert said["sip"] == opened
    for role in ("pbx", "fsx"):
        switch = region.context(region.one("prod-euw2", role))
        opened = {(str(one["port"]), "udp") for one in switch["profiles"].values()}
        opened |= {(f"{switch['rtp']['start_port']}-{switch['rtp']['end_port']}", "udp")}
        if role == "fsx":
            ports = region.pillar(region.one("prod-euw2", "fsx"))["fsx"]["ports"]
            opened |= {(f"{min(ports)}-{max(ports)}", "tcp")}
        assert said[role] == opened, json.dumps(sorted(opened))
