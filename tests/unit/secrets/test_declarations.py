"""What may be declared under ``secrets``, and how wrong declarations are told."""

import pytest

from guardian.secrets import declarations, node

PBX = node.parse("pbx-01.prod-euw2")
ARN = "arn:aws:acm:eu-west-2:123456789012:certificate/0a1b2c3d-0000-4000-8000-000000000000"


def source(entry, **context):
    return declarations.source(declarations.parse("x", entry), PBX.fill, **context)


def test_placeholders_come_from_the_minion_id():
    found = source({"parameter": "/{account}/{region}/{workspace}/{role}/{host}"})
    assert found.key == "parameter:/prod/euw2/prod-euw2/pbx/pbx-01"


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"parameter": "rt.certificate.default.key"}, "parameter:rt.certificate.default.key"),
        ({"secretsmanager": "voice/x"}, "secretsmanager:voice/x"),
        ({"acm": ARN, "field": "key"}, f"acm:{ARN}"),
        ({"file": "/srv/{workspace}/key.pem"}, "file:/srv/prod-euw2/key.pem"),
    ],
)
def test_every_kind_of_source_is_known(entry, key):
    assert source(entry).key == key


def test_ciphertext_is_bound_to_region_and_role_and_never_shown():
    found = source({"ciphertext": "AQID\nBAUG"}, region="euw2", role="pbx")
    assert found.context == (("region", "euw2"), ("role", "pbx"))
    assert found.name == "AQIDBAUG"
    assert "AQID" not in str(found)


@pytest.mark.parametrize(
    ("name", "entry", "told"),
    [
        ("Bad Name", {"parameter": "x"}, "a name is small letters, digits and dashes"),
        (7, {"parameter": "x"}, "a name is small letters, digits and dashes"),
        ("x", None, "must be a mapping"),
        ("x", "parameter", "must be a mapping"),
        ("x", {}, "names no source; it must have exactly one of parameter,"),
        ("x", {"parameter": "a", "file": "/b"}, "names parameter and file; it must"),
        ("x", {"paramter": "a"}, "unknown key (did you mean parameter?)"),
        ("x", {"parameter": 7}, "x:parameter: must be a string in quotes"),
        ("x", {"parameter": "a", "version": 3}, "x:version: must be a string in quotes"),
        ("x", {"parameter": "a", "required": "no"}, "x:required: must be true or false"),
        ("x", {"parameter": "a", "json": 1}, "x:json: must be true or false"),
        ("x", {"parameter": "a", "field": 1}, "x:field: must be a string"),
        ("x", {"acm": ARN}, "has the fields chain and key"),
        ("x", {"acm": ARN, "field": "keys"}, "has the fields chain and key"),
        ("x", {"file": "/a", "version": "1"}, "a file has no versions to pin"),
        ("x", {"parameter": "a", "version": "1:2"}, "must be a number, a label, a stage or an id"),
    ],
)  # fmt: skip
def test_wrong_declaration_is_refused_in_one_line(name, entry, told):
    with pytest.raises(ValueError) as caught:
        declarations.parse(name, entry)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"parameter": "/voice/{rolle}/x"}, "placeholder {rolle} is unknown; there are {account}"),
        ({"parameter": "/voice/*"}, "is not a parameter's name"),
        ({"parameter": "x:3"}, "is not a parameter's name"),
        ({"parameter": ""}, "is not a parameter's name"),
        ({"secretsmanager": "a b"}, "is not a secret's name or ARN"),
        ({"ciphertext": "§"}, "is not base64"),
        ({"acm": "default", "field": "key"}, "is not the ARN of a certificate"),
        ({"file": "key.pem"}, "is not an absolute path"),
        ({"file": "/srv//key.pem"}, "is not an absolute path"),
        ({"file": "/srv/../etc/shadow"}, ". and .. are refused"),
        ({"file": "/srv/./key.pem"}, ". and .. are refused"),
    ],
)
def test_malformed_source_is_refused(entry, told):
    with pytest.raises(ValueError) as caught:
        source(entry)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "minion_id",
    ["", "*", "pbx-01", "pbx-01.prod", "pbx-01.prod-mars", "../pbx-01.prod-euw2",
     "pbx-01.prod-euw2.x", "pbx-01\n.prod-euw2", "PBX-01.prod-euw2", "pbx-{role}.prod-euw2",
     "pbx_01.prod-euw2", "pbx-01.prod-euw2\n"],
)  # fmt: skip
def test_minion_id_of_another_form_is_nobody(minion_id):
    with pytest.raises(ValueError):
        node.parse(minion_id)
