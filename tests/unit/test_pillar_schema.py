"""What is said of a pillar that breaks its schema: file, key path and remedy, and never a value."""

import json
import re

import jsonschema
import pytest
import salt.config
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import REPOSITORY, load
from tests.support.secrets import UTILS

SCHEMAS = REPOSITORY / "pillar" / "schema"
NAME = "^[a-z][a-z-]*$"
PASSWORD = {"x-secret": True, "type": "string", "pattern": "^[a-z]+$", "description": "word"}
HASH = {"x-secret": True, "type": "string", "pattern": "^[0-9]+$"}
TEXT = {
    "type": "string",
    "minLength": 2,
    "maxLength": 3,
    "pattern": "^[a-z]",
    "description": "word",
}
COMPONENT = {
    "additionalProperties": False,
    "properties": {
        "password": PASSWORD,
        "chain": {"x-reference": True, "type": "string"},
        "port": {"type": "integer", "minimum": 1, "maximum": 9},
        "level": {"enum": ["info", "notice"]},
        "text": TEXT,
        "list": {"type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": True},
        "map": {"type": ["object", "null"], "minProperties": 1, "maxProperties": 1},
        "users": {
            "x-reference": True,
            "additionalProperties": False,
            "patternProperties": {
                NAME: {
                    "additionalProperties": False,
                    "required": ["hash"],
                    "properties": {"hash": HASH},
                }
            },
        },
        "one": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "x-rule": "needs a or b"},
        "bare": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "tls": {"dependentRequired": {"port": ["certificate"]}},
    },
}
WHOLE = {"allOf": [{"properties": {"voice": {"required": ["port"]}}}]}


@pytest.fixture
def module():
    return load("_pillar/pillar_schema.py", __utils__=UTILS)


@pytest.fixture
def schemas(tmp_path):
    """A directory of schemas for pillar key `voice`."""
    directory = tmp_path / "schema"
    directory.mkdir()
    for key, schema in {
        "voice": COMPONENT,
        "node": {},
        "secrets": {},
        "secret_values": {},
    }.items():
        (directory / f"{key}.json").write_text(json.dumps(schema))
    return directory


@pytest.fixture
def said(module, schemas):
    """Return what is said of `voice`, values of its secrets given."""

    def of(voice, declared=(), **more):
        values = {"secret_values": dict.fromkeys(declared, "word")} if declared else {}
        secrets = {"secrets": {name: {} for name in declared}}
        pillar = {"node": {}, "voice": voice, **secrets, **values, **more}
        return [told for _, told in module.faults(pillar, schemas)]

    return of


@pytest.mark.parametrize(
    ("voice", "told"),
    [
        ({"port": "5"}, ["voice:port: must be integer, is string"]),
        ({"port": True}, ["voice:port: must be integer, is boolean"]),
        ({"port": None}, ["voice:port: must be integer, is null"]),
        ({"port": 1.5}, ["voice:port: must be integer, is number"]),
        ({"port": []}, ["voice:port: must be integer, is array"]),
        ({"port": {}}, ["voice:port: must be integer, is object"]),
        ({"map": 5}, ["voice:map: must be object or null, is integer"]),
        ({"port": 0}, ["voice:port: must be at least 1"]),
        ({"port": 10}, ["voice:port: must be at most 9"]),
        ({"level": "notise"}, ["voice:level: must be one of info, notice (did you mean notice?)"]),
        ({"level": 5}, ["voice:level: must be one of info, notice"]),
        ({"text": "a"}, ["voice:text: must have at least 2 characters"]),
        ({"text": "abcd"}, ["voice:text: must have at most 3 characters"]),
        ({"text": "5a"}, ["voice:text: has not the form 'word'"]),
        ({"list": []}, ["voice:list: must have at least 1 entries"]),
        ({"list": [1, 2, 3]}, ["voice:list: must have at most 2 entries"]),
        ({"list": [1, 1]}, ["voice:list: must not hold anything twice"]),
        ({"map": {}}, ["voice:map: must have at least 1 keys"]),
        ({"map": {"a": 1, "b": 2}}, ["voice:map: must have at most 1 keys"]),
        ({"one": {}}, ["voice:one: needs a or b"]),
        ({"bare": {}}, ["voice:bare: breaks rule oneOf"]),
        ({"tls": {"port": 5}}, ["voice:tls: port needs certificate"]),
        ({"prt": 5}, ["voice:prt: unknown key (did you mean port?)"]),
        ({"zzz": 5, "yyy": 6}, ["voice:zzz: unknown key", "voice:yyy: unknown key"]),
        ({"a\nb": 5}, ["voice:a?b: unknown key"]),
        ({"users": {"a": {}}}, ["voice:users:a:hash: missing; set it"]),
        ({"users": {"5": {}}}, [f"voice:users:5: unknown key; a name here has the form {NAME}"]),
    ],
)
def test_each_rule_has_its_sentence(said, voice, told):
    assert said(voice) == told


