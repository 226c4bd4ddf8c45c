"""What each minion is given, compiled by Salt's own pillar machinery from the tree as it is."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.pillar
import yaml

from tests.support.loading import REPOSITORY
from tests.support.secrets import master

NODES = {
    "sip-01.lab-local": "opensips",
    "pbx-01.lab-local": "freeswitch",
    "pbx-02.lab-local": "freeswitch",
    "fsx-01.lab-local": "freeswitch",
}


class Compiler:
    """Compiles pillar as the lab's master does; ``override`` is what a person gives on the side."""

    def __init__(self, directory: Path, pillar: Path = REPOSITORY / "pillar", **given: Any) -> None:
        self.outputs = directory / "outputs"
        self.opts = salt.config.DEFAULT_MASTER_OPTS.copy()
        self.opts.update(
            cachedir=str(directory / "cache"),
            extension_modules=str(directory / "extmods"),
            sock_dir=str(directory),
            pki_dir=str(directory),
            file_roots={"base": [str(REPOSITORY / "salt")]},
            file_client="local",
            **master(self.outputs, pillar, **given),
        )

    def publish(self, stack: str, content: str, workspace: str = "lab-local") -> None:
        file = self.outputs / workspace / f"{stack}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def __call__(self, minion_id: str, grains: dict | None = None, **override: object) -> dict:
        return salt.pillar.Pillar(
            copy.deepcopy(self.opts), grains or {}, minion_id, "base", pillar_override=override
        ).compile_pillar()

    def errors(self, *arguments: object, **keywords: object) -> str:
        found = self(*arguments, **keywords)
        assert "_errors" in found, "it compiled"
        return "\n".join(found["_errors"])


@pytest.fixture
def compiled(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


@pytest.mark.parametrize("minion_id", NODES)
def test_every_node_of_the_fleet_compiles(compiled, minion_id):
    pillar = compiled(minion_id)
    assert "_errors" not in pillar
    assert pillar["node"]["id"] == minion_id
    assert pillar["node"]["address"] == pillar["fleet"][pillar["node"]["name"]]["address"]
    assert NODES[minion_id] in pillar


def test_fleet_and_this_test_know_the_same_nodes(compiled):
    fleet = compiled("sip-01.lab-local")["fleet"]
    assert {f"{name}.lab-local" for name in fleet} == set(NODES)


def test_proxy_gets_its_dispatcher_sets_from_the_fleet(compiled):
    sets = compiled("sip-01.lab-local")["opensips"]["dispatcher"]
    assert [row["uri"] for row in sets["1"]] == ["sip:10.77.0.21:5060", "sip:10.77.0.22:5060"]
    assert [row["node"] for row in sets["2"]] == ["fsx-01"]


def test_stack_output_feeds_the_key_it_is_named_for(compiled):
    compiled.publish("lab", json.dumps({"rtp_start_port": 40000, "rtp_end_port": 41000}))
    pillar = compiled("pbx-01.lab-local")
    assert pillar["freeswitch"]["rtp"] == {"start_port": 40000, "end_port": 41000}
    assert pillar["freeswitch"]["max_sessions"] == 1000, "the layers below stay"


def test_outputs_that_feed_one_key_are_joined_name_by_name(compiled):
    sources = {"services": ["rt-core-api:urls", "cai:urls"]}
    api, stream = "https://core-api.example.com", "wss://cai.example.com/stream"
    compiled.publish("rt-core-api", json.dumps({"urls": {"core-api": api}}))
    compiled.publish("cai", json.dumps({"urls": {"conversation-ai": stream}}))
    pillar = compiled("fsx-01.lab-local", from_stacks=sources)
    assert pillar["services"] == {"core-api": api, "conversation-ai": stream}
    compiled.publish("cai", json.dumps({"urls": stream}))
    said = compiled.errors("fsx-01.lab-local", from_stacks=sources)
    assert "from_stacks:services: outputs that are joined must be mappings" in said


def with_stacks(directory: Path, sources: list[str]) -> Compiler:
    """Return a compiler of this tree in which stacks make nodes of the lab as well."""
    tree = directory / "pillar"
    shutil.copytree(REPOSITORY / "pillar", tree, ignore=shutil.ignore_patterns("schema"))
    file = tree / "workspaces/lab-local.sls"
    held = yaml.safe_load(file.read_text())
    held["from_stacks"]["fleet"] = sources
    file.write_text(yaml.safe_dump(held))
    return Compiler(directory, tree)


def test_nodes_that_stacks_made_join_the_fleet(tmp_path):
    compiled = with_stacks(tmp_path, ["rt-pbx:nodes", "fsx8:nodes"])
    made = {"pbx-0a1b2c": {"role": "pbx", "zone": "a", "address": "10.77.1.21", "standby": True}}
    others = {"fsx-0d4e5f": {"role": "fsx", "zone": "b", "address": "10.77.1.31", "calls": 30}}
    compiled.publish("rt-pbx", json.dumps({"nodes": made}))
    assert "fsx-0d4e5f" not in compiled("sip-01.lab-local")["fleet"], "its stack is yet to come"
    compiled.publish("fsx8", json.dumps({"nodes": others}))
    pillar = compiled("sip-01.lab-local")
    assert "_errors" not in pillar
    sets = pillar["opensips"]["dispatcher"]
    assert [row["node"] for row in sets["1"]] == ["pbx-01", "pbx-02", "pbx-0a1b2c"]
    assert [row.get("standby") for row in sets["1"]] == [None, None, True]
    assert [row.get("calls") for row in sets["2"]] == [None, 30]
    assert compiled("pbx-0a1b2c.lab-local")["node"]["address"] == "10.77.1.21"


@pytest.mark.parametrize(
    ("published", "told"),
    [
        ({"pbx-01": {"role": "pbx", "zone": "a", "address": "10.77.1.21"}}, "pbx-01 is in pillar/"),
        (["10.77.1.21"], "maps no host to a node"),
    ],
)
def test_fleet_of_a_stack_that_cannot_be_joined_gives_nobody_anything(tmp_path, published, told):
    compiled = with_stacks(tmp_path, ["rt-pbx:nodes"])
    compiled.publish("rt-pbx", json.dumps({"nodes": published}))
    pillar = compiled("pbx-01.lab-local", mine=1)
    assert set(pillar) == {"_errors", "mine"}
    assert told in pillar["_errors"][0]


def test_outputs_of_another_workspace_are_not_seen(compiled):
    compiled.publish("lab", json.dumps({"rtp_start_port": 1}), workspace="prod-euw2")
    assert "stack" not in compiled("pbx-01.lab-local")


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "null"])
def test_damaged_output_stops_everything(compiled, content):
    compiled.publish("lab", content)
    told = compiled.errors("pbx-01.lab-local")
    assert "lab.json: not a JSON object; run `guardian deploy lab-local` again" in told


