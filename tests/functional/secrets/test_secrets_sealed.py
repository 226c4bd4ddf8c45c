"""Values of secrets reach one minion alone, whoever looks at its pillar."""

import json
from pathlib import Path

import pytest
import salt.config
import salt.crypt
import salt.loader

from tests.support.loading import REPOSITORY, load

VALUES = {"esl-password": "c4nary", "users": {"100": ["a", 1]}, "optional": None}
PBX, OTHER = "pbx-01.prod-euw2", "pbx-02.prod-euw2"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Key pairs of two minions, as Salt makes them: {minion id: directory}."""
    made = {}
    for minion_id in (PBX, OTHER):
        made[minion_id] = tmp_path_factory.mktemp("pki")
        salt.crypt.write_keys(str(made[minion_id]), "minion", 2048)
    return made


@pytest.fixture
def sealed(tmp_path, keys):
    """Return what the external pillar makes of values, for a minion whose key is in a state."""

    def of(minion_id=PBX, values=VALUES, state="minions", **settings):
        if state:
            (tmp_path / state).mkdir(exist_ok=True)
            (tmp_path / state / minion_id).write_bytes(
                (keys[minion_id] / "minion.pub").read_bytes()
            )
        opts = salt.config.DEFAULT_MASTER_OPTS.copy()
        opts.update(
            id=minion_id,
            __role="master",
            pki_dir=str(tmp_path),
            cachedir=str(tmp_path / "cache"),
            extension_modules=str(tmp_path / "ext"),
            pillar_dirs=[str(REPOSITORY / "_pillar")],
            utils_dirs=[str(REPOSITORY / "_utils")],
        )
        loaded = salt.loader.pillars(opts, {"secrets": None})
        told = loaded["secrets_sealed"](minion_id, {"secret_values": values}, **settings)
        return told.get("secret_values")

    return of


def opened(values, keys, minion_id=PBX, of=None):
    opts = {"id": minion_id, "pki_dir": str(keys[of or minion_id])}
    return load("_utils/secret_seal.py", __opts__=opts).opened(values)


def test_minion_opens_what_is_sealed_to_it_and_nobody_reads_it(sealed, keys):
    found = sealed()
    assert opened(found, keys) == VALUES
    assert "c4nary" not in json.dumps(found)
    assert found["optional"] is None
    assert sealed() != found, "the same value never looks the same twice"


@pytest.mark.parametrize(("minion_id", "key"), [(OTHER, OTHER), (OTHER, PBX), (PBX, OTHER)])
def test_another_minion_opens_nothing(sealed, keys, minion_id, key):
    with pytest.raises(ValueError, match=r"secret esl-password is not sealed to this minion's key"):
        opened(sealed(), keys, minion_id, key)


def test_value_does_not_open_under_another_name(sealed, keys):
    found = sealed()
    with pytest.raises(ValueError, match="secret users is not sealed"):
        opened({"users": found["esl-password"]}, keys)


@pytest.mark.parametrize("state", ["minions_pre", "minions_rejected", ""])
def test_values_are_withheld_from_who_is_not_accepted(sealed, keys, state):
    found = sealed(state=state)
    assert found == {"esl-password": "sealed:", "users": "sealed:", "optional": None}
    with pytest.raises(ValueError, match="see on the master whether the key is accepted"):
        opened(found, keys)


def test_dummies_stay_readable(sealed):
    assert sealed("pbx-01.lab-local", state="", plain=["lab"]) is None
    assert sealed(values={}) is None


@pytest.mark.parametrize("value", ["plain", 5, {"a": "b"}, None])
def test_what_is_not_sealed_stays_as_it_is(keys, value):
    assert opened({"one": value}, keys) == {"one": value}


@pytest.mark.parametrize("damage", ["sealed:x", "sealed:x:y", "sealed::", "sealed:AAAA:AAAA"])
def test_damaged_values_are_refused(keys, damage):
    with pytest.raises(ValueError, match="secret one is not sealed"):
        opened({"one": damage}, keys)


def test_minion_without_a_key_is_told(tmp_path, sealed):
    opts = {"id": PBX, "pki_dir": str(tmp_path / "none")}
    with pytest.raises(ValueError, match="is not sealed to this minion's key"):
        load("_utils/secret_seal.py", __opts__=opts).opened(sealed())


def test_lab_seals_last():
    text = (REPOSITORY / "lab/vagrant/master.yaml").read_text()
    assert text.index("secrets_sealed") > text.index("pillar_schema") > text.index("aws_secrets")
    from lab import master

    (last,) = master._CONFIG["ext_pillar"][-1]
    assert last == "secrets_sealed"
    assert Path(REPOSITORY / "_pillar" / f"{last}.py").is_file()


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANBgkqh\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("a.xml: 'c4n<ary' is no number", "a.xml: '<secret word>' is no number"),
        ("near c4n&lt;ary", "near <secret word>"),
        ("mysql://me:c4n%3Cary@db", "mysql://me:<secret word>@db"),
        ({"comment": ["c4n<ary", 5], "c4n<ary": None}, {"comment": ["<secret word>", 5],
                                                        "<secret word>": None}),
        ("MIIEvAIBADANBgkqh is odd", "<secret key> is odd"),
        (repr(PEM), "'<secret key>'"),
        ("deep9 is deeper", "<secret tree> is deeper"),
        ("nothing of it; 123 neither", "nothing of it; 123 neither"),
    ],
)  # fmt: skip
def test_what_is_told_quotes_no_secret(sealed, keys, told, wanted):
    values = {"word": "c4n<ary", "key": PEM, "tree": {"a": ["deep9"]}, "pin": "123", "none": None}
    opts = {"id": PBX, "pki_dir": str(keys[PBX])}
    seal = load("_utils/secret_seal.py", __opts__=opts)
    assert seal.redacted(told, sealed(values=values)) == wanted


def test_what_is_told_stays_where_there_is_no_secret_or_none_that_opens(sealed, keys):
    seal = load("_utils/secret_seal.py", __opts__={"id": OTHER, "pki_dir": str(keys[OTHER])})
    assert seal.redacted("as it is", {}) == "as it is"
    assert seal.redacted("as it is", sealed()) == "as it is"
