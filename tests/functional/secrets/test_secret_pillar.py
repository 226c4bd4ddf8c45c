"""Secrets in pillar, compiled by Salt's own machinery against AWS on loopback."""

import copy
import json
import logging
import shutil
from pathlib import Path

import pytest
import salt.config
import salt.pillar
import yaml

from guardian.secrets import broker
from tests.support.loading import REPOSITORY

PBX, SIP, LAB = "pbx-01.prod-euw2", "sip-01.prod-euw2", "pbx-01.lab-local"
STRANGERS = [
    "pbx-99.prod-euw2",
    "pbx-01.prod-usw2",
    "pbx-01",
    "*",
    "sip-01.prod-euw2.x",
    "../pbx-01",
]
CANARY = "c4nary-value"
GRANTS = [
    {"names": ["parameter:/voice/{workspace}/{role}/*", "parameter:rt.certificate.*"]},
    {"names": ["secretsmanager:voice/{workspace}/{role}/*", "ciphertext:*"]},
    {"names": ["acm:arn:aws:acm:*:certificate/*"]},
    {"names": ["file:/dev/shm/*"]},
]
OWN = "/voice/{workspace}/{role}"
SECRETS = {
    "esl-password": {"parameter": f"{OWN}/esl-password", "dummy": "esl-not-a-secret"},
    "key": {"parameter": "rt.certificate.default.key", "dummy": "key-not-a-secret"},
    "of-proxies": {"parameter": "/voice/prod-euw2/sip/x", "dummy": "x-not-a-secret"},
    "banner": {"parameter": f"{OWN}/banner", "required": False},
}
ESL = {"freeswitch": {"esl_password": {"secret": "esl-password"}}}


class Compiler:
    """Compiles a pillar of ``content`` for a minion, through aws_secrets alone."""

    def __init__(self, directory: Path, memory: Path) -> None:
        self.tree, self.memory = directory / "pillar", memory
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
        (self.tree / "workspaces").mkdir(parents=True)
        shutil.copy(REPOSITORY / "pillar" / "fleet.yaml", self.tree)
        for workspace in ("prod-euw2", "lab-local"):
            fleet = {
                f"{role}-01": {"role": role, "zone": "a", "address": f"10.0.0.{number}"}
                for number, role in enumerate(("pbx", "sip"), 1)
            }
            file = self.tree / "workspaces" / f"{workspace}.sls"
            file.write_text(yaml.safe_dump({"fleet": fleet}))
        self.write(ESL)

    def write(self, content: dict, secrets: object = SECRETS, grants: list = GRANTS) -> None:
        (self.tree / "top.sls").write_text("base: {'*': [all]}\n")
        (self.tree / "all.sls").write_text(yaml.safe_dump({"secrets": secrets, **content}))
        self.grants.write_text(yaml.safe_dump(grants))

    def __call__(self, minion_id: str, grains: dict | None = None, **override: object) -> dict:
        self.opts["ext_pillar"] = [{"aws_secrets": self.options}]
        return salt.pillar.Pillar(
            copy.deepcopy(self.opts), grains or {}, minion_id, "base", pillar_override=override
        ).compile_pillar()

    def values(self, *arguments: object, **keywords: object) -> dict:
        pillar = self(*arguments, **keywords)
        assert "_errors" not in pillar
        return pillar.get("secret_values", {})

    def error(self, *arguments: object, **keywords: object) -> str:
        pillar = self(*arguments, **keywords)
        assert "_errors" in pillar, "it compiled"
        assert "secret_values" not in pillar, "an error, and secrets nevertheless"
        (told,) = pillar["_errors"]
        assert "\n" not in told
        assert CANARY not in json.dumps(pillar)
        return told.removeprefix("Failed to load ext_pillar aws_secrets: ")


@pytest.fixture
def compiled(tmp_path: Path, memory: Path) -> Compiler:
    return Compiler(tmp_path, memory)


def declare(compiled: Compiler, **entry: object) -> None:
    """Have the pillar refer to one secret, x, that is declared so."""
    compiled.write({"freeswitch": {"x": {"secret": "x"}}}, {"x": entry})


def test_node_of_an_account_of_dummies_gets_them_without_aws_or_cache(compiled):
    assert compiled.values(LAB) == {"esl-password": "esl-not-a-secret"}
    assert not (compiled.memory / "secrets").exists()


def test_reference_is_read_from_where_it_is_declared(compiled, aws):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": CANARY})
    pillar = compiled(PBX)
    assert pillar["secret_values"] == {"esl-password": CANARY}
    assert pillar["freeswitch"] == {"esl_password": {"secret": "esl-password"}}


def test_nothing_is_asked_for_but_what_is_referred_to(compiled, aws):
    compiled.write({"base": {"motd": "hello"}})
    assert "secret_values" not in compiled(PBX)
    assert aws.calls() == {}