def test_few_known_keys_are_listed(said):
    assert said({"users": {"a": {"hash": None, "zzz": 1}}}) == [
        "voice:users:a:zzz: unknown key; known are hash",
        "voice:users:a:hash: must be string, is null",
    ]


def test_each_missing_key_is_told_once(said, schemas):
    (schemas / "node.json").write_text(json.dumps({"required": ["a", "b", "c"]}))
    assert said({}, node={"b": 1}) == ["node:a: missing; set it", "node:c: missing; set it"]


def test_unknown_top_level_key_and_missing_node(module, schemas):
    assert [told for _, told in module.faults({"vioce": {}}, schemas)] == [
        "vioce: unknown key (did you mean voice?)",
        "node: missing; is fleet_node among the ext_pillars?",
    ]


def test_directory_without_schemas_is_no_free_pass(module, tmp_path):
    assert module.faults({"node": {}}, tmp_path) == [((), f"no schema in {tmp_path}")]


def test_salts_own_keys_need_no_schema(module, schemas):
    assert module.faults({"node": {}, "_errors": ["x"], "master": {}}, schemas) == []


def test_whole_pillar_has_a_schema_too(said, schemas):
    (schemas / "pillar.json").write_text(json.dumps(WHOLE))
    assert said({}) == ["voice:port: missing; set it"]
    assert said({"port": 5}) == []


# -- secrets -------------------------------------------------------------------------------------


def test_reference_with_a_value_of_the_right_form_is_fine(said):
    assert said({"password": {"secret": "esl"}, "chain": {"secret": "esl"}}, ["esl"]) == []
    assert said({"password": None}) == ["voice:password: must be string, is null"]


@pytest.mark.parametrize("value", ["hunter", "", 5, ["hunter"], {"secret": 5}])
def test_plain_secret_is_refused_with_what_to_do(said, value):
    assert (
        "voice:password: must be a reference to a secret; declare it under secrets and write"
        " {secret: its name}" in said({"password": value})
    )


def test_reference_where_none_is_of_use_is_refused(said):
    assert said({"text": {"secret": "esl"}}, ["esl"])[0] == (
        "voice:text: a reference to a secret is of no use here"
    )


def test_reference_to_what_nobody_declares_names_what_is_like_it(said):
    assert said({"password": {"secret": "esk"}}, ["esl"]) == [
        "voice:password: no secret esk is declared (did you mean esl?); declare it under secrets"
    ]
    assert "no secret esk is declared;" in said({"password": {"secret": "esk"}}, ["zzz"])[0]


def test_secret_without_a_value_is_told_once(said):
    esl = {"password": {"secret": "esl"}}
    assert said(esl, secrets={"esl": {}}) == [
        "secret_values: missing; aws_secrets says why, or is not among the ext_pillars"
    ]
    assert said(esl, ["other"], secrets={"esl": {}}) == [
        "voice:password: secret esl has no value; aws_secrets says why"
    ]
    assert said(esl, secrets=["esl"], secret_values=5)[-1].startswith("voice:password: no secret")


def test_value_that_breaks_its_form_is_named_by_its_secret_alone(said):
    wrong = {"esl": "HUNTER 2"}
    assert said({"password": {"secret": "esl"}}, ["esl"], secret_values=wrong) == [
        "voice:password: the value of secret esl: has not the form 'word'"
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"hunter": {"hash": "x"}}, "a part of it has not the form '^[0-9]+$'"),
        ({"hunter": {}}, "a part of it lacks one of hash"),
        ({"HUNTER": {}}, "has a key that is not known"),
        ({"hunter": {"hash": "5", "hunter": 1}}, "a part of it has a key that is not known"),
    ],
)
def test_secret_that_is_a_subtree_shows_none_of_its_keys(said, value, told):
    found = said({"users": {"secret": "all"}}, ["all"], secret_values={"all": value})
    assert found == [f"voice:users: the value of secret all: {told}"]
    fine = {"all": {"alice": {"hash": "5"}}}
    assert said({"users": {"secret": "all"}}, ["all"], secret_values=fine) == []


@pytest.mark.parametrize("value", ["", " ", "None", "False", "**********", False])
def test_placeholder_is_no_value(said, value):
    (told,) = said({"password": {"secret": "esl"}}, ["esl"], secret_values={"esl": value})
    assert told.startswith("secret esl of voice:password is ")
    assert told.endswith("mend it at its source")


def test_optional_secret_that_does_not_exist_leaves_its_key_out(said):
    absent = {"secret_values": {"esl": None}}
    assert said({"password": {"secret": "esl"}}, ["esl"], **absent) == []
    assert said({"users": {"a": {"hash": {"secret": "esl"}}}}, ["esl"], **absent) == [
        "voice:users:a:hash: missing; optional secret esl does not exist"
    ]


