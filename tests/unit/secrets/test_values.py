"""What may stand in a file, and what never."""

import json

import pytest

from guardian.secrets import declarations, values
from guardian.secrets.failures import UNFIT, SecretError

CANARY = "c4nary"


def declared(**entry):
    kind = {} if {"acm", "file"} & set(entry) else {"parameter": "x"}
    return declarations.parse("x", {**kind, **entry})


def refused(raw, **entry):
    with pytest.raises(SecretError) as caught:
        values.accepted(raw, declared(**entry))
    assert caught.value.reason == UNFIT
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("False", "placeholder"),
        ("None", "placeholder"),
        ("null\n", "placeholder"),
        ("**********", "placeholder"),
        (f"{CANARY}\x00", "is binary"),
        (f"\x1b{CANARY}", "is binary"),
        (CANARY * 1400, "is longer than 8192 bytes"),
        ("é" * 4097, "is longer than 8192 bytes"),
        (f'"{CANARY}"', "is a JSON text in quotes; say json: true"),
    ],
)
def test_text_that_may_stand_in_no_file_is_refused(raw, told):
    assert told in refused(raw)


def test_text_is_taken_as_it_is():
    pem = "-----BEGIN X-----\nYQ==\n-----END X-----\n"
    for raw in (CANARY, pem, "x" * 8192, '"', '"a', "tab\there", "{not json"):
        assert values.accepted(raw, declared()) == raw


def test_chain_and_file_may_be_longer():
    chain = json.dumps({"chain": "x" * 20000, "key": CANARY})
    arn = "arn:aws:acm:eu-west-2:123456789012:certificate/x"
    assert len(values.accepted(chain, declared(acm=arn, field="chain"))) == 20000
    assert values.accepted("x" * 20000, declared(file="/x"))


def test_field_is_taken_out_of_a_json_object():
    raw = json.dumps({"username": "u", "password": CANARY, "port": 5432, "tree": {"a": "b"}})
    assert values.accepted(raw, declared(field="password")) == CANARY
    assert values.accepted(raw, declared(field="tree", json=True)) == {"a": "b"}
    assert values.accepted(raw, declared(field="port", json=True)) == 5432
    assert values.accepted(raw, declared(field="password", json=True)) == CANARY
    assert "is no string" in refused(raw, field="port")
    assert "field pasword is missing" in refused(raw, field="pasword")
    assert "is not the JSON" in refused(CANARY, field="password")
    assert "field a is missing" in refused("[]", field="a")
    assert "is empty" in refused('{"password": ""}', field="password")
    assert "is empty" in refused("  ", field="password")


@pytest.mark.parametrize("value", [{"a": ["b", 1, False]}, ["x"], "text", 5060])
def test_json_stands_for_whatever_it_holds(value):
    assert values.accepted(json.dumps(value), declared(json=True)) == value


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("{", "is not the JSON"),
        ("null", "placeholder"),
        ("false", "holds nothing"),
        ("{}", "holds nothing"),
        ("[]", "holds nothing"),
        ('""', "is empty"),
        ('"False"', "placeholder"),
        ('{"a": ["**********"]}', "placeholder"),
        ('{"a": {"b": null}}', "is empty"),
        (json.dumps([CANARY] * 1400), "is longer than 8192 bytes"),
        ('{"a": "\\u0000"}', "is binary"),
    ],
)
def test_json_that_may_stand_in_no_file_is_refused(raw, told):
    assert told in refused(raw, json=True)


def test_dummy_stands_for_a_secret():
    assert values.accepted_dummy(declared(dummy="worthless"), "lab") == "worthless"
    assert values.accepted_dummy(declared(json=True, dummy={"a": "b"}), "lab") == {"a": "b"}
    assert values.accepted_dummy(declared(json=True, dummy="worthless"), "lab") == "worthless"
    assert values.accepted_dummy(declared(required=False), "lab") is None
    with pytest.raises(SecretError, match="no dummy, which nodes of account lab get instead"):
        values.accepted_dummy(declared(), "lab")
    with pytest.raises(SecretError, match="is empty"):
        values.accepted_dummy(declared(dummy=""), "lab")
    with pytest.raises(SecretError, match="is no string"):
        values.accepted_dummy(declared(dummy=7), "lab")