def test_optional_secret_that_does_not_exist_stands_as_none(compiled, aws):
    compiled.write({"freeswitch": {"banner": {"secret": "banner"}}})
    assert compiled.values(PBX) == {"banner": None}
    assert compiled.values(LAB) == {"banner": None}


def test_absent_optional_file_hides_nothing_of_what_else_is_wanted(compiled, aws):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": CANARY})
    absent = {"file": str(compiled.memory / "none"), "required": False}
    compiled.write({**ESL, "base": {"x": {"secret": "x"}}}, {**SECRETS, "x": absent})
    assert compiled.values(PBX) == {"esl-password": CANARY, "x": None}


def test_optional_secret_that_is_denied_or_unfit_is_an_error_all_the_same(compiled, aws):
    compiled.write({"freeswitch": {"banner": {"secret": "banner"}}})
    aws.parameters({"/voice/prod-euw2/pbx/banner": "False"})
    assert "is a placeholder" in compiled.error(PBX)


def test_every_fault_is_told_at_once_and_a_long_list_is_cut(compiled, aws):
    names = [f"s{number}" for number in range(8)]
    secrets = {name: {"parameter": f"{OWN}/{name}"} for name in names}
    compiled.write({"freeswitch": {name: {"secret": name} for name in names}}, secrets)
    told = compiled.error(PBX)
    assert told.count("not found in eu-west-2") == 5
    assert told.endswith("; and 3 more")


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ({}, None, "parameter /voice/prod-euw2/pbx/x not found in eu-west-2"),
        ({}, " ", "parameter /voice/prod-euw2/pbx/x is empty"),
        ({}, "None", "is a placeholder"),
        ({}, "**********", "is a placeholder"),
        ({"version": "7"}, CANARY, "x version 7 gone, or never there, in eu-west-2"),
        ({"json": True}, CANARY, "is not the JSON it must be"),
        ({"field": "b"}, f'{{"a": "{CANARY}"}}', "field b is missing from its JSON"),
        ({"field": "a"}, CANARY, "is not the JSON it must be"),
        ({}, f"{CANARY}\x01", "is binary"),
    ],
)  # fmt: skip
def test_value_that_is_missing_or_wrong_names_secret_place_and_reason(
    compiled, aws, entry, value, told
):
    declare(compiled, parameter=f"{OWN}/x", **entry)
    if value is not None:
        aws.parameters({"/voice/prod-euw2/pbx/x": value})
    said = compiled.error(PBX)
    assert said.startswith("secret x of freeswitch:x: parameter /voice/prod-euw2/pbx/x")
    assert told in said


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        (None, "secret x of freeswitch:x: is not declared; declare it under secrets"),
        ([], "secrets must be a mapping of names to declarations"),
        ({"xx": {"parameter": "y"}}, "is not declared (did you mean xx?)"),
        ({"x": {"paramter": "y"}}, "secrets:x:paramter: unknown key (did you mean parameter?)"),
        ({"x": {"parameter": "/other/x"}}, "no grant gives parameter /other/x to role pbx of prod"),
        ({"x": {"parameter": "/v/{grain}"}}, "placeholder {grain} is unknown"),
        ({"x": {"file": "/etc/shadow"}}, "no grant gives file /etc/shadow to role pbx"),
        ({"x": {"file": "/dev/shm/none"}}, "x: file /dev/shm/none not found on the master"),
        ({"x": {"file": "/dev/shm/../../etc/shadow"}}, ". and .. are refused"),
        (
            {"x": {"acm": "arn:aws:acm:us-east-1:123456789012:certificate/a-b", "field": "key"}},
            "is of us-east-1, the node of eu-west-2",
        ),
    ],
)
def test_wrong_declaration_is_told_before_aws_is_asked(compiled, aws, secrets, told):
    compiled.write({"freeswitch": {"x": {"secret": "x"}}}, secrets)
    assert told in compiled.error(PBX)
    assert aws.calls() == {}


def test_denial_names_the_key_and_the_role_but_not_the_words_around(compiled, aws):
    arn = "arn:aws:kms:eu-west-2:123456789012:key/0a-1b"
    role = "arn:aws:sts::123456789012:assumed-role/guardian-master/i-0a"
    aws.fault("deny", "ssm:*", message=f"User: {role} may not kms:Decrypt {arn}. {CANARY}")
    told = compiled.error(PBX)
    assert told.startswith("secret esl-password of freeswitch:esl_password: parameter /voice/prod-")
    assert f"denied by AWS: GetParameters ({role}, {arn})" in told


def test_throttling_that_does_not_end_is_an_error_in_time(compiled, aws, monkeypatch):
    monkeypatch.setattr(broker, "PATIENCE", 5.5)
    aws.fault("throttle", "ssm:*")
    assert "throttled by AWS (GetParameters), also when tried again" in compiled.error(PBX)