@pytest.mark.parametrize(
    "minion_id",
    ["pbx-99.lab-local", "pbx-01.prod-euw2", "pbx-01", "PBX-01.lab-local", "sip-02.lab-local",
     "web-01.lab-local", "pbx-01.lab-local.evil", "../pbx-01.lab-local"],
)  # fmt: skip
def test_stranger_is_given_nothing_secret(compiled, minion_id):
    pillar = compiled(minion_id)
    assert set(pillar) == {"_errors"}
    assert "fleet_node" in pillar["_errors"][0]


def test_grains_choose_nothing(compiled):
    claims = {"id": "sip-01.lab-local", "role": "sip", "roles": ["sip"], "node": {"role": "sip"}}
    assert compiled("pbx-01.lab-local", grains=claims) == compiled("pbx-01.lab-local")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"freeswitch": {"max_sesions": 5}}, "unknown key (did you mean max_sessions?)"),
        ({"freeswitch": {"max_sessions": "5"}}, "max_sessions: must be integer, is string"),
        ({"freeswitch": {"max_sessions": True}}, "max_sessions: must be integer, is boolean"),
        ({"freeswitch": {"max_sessions": 0}}, "max_sessions: must be at least 1"),
        ({"freeswitch": {"rtp": {"start_port": 70000}}}, "start_port: must be at most 65535"),
        ({"freeswitch": {"esl_password": ""}}, "freeswitch:esl_password"),
        ({"freeswitch": {"gateways": {"a b": {"profile": "external"}}}}, "freeswitch:gateways"),
        ({"freeswitch": {"gateways": {"a": {}}}}, "gateways:a:profile: missing"),
        ({"freeswitch": []}, "freeswitch"),
        ({"freeswtich": {}}, "freeswtich: unknown key (did you mean freeswitch?)"),
        ({"fleet": {"pbx-99": {"role": "pbx", "address": "10.77.0.999"}}}, "fleet:pbx-99:address"),
    ],
)
def test_value_that_breaks_the_schema_is_named_and_not_shown(compiled, override, told):
    said = compiled.errors("pbx-01.lab-local", **override)
    assert told in said
    assert "lab-esl-not-a-secret" not in said


def test_long_list_of_faults_is_cut(compiled):
    wrong = {f"unknown{number}": 1 for number in range(20)}
    said = compiled.errors("pbx-01.lab-local", freeswitch=wrong)
    assert "and 15 more" in said


def test_every_top_level_key_has_a_schema_and_every_schema_a_meaning():
    for file in (REPOSITORY / "pillar" / "schema").glob("*.json"):
        schema = json.loads(file.read_text())
        assert schema["$schema"].endswith("2020-12/schema"), file
        assert schema.get("description"), file


@pytest.mark.parametrize("component", ["freeswitch", "opensips", "base"])
def test_defaults_pass_the_schema_that_pillar_must_pass(component):
    import jsonschema

    schema = json.loads((REPOSITORY / f"pillar/schema/{component}.json").read_text())
    defaults = yaml.safe_load((REPOSITORY / f"salt/{component}/defaults.yaml").read_text())
    schema.pop("required", None)
    jsonschema.Draft202012Validator(schema).validate(defaults)
