"""References to secrets in pillar, and what they stand for."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

secret_refs = load("_utils/secret_refs.py")
SECRET = {"type": "string", "x-secret": True}
ALLOWED = {"type": "string", "x-reference": True}
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)
KEYS = st.text("abcdef_-", min_size=1, max_size=6).filter(lambda key: key != "secret")
REFERENCES = st.fixed_dictionaries({"secret": NAMES})
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
PILLARS = st.recursive(
    PLAIN | REFERENCES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def at(pillar, path):
    for key in filter(None, path.split(":")):
        pillar = pillar[int(key) if isinstance(pillar, list) else key]
    return pillar


@given(PILLARS)
def test_every_reference_is_found_where_it_is(pillar):
    for path, name in secret_refs.found(pillar):
        assert at(pillar, path) == {"secret": name}


@given(PILLARS)
def test_what_is_resolved_holds_no_reference_and_all_the_rest(pillar):
    before = copy.deepcopy(pillar)
    names = {name for _, name in secret_refs.found(pillar)}
    values = {name: f"value of {name}" for name in names}
    resolved = secret_refs.resolve(pillar, values)
    assert pillar == before, "what was handed over stays as it is"
    assert not list(secret_refs.found(resolved))
    for path, name in secret_refs.found(pillar):
        assert at(resolved, path) == f"value of {name}"
    emptied = json.loads(json.dumps(resolved).replace("value of ", ""))
    assert emptied == json.loads(json.dumps(_named(pillar)))


def _named(pillar):
    """The pillar with a name in place of each reference."""
    if secret_refs.named(pillar) is not None:
        return pillar["secret"]
    if isinstance(pillar, dict):
        return {key: _named(value) for key, value in pillar.items()}
    return [_named(value) for value in pillar] if isinstance(pillar, list) else pillar


@given(PILLARS)
def test_one_missing_value_fails_the_whole(pillar):
    names = sorted({name for _, name in secret_refs.found(pillar)})
    if names:
        values = dict.fromkeys(names[1:], "value")
        with pytest.raises(ValueError, match=f"secret {names[0]} of .*refresh_pillar"):
            secret_refs.resolve(pillar, values, "component")


@pytest.mark.parametrize(
    "value",
    [{"secret": 5}, {"secret": None}, {"secret": "a", "more": 1}, {}, "secret", ["secret"], None],
)
def test_what_only_looks_like_a_reference_is_none(value):
    assert secret_refs.named(value) is None
    assert secret_refs.resolve(value, {}) == value


@pytest.mark.parametrize(
    "value", ["", "  ", "\n", "False", "false", "None", "none", "null", False, True, "**********"]
)
def test_value_that_stands_for_a_failed_look_up_is_refused(value):
    with pytest.raises(ValueError, match="secret esl of a:b is") as refused:
        secret_refs.resolve({"b": {"secret": "esl"}}, {"esl": value}, "a")
    assert "mend it at its source" in str(refused.value)


@pytest.mark.parametrize(
    "value", ["x **********", {"key": "**********"}, {"users": [{"ha1": "**********"}]}]
)
def test_masked_value_is_refused_wherever_in_it_the_mask_is(value):
    with pytest.raises(ValueError, match="secret esl of a is masked"):
        secret_refs.resolve({"secret": "esl"}, {"esl": value}, "a")


@pytest.mark.parametrize(
    "value", ["x", " x ", "null and void", 5, {"a": ""}, ["None"], {"a": {"b": [1, None]}}]
)
def test_value_is_handed_on_as_it_is(value):
    assert secret_refs.resolve([{"secret": "x"}], {"x": value}) == [value]


def test_key_of_an_optional_secret_that_does_not_exist_is_left_out():
    pillar = {"a": {"secret": "no"}, "b": [{"secret": "no"}, 1], "c": {"d": {"secret": "no"}}}
    assert secret_refs.resolve(pillar, {"no": None}) == {"b": [1], "c": {}}
    assert secret_refs.resolve({"secret": "no"}, {"no": None}) is None


def test_no_message_holds_a_value():
    for pillar, values in (
        ({"a": {"secret": "x"}, "b": {"secret": "y"}}, {"x": "hunter2"}),
        ({"a": {"secret": "x"}, "b": {"secret": "y"}}, {"x": "hunter2", "y": ""}),
    ):
        with pytest.raises(ValueError) as refused:
            secret_refs.resolve(pillar, values)
        assert "hunter2" not in str(refused.value)


# -- where they may stand ------------------------------------------------------------------------


def wrong(value, schema):
    return list(secret_refs.misplaced(value, schema, "a"))


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        ({"secret": "x"}, SECRET, None),
        (None, SECRET, None),
        ("hunter2", SECRET, secret_refs.PLAIN),
        ({"secret": 5}, SECRET, secret_refs.PLAIN),
        (["hunter2"], SECRET, secret_refs.PLAIN),
        ({"secret": "x"}, ALLOWED, None),
        ("plain", ALLOWED, None),
        ({"secret": "x"}, {"type": "string"}, secret_refs.USELESS),
        ({"secret": "x"}, {}, secret_refs.USELESS),
        ("plain", {}, None),
    ],
)
def test_place_says_what_may_stand_there(value, schema, said):
    assert wrong(value, schema) == ([("a", said)] if said else [])
    below = {"properties": {"b": {"items": {"patternProperties": {"^c": schema}}}}}
    found = wrong({"b": [0, {"cc": value}]}, below)
    assert found == ([("a:b:1:cc", said)] if said else [])


@pytest.mark.parametrize("word", ["allOf", "anyOf", "oneOf"])
def test_marks_count_in_whichever_alternative(word):
    schema = {word: [{"properties": {"b": SECRET}}, {"required": ["c"]}]}
    assert wrong({"b": "hunter2"}, schema) == [("a:b", secret_refs.PLAIN)]
    assert wrong({"b": {"secret": "x"}}, schema) == []


@pytest.mark.parametrize("word", ["then", "else"])
def test_marks_count_in_conditions(word):
    schema = {"if": {"required": ["c"]}, word: {"properties": {"b": SECRET}}}
    assert wrong({"b": "hunter2"}, schema) == [("a:b", secret_refs.PLAIN)]


@given(PILLARS)
def test_reference_is_useless_where_nothing_is_said(pillar):
    places = [path for path, _ in secret_refs.misplaced(pillar, {})]
    assert places == [path for path, _ in secret_refs.found(pillar)]