def test_secret_in_a_file_of_the_master(compiled):
    file = compiled.memory / "key.json"
    file.write_text(json.dumps({"key": CANARY, "chain": "chain"}))
    both = {name: {"file": str(file), "field": name} for name in ("key", "chain")}
    compiled.write({"certificates": {name: {"secret": name} for name in both}}, both)
    assert compiled.values(PBX) == {"key": CANARY, "chain": "chain"}
    file.unlink()
    file.symlink_to("/etc/hostname")
    assert "no grant gives file /etc/hostname" in compiled.error(PBX)


def test_subtree_comes_from_a_json_secret(compiled, aws):
    tree = {"host": "db.invalid", "port": 5432, "password": CANARY}
    aws.client("secretsmanager").create_secret(
        Name="voice/prod-euw2/pbx/db", SecretString=json.dumps(tree)
    )
    declare(compiled, secretsmanager="voice/{workspace}/{role}/db", json=True)
    assert compiled.values(PBX) == {"x": tree}


# A minion says of itself what it likes: nothing of that gets it what is another's.


@pytest.mark.parametrize("minion_id", STRANGERS)
def test_stranger_gets_nothing(compiled, aws, minion_id):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": CANARY})
    aws.forget_calls()
    compiled.error(minion_id)
    assert aws.calls() == {}


def test_stranger_who_brings_its_own_fleet_gets_nothing(compiled, aws):
    fleet = {"pbx-99": {"role": "pbx", "zone": "a", "address": "10.0.0.9"}}
    assert "is not in the fleet" in compiled.error("pbx-99.prod-euw2", fleet=fleet)


def test_forged_grains_choose_nothing(compiled, aws):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": "own", "/voice/prod-euw2/sip/x": CANARY})
    claims = {"id": SIP, "role": "sip", "roles": ["sip"], "node": {"role": "sip", "id": SIP}}
    assert compiled.values(PBX, claims) == {"esl-password": "own"}


@pytest.mark.parametrize(
    "source",
    [
        {"parameter": "/voice/prod-euw2/sip/x"},
        {"parameter": "/voice/prod-use2/pbx/x"},
        {"parameter": "/voice/stage-euw2/pbx/x"},
        {"parameter": "/voice/prod-euw2/pbx"},
        {"parameter": "voice/prod-euw2/pbx/x"},
        {"secretsmanager": "voice/prod-euw2/sip/x"},
        {"secretsmanager": "arn:aws:secretsmanager:eu-west-2:123456789012:secret:voice-AbCdEf"},
        {"file": "/etc/salt/pki/master/master.pem"},
        {"file": "/dev/shm/../../etc/salt/pki/master/master.pem"},
    ],
)
def test_override_that_declares_what_is_anothers_gets_nothing(compiled, aws, source):
    aws.parameters({"/voice/prod-euw2/sip/x": CANARY, "/voice/prod-use2/pbx/x": CANARY})
    aws.forget_calls()
    override = {"secrets": {"mine": source}, "base": {"x": {"secret": "mine"}}}
    told = compiled.error(PBX, node={"role": "sip", "id": SIP}, **override)
    assert told.startswith("secret mine of base:x: ")
    assert aws.calls() == {}


def test_what_one_node_was_given_answers_no_other(compiled, aws):
    aws.parameters({"/voice/prod-euw2/sip/x": CANARY})
    compiled.write({"opensips": {"x": {"secret": "of-proxies"}}})
    assert compiled.values(SIP) == {"of-proxies": CANARY}
    assert "no grant gives parameter /voice/prod-euw2/sip/x to role pbx" in compiled.error(PBX)


def test_node_of_another_region_than_the_masters_is_refused(compiled, aws):
    compiled.options["region"] = "us-east-2"
    assert f"{PBX} is of eu-west-2, this master serves us-east-2" in compiled.error(PBX)
    assert aws.calls() == {}


def test_account_without_aws_that_is_not_among_the_dummies_says_so(compiled):
    compiled.options |= {"dummies": [], "region": None}
    assert "is account lab to have dummies?" in compiled.error(LAB)


def test_cache_on_a_disk_is_refused(compiled, aws, tmp_path):
    compiled.options["cache"] = str(tmp_path / "secrets")
    assert "secrets are cached in memory only; name a directory on tmpfs" in compiled.error(PBX)


def test_no_log_of_a_compilation_holds_a_value(compiled, aws, caplog):
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": CANARY})
    caplog.set_level(logging.DEBUG)
    aws.parameters({"unrelated": "x"})
    assert compiled.values(PBX)
    aws.parameters({"/voice/prod-euw2/pbx/esl-password": f"{CANARY}\x01"})
    caplog.clear()
    broker.from_opts(compiled.opts).forget(["parameter:/voice/prod-euw2/pbx/esl-password"])
    compiled.error(PBX)
    assert "GetParameters" not in caplog.text, "botocore is silent"
    assert CANARY not in caplog.text
