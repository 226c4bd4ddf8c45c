"""References to secrets on their way through the states of FreeSWITCH: only files hold values."""

import json

import pytest

SECRETS = {
    "esl": "first-canary-5d1",
    "carrier": "carrier-canary-7c2",
    "user": "0123456789abcdef" * 2,
}


def referring(node, **more):
    return node.changed(
        esl_password={"secret": "esl"}, users={"1001": {"a1_hash": {"secret": "user"}}}, **more
    )


def held(node, path):
    return (node.conf / path).read_text()


@pytest.fixture
def up(node):
    """A node that runs with secrets by reference."""
    node.give_pillar(secret_values=SECRETS)
    answers = [node.configured(referring(node)), node.running()]
    assert [one["result"] for one in answers] == [True, True], answers
    assert not any(value in json.dumps(answers) for value in SECRETS.values())
    return node


def test_values_are_in_the_files_alone(up):
    assert SECRETS["esl"] in held(up, "autoload_configs/event_socket.conf.xml")
    assert SECRETS["user"] in held(up, "directory/default.xml")
    assert up.call("status")["responding"] is True, "the password is the one it was started with"
    assert up.configured(referring(up))["changes"] == {}


def test_rotated_secret_is_taken_up_by_a_reload(up):
    before = up.call("status")["core_uuid"]
    up.give_pillar(secret_values={**SECRETS, "esl": "second-canary-9e4"})
    predicted = up.configured(referring(up), test=True)
    applied = up.configured(referring(up))
    assert applied["result"] is True, applied["comment"]
    assert predicted["changes"] == applied["changes"]
    assert applied["changes"]["disruption"] == "reload"
    assert "canary" not in json.dumps([predicted, applied])
    assert "second-canary-9e4" in held(up, "autoload_configs/event_socket.conf.xml")
    assert up.call("status")["core_uuid"] == before


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"user": SECRETS["user"]}, "secret esl of freeswitch:esl_password is not in this node's"),
        ({**SECRETS, "esl": ""}, "secret esl of freeswitch:esl_password is empty"),
        ({**SECRETS, "esl": "**********"}, "secret esl of freeswitch:esl_password is "),
        ({**SECRETS, "esl": None}, "esl_password"),
    ],
)
def test_secret_that_is_none_changes_nothing(up, values, told):
    before = held(up, "autoload_configs/event_socket.conf.xml")
    up.give_pillar(secret_values=values)
    refused = up.configured(referring(up, max_sessions=99))
    assert refused["result"] is False
    assert told in refused["comment"]
    assert refused["changes"] == {}
    assert held(up, "autoload_configs/event_socket.conf.xml") == before
    assert up.call("status")["responding"] is True


def test_gateway_of_a_state_takes_its_password_by_reference(up):
    params = {"proxy": "127.0.0.1:5999", "register": False, "password": {"secret": "carrier"}}
    made = up.state("gateway_present", False, name="carrier", profile="external", params=params)
    assert made["result"] is True, made["comment"]
    assert "canary" not in json.dumps(made)
    assert SECRETS["carrier"] in held(up, "sip_profiles/external/carrier.xml")
    missing = {**params, "password": {"secret": "nobody"}}
    refused = up.state("gateway_present", False, name="b", profile="external", params=missing)
    assert "secret nobody of with_gateway:2:password is not in this node" in refused["comment"]
