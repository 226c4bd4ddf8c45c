"""Who may have what."""

import pytest
import yaml

from guardian.secrets import grants, node
from guardian.secrets.declarations import Source
from guardian.secrets.failures import DENIED, SecretError
from tests.support.loading import REPOSITORY

PBX, SIP = node.parse("pbx-01.prod-euw2"), node.parse("sip-01.prod-euw2")
ROLE = "arn:aws:iam::123456789012:role/secrets-{role}"


@pytest.fixture
def written(tmp_path):
    file = tmp_path / "grants.yaml"

    def write(content):
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return grants.load(file)

    return write


def parameter(name):
    return Source("parameter", name)


def test_own_role_and_workspace_are_given_and_no_other(written):
    found = written([{"names": ["parameter:/voice/{workspace}/{role}/*"]}])
    own = parameter("/voice/prod-euw2/pbx/esl")
    assert found.find(PBX, own, "x").prefix == "/voice/prod-euw2/pbx/"
    for other in ("/voice/prod-euw2/sip/esl", "/voice/stage-euw2/pbx/esl", "/voice/prod-euw2/pbx"):
        with pytest.raises(SecretError) as caught:
            found.find(PBX, parameter(other), "x")
        assert caught.value.reason == DENIED
        assert f"no grant gives parameter {other} to role pbx of prod-euw2; see" in str(
            caught.value
        )


def test_grant_may_be_for_some_roles_and_workspaces_alone(written):
    found = written([{"names": ["parameter:x"], "roles": ["sip"], "workspaces": ["prod-*"]}])
    assert found.find(SIP, parameter("x"), "x")
    for asking in (PBX, node.parse("sip-01.stage-euw2")):
        with pytest.raises(SecretError):
            found.find(asking, parameter("x"), "x")


def test_first_grant_that_matches_says_which_role_is_assumed(written):
    found = written([{"names": ["parameter:x"], "assume": ROLE}, {"names": ["parameter:*"]}])
    assert found.find(PBX, parameter("x"), "x").assume.endswith("role/secrets-pbx")
    assert found.find(PBX, parameter("y"), "y").assume == ""


def test_kind_is_part_of_what_is_granted(written):
    found = written([{"names": ["parameter:*"]}])
    with pytest.raises(SecretError, match="no grant gives secretsmanager x"):
        found.find(PBX, Source("secretsmanager", "x"), "x")


def test_ciphertext_is_granted_by_the_name_it_is_declared_by(written):
    found = written([{"names": ["ciphertext:esl-*"]}])
    assert found.find(PBX, Source("ciphertext", "AQID"), "esl-password")
    with pytest.raises(SecretError, match="no grant gives ciphertext other"):
        found.find(PBX, Source("ciphertext", "AQID"), "other")


@pytest.mark.parametrize("pattern", ["/a/*", "/*", "/a/b*", "/a/b/c", "/a/*/c/*", "x.y.*"])
def test_only_a_whole_path_of_some_depth_is_read_at_once(written, pattern):
    found = written([{"names": [f"parameter:{pattern}", "parameter:*"]}])
    assert found.find(PBX, parameter("/a/b/c/d"), "x").prefix == ""


def test_changed_file_counts_from_the_next_look_on(written):
    with pytest.raises(SecretError):
        written([{"names": ["parameter:x"]}]).find(PBX, parameter("longer"), "x")
    assert written([{"names": ["parameter:longer"]}]).find(PBX, parameter("longer"), "x")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [", ":1: is not YAML"),
        ("{}", "must be a list of grants"),
        ("[x]", "grant 1: must be a mapping"),
        ([{"names": ["parameter:x"], "role": ["pbx"]}], "unknown key role (did you mean roles?)"),
        ([{"roles": ["pbx"]}], "grant 1: names nothing"),
        ([{"names": "parameter:x"}], "names must be a list of strings"),
        ([{"names": ["/voice/x"]}], "/voice/x begins with no kind of source"),
        ([{"names": ["parameter:{rolle}"]}], "placeholder {rolle} is unknown"),
        ([{"names": ["parameter:x"], "roles": []}], "roles is empty; leave it out to mean all"),
        ([{"names": ["parameter:x"], "assume": "admin"}], "assume must be the ARN of a role"),
        ([{"names": ["parameter:x"]}, {"names": []}], "grant 2: names is empty"),
    ],
)
def test_wrong_file_is_told_with_its_place(written, content, told):
    with pytest.raises(ValueError) as caught:
        written(content)
    assert told in str(caught.value)
    assert "grants.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_is_named_with_the_option(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: No such file.*option grants of aws_secrets"):
        grants.load(tmp_path / "none.yaml")


def test_our_own_grants_give_no_node_anything_of_another():
    ours = grants.load(REPOSITORY / "pillar/grants.yaml")
    for asking in (PBX, SIP):
        for name in (
            "/voice/stage-euw2/pbx/x",
            "/voice/prod-use2/sip/x",
            "/voice/prod-euw2/fsx/x",
            "/voice/prod-euw2/hosts/pbx-02/x",
            "/other",
            "omni.rm-coreapi.auth-token",
            "rt.certificate.fsx.key",
        ):
            with pytest.raises(SecretError):
                ours.find(asking, parameter(name), "x")
        assert ours.find(asking, parameter(f"/voice/prod-euw2/{asking.role}/x"), "x").assume == ""
        assert ours.find(asking, parameter("rt.certificate.default.key"), "x")