@given(
    st.recursive(
        st.none() | st.integers() | st.just("hunter2") | st.just({"secret": "esl"}),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["users", "a", "hash", "text"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_no_sentence_ever_holds_a_value(voice):
    module = load("_pillar/pillar_schema.py", __utils__=UTILS)
    pillar = {"node": {}, "freeswitch": voice, "opensips": voice, "certificates": voice}
    for values in ({}, {"secret_values": {"esl": "hunter2"}, "secrets": {"esl": {}}}):
        for where, told in module.faults({**pillar, **values}, SCHEMAS):
            assert "hunter2" not in told
            assert "\n" not in told
            assert isinstance(where, tuple)


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture
def refusal(tmp_path, schemas):
    """Return what the external pillar says of a pillar whose layers are these files."""

    def of(pillar, **layers):
        root = tmp_path / "pillar"
        for name, held in {"top": {"base": {"*": list(layers)}}, **layers}.items():
            file = root / f"{name.replace('.', '/')}.sls"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(held))
        opts = salt.config.DEFAULT_MASTER_OPTS.copy()
        opts.update(
            pillar_roots={"base": [str(root)]},
            cachedir=str(tmp_path / "cache"),
            extension_modules=str(tmp_path / "modules"),
            file_client="local",
        )
        module = load("_pillar/pillar_schema.py", __utils__=UTILS, __opts__=opts)
        try:
            return module.ext_pillar("pbx-01.lab-local", pillar, str(schemas))
        except ValueError as err:
            return str(err)

    return of


def test_fault_names_the_last_file_that_holds_it(refusal):
    told = refusal(
        {"node": {}, "voice": {"port": 0, "list": [1, 1], "level": "x", "text": "a"}},
        common={"voice": {"port": 0}},
        **{"roles.pbx": {"voice": {"list": [1, 1], "port": 0}}, "last": {"voice": {"level": "x"}}},
    )
    assert told == (
        "pillar of pbx-01.lab-local refused: last.sls: voice:level: must be one of info, notice;"
        " pillar/roles/pbx.sls: voice:list: must not hold anything twice;"
        " pillar/roles/pbx.sls: voice:port: must be at least 1;"
        " voice:text: must have at least 2 characters"
    ).replace("last.sls", "pillar/last.sls")


def test_file_is_found_by_entries_of_lists_and_numbers_too(refusal):
    users = {"users": {"a": {"hash": "x"}}}
    told = refusal({"node": {}, "voice": users}, common={"voice": users})
    assert "pillar/common.sls: voice:users:a:hash: must be a reference" in told
    whole = {"voice": {"list": [{"secret": "x"}]}}
    assert "pillar/a.sls: voice:list:0: a reference" in refusal({"node": {}, **whole}, a=whole)
    whole = {"voice": {5: 5}}
    assert "pillar/a.sls: voice:5: unknown key" in refusal(
        {"node": {}, **whole}, a={"voice": {5: 5}}
    )


def test_refused_pillar_keeps_no_secret(refusal):
    pillar = {"node": {}, "voice": {"zzz": 1}, "secret_values": {"esl": "hunter2"}}
    assert "zzz" in refusal(pillar, common={})
    assert "secret_values" not in pillar


def test_good_pillar_gets_nothing_added(refusal):
    assert refusal({"node": {}, "voice": {}}) == {}


def test_long_list_is_cut(refusal):
    told = refusal({"node": {}, "voice": {f"zzz{n}": 1 for n in range(9)}})
    assert told.endswith("; and 4 more")


# -- the schemas themselves ----------------------------------------------------------------------


def parts(schema, where):
    """Yield (where, subschema) of a schema and all below it that describes a value."""
    yield where, schema
    for key, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{where}:{key}")
    for pattern, inner in schema.get("patternProperties", {}).items():
        yield from parts(inner, f"{where}:<{pattern}>")
    if "items" in schema:
        yield from parts(schema["items"], f"{where}:[]")


PARTS = [
    (where, part)
    for file in sorted(SCHEMAS.glob("*.json"))
    for where, part in parts(json.loads(file.read_text()), file.stem)
]


def test_every_schema_is_one():
    for file in SCHEMAS.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(file.read_text()))


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.stem)
def test_every_part_is_described_and_every_object_closed(file):
    for where, part in PARTS:
        if where.partition(":")[0] == file.stem:
            assert part.get("description"), where
            if "object" in str(part.get("type")) and where not in OPEN:
                assert part.get("additionalProperties") is False, where


OPEN = {
    "pillar",  # of the whole, each key has its own
    "secrets:<^[a-z0-9][a-z0-9-]*$(?!\\n)>:dummy",
}


def test_what_sounds_secret_is_one():
    sounds = re.compile(
        r"(password|passphrase|secret|hash|ha1|credentials?|auth|pin|dsn|token|key)$"
    )
    found = [(where, part) for where, part in PARTS if sounds.search(where)]
    plain = {
        where for where, part in found if not part.get("x-secret") and part.get("type") != "object"
    }
    assert plain == {
        "freeswitch:repository:key",  # public halves
        "opensips:repository:key",
        "fsx:source_hash",
    }
