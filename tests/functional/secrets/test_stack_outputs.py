"""Outputs through the master's broker: what pillar is given, and that a deploy reads them anew."""

import functools
import json

import pytest

from guardian.errors import GuardianError
from guardian.fleet import renewal
from guardian.secrets import node, resolver
from guardian.secrets.broker import Broker
from guardian.secrets.declarations import Source
from guardian.secrets.wants import Want
from guardian.stacks import outputs
from guardian.stacks.outputs import Output
from guardian.stacks.parameters import ParameterStore
from tests.support import aws as stand_in

PREFIX, WORKSPACE = "/guardian/outputs", "prod-euw2"
BEFORE = {"endpoint": Output("db-1"), "password": Output("first", sensitive=True)}
AFTER = {"endpoint": Output("db-2"), "password": Output("second", sensitive=True)}


@pytest.fixture
def store(aws):
    return ParameterStore(PREFIX, WORKSPACE, aws.client("ssm"), pace=lambda: None)


@pytest.fixture
def options(memory):
    return {"cache": str(memory / "secrets"), "region": stand_in.REGION}


@pytest.fixture
def source(options):
    return {"parameters": PREFIX, **options}


def test_pillar_is_given_what_is_not_sensitive_in_one_reading(aws, store, source):
    assert outputs.published(source, "stage-euw2") == {}
    store.publish("databases", BEFORE)
    aws.forget_calls()
    for _ in range(3):
        assert outputs.published(source, WORKSPACE) == {"databases": {"endpoint": "db-1"}}
    assert aws.calls() == {"ssm:GetParametersByPath": 1}


def test_the_region_is_the_workspace_s_own(aws, store, source):
    del source["region"]
    store.publish("databases", BEFORE)
    assert outputs.published(source, WORKSPACE) == {"databases": {"endpoint": "db-1"}}
    assert outputs.published(source, "prod-use2") == {}
    assert {call["region"] for call in aws.log()} == {"eu-west-2", "us-east-2"}


def test_half_a_publish_gives_pillar_the_set_before(aws, store, source):
    store.publish("databases", BEFORE)
    aws.fault("deny", "ssm:PutParameter", contains="manifest.json")
    with pytest.raises(GuardianError, match="readers keep the outputs before"):
        store.publish("databases", AFTER)
    assert outputs.published(source, WORKSPACE) == {"databases": {"endpoint": "db-1"}}


def test_what_aws_refuses_is_one_line(aws, source):
    aws.fault("deny", "ssm:*")
    with pytest.raises(ValueError, match=r"parameters below /guardian/outputs/prod-euw2: .*denied"):
        outputs.published(source, WORKSPACE)


def test_a_deploy_has_the_master_read_outputs_and_secrets_anew(store, source, options):
    """Not minutes later, when the master's memory ends: nodes would be given the old password."""
    want = Want(
        Source("parameter", f"{PREFIX}-sensitive/{WORKSPACE}/databases/password"), stand_in.REGION
    )
    broker = Broker(**options)

    def seen():
        broker.note("pbx-01.prod-euw2", [want.source])
        found = outputs.published(source, WORKSPACE)["databases"]["endpoint"]
        return found, broker.get([want])[want]

    store.publish("databases", BEFORE)
    assert seen() == ("db-1", '"first"')
    store.publish("databases", AFTER)
    assert seen() == ("db-1", '"first"')
    chain = [{"stack_outputs": source}, {"fleet_node": True}, {"aws_secrets": options}]
    renewal.renew({"ext_pillar": chain}, WORKSPACE)
    assert seen() == ("db-2", '"second"')


def test_a_sensitive_output_in_a_directory_is_a_secret_of_its_file(tmp_path, options):
    outputs.Directory(tmp_path, WORKSPACE).publish("databases", BEFORE)
    grants = tmp_path / "grants.yaml"
    grants.write_text(json.dumps([{"names": [f"file:{tmp_path}/{{workspace}}/databases.json"]}]))
    file = f"{tmp_path}/{{workspace}}/databases.json"
    declared = {"database-password": {"file": file, "json": True, "field": "password"}}
    found = resolver.resolve(
        node.parse("sip-01.prod-euw2"),
        [("opensips:database:remote:password", "database-password")],
        declared,
        granted=str(grants),
        broker=functools.partial(Broker, **options),
    )
    assert found == {"database-password": "first"}


def test_a_master_without_aws_has_nothing_to_renew():
    chain = [{"stack_outputs": {"path": "/srv/guardian-outputs"}}, {"fleet_node": True}]
    renewal.renew({"ext_pillar": chain}, WORKSPACE)
    renewal.renew({}, WORKSPACE)
