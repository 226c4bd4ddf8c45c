"""`acme` of the master's configuration: what is wrong is said in one line, with where it stands."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardian.acme import bundle, config, stores

GOOD = {
    "directory": "https://acme.example.net/directory",
    "terms_agreed": True,
    "contact": ["voice@example.net"],
    "state": "/var/lib/guardian/acme",
    "certificates": {
        "default": {
            "names": ["pbx.example.net", "*.pbx.example.net"],
            "challenge": {"route53": {"zone": "Z0123456789ABC"}},
            "store": {"secretsmanager": "voice/certificates/default", "region": "eu-west-2"},
        },
        "web": {
            "names": ["web.example.net"],
            "challenge": {"webroot": "/srv/web"},
            "store": {"parameters": {"key": "rt.web.key", "chain": "rt.web.chain"},
                      "region": "eu-west-2"},
            "key": "ec-p384",
            "preferred_chain": "ISRG Root X1",
            "profile": "classic",
        },
    },
}  # fmt: skip
GONE = object()


def changed(path, value):
    """GOOD with the value at `a:b:c` replaced, or taken away."""
    found = copy.deepcopy(GOOD)
    *parents, last = path.split(":")
    at = found
    for key in parents:
        at = at.setdefault(key, {})
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return found


def test_what_is_wanted():
    parsed = config.parse(GOOD)
    default, web = parsed.certificates.values()
    assert default.names == ("pbx.example.net", "*.pbx.example.net")
    assert (default.challenge.kind, web.challenge.kind) == ("dns-01", "http-01")
    assert default.key == "rsa-2048"
    assert web.store.sources() == ["parameter:rt.web.key", "parameter:rt.web.chain"]
    assert parsed.contact == ("mailto:voice@example.net",)
    assert parsed.timeout == 300


D = "certificates:default"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("directory", GONE, "acme:directory: is missing"),
        ("directory", "http://acme.example.net", "must be an https address"),
        ("directory", 7, "acme:directory: must be text in quotes"),
        ("directry", "x", "acme:directry: unknown key (did you mean directory?)"),
        ("terms_agreed", GONE, "acme:terms_agreed: must be true"),
        ("terms_agreed", "yes", "acme:terms_agreed: must be true or false"),
        ("contact", "voice@example.net", "acme:contact: must be a list"),
        ("contact", ["no address"], "acme:contact: 'no address' is malformed"),
        ("state", "acme", "acme:state: must be an absolute path without .."),
        ("state", "/var/../etc", "acme:state: must be an absolute path without .."),
        ("timeout", 5, "acme:timeout: is between 10 and 3600 seconds"),
        ("timeout", "300", "acme:timeout: must be a whole number"),
        ("authority", "/nowhere/roots.pem", "acme:authority: must be `system` or a readable file"),
        ("binding", {"kid": "k"}, "acme:binding:hmac: is missing"),
        ("certificates", GONE, "acme:certificates: is missing"),
        ("certificates", ["default"], "acme:certificates: must be a mapping"),
        ("certificates:Default", {}, "acme:certificates:Default: a name is small letters"),
        (f"{D}:names", GONE, f"acme:{D}:names: names nothing"),
        (f"{D}:names", [], "names nothing"),
        (f"{D}:names", ["PBX.example.net"], "'PBX.example.net' is malformed"),
        (f"{D}:names", ["pbx"], "'pbx' is malformed"),
        (f"{D}:names", ["192.0.2.1"], "'192.0.2.1' is malformed"),
        (f"{D}:names", ["a.*.example.net"], "is malformed"),
        (f"{D}:names", ["a.example.net\n"], "is malformed"),
        (f"{D}:names", ["a.example.net", "a.example.net"], "has a name twice"),
        (f"{D}:names", [f"a{n}.example.net" for n in range(101)], "more than 100"),
        (f"{D}:challenge", {"standalone": {}}, "*.pbx.example.net can only be proven by dns-01"),
        (f"{D}:challenge", {}, "exactly one of standalone, webroot, route53"),
        (f"{D}:challenge", {"route53": {}, "webroot": "/srv"}, "must have exactly one of"),
        (f"{D}:challenge:route53:zone", "x'", "route53:zone: must be the id of a hosted"),
        (f"{D}:challenge:route53:role", "acme", "route53:role: must be the ARN of a role"),
        (f"{D}:challenge:route53:zoen", "Z1", "zoen: unknown key (did you mean zone?)"),
        ("certificates:web:challenge", {"standalone": {"port": 0}}, "between 1 and 65535"),
        ("certificates:web:challenge", {"standalone": {"address": "pbx"}}, "an address of"),
        ("certificates:web:challenge", {"webroot": "srv"}, "must be an absolute path"),
        (f"{D}:key", "ec-p265", f"acme:{D}:key: 'ec-p265' unknown (did you mean ec-p256?)"),
        (f"{D}:store", GONE, f"acme:{D}:store: is missing"),
        (f"{D}:store", {"s3": "x"}, "exactly one of secretsmanager, parameters, file"),
        (f"{D}:store:region", "euw2", "store:region: must be AWS's name of a region"),
        (f"{D}:store:region", GONE, "store:region: is missing"),
        (f"{D}:store", {"file": "default.json"}, "store:file: must be an absolute path"),
        ("certificates:web:store:parameters:chain", "rt.web.key", "a pair has two names"),
        ("certificates:web:store:parameters:chain", "rt web", "must be a parameter's name"),
        ("certificates:web:store", GOOD["certificates"]["default"]["store"],
         "acme:certificates:web:store: is where default is stored"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(path, value, told):
    with pytest.raises(bundle.AcmeError) as err:
        config.parse(changed(path, value))
    assert told in str(err.value)
    assert str(err.value).startswith("acme:")
    assert "\n" not in str(err.value)


def test_master_without_any():
    with pytest.raises(bundle.AcmeError, match="does not have it"):
        config.parse(None)


def test_name_that_is_not_configured():
    with pytest.raises(bundle.AcmeError, match=r"'defualt' unknown \(did you mean default\?\)"):
        config.parse(GOOD).certificate("defualt")


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    ),
    st.sampled_from(["", "contact", "certificates", f"{D}:names", f"{D}:challenge", f"{D}:store"]),
)
def test_any_value_is_taken_or_told(value, path):
    try:
        config.parse(changed(path, value) if path else value)
    except bundle.AcmeError as err:
        assert "\n" not in str(err)


def test_bundle_shows_nothing_of_itself():
    assert repr(bundle.Bundle("a key", "a chain")) == "Bundle()"


@pytest.mark.parametrize("text", ["", "[]", '"x"', "null", "[" * 100_000, '{"key": null}', "\x00"])
def test_what_is_no_bundle(text):
    assert bundle.from_json(text) is None


def test_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = stores.File(tmp_path / "kept" / "default.json")
    old, new = bundle.Bundle("old", "old"), bundle.Bundle("new", "new")
    file.write(old)
    for call in ("fsync", "fdopen"):
        with monkeypatch.context() as broken:

            def full(*arguments):
                raise OSError(28, "No space left on device")

            broken.setattr(stores.os, call, full)
            with pytest.raises(bundle.AcmeError, match=r"default.json: No space left on device"):
                file.write(new)
        assert file.read() == old
        assert [one.name for one in file.path.parent.iterdir()] == ["default.json"]
    # What a run that was killed left behind is in nobody's way.
    (file.path.parent / ".default.json.new").write_text("half")
    file.write(new)
    assert file.read() == new
    assert [one.name for one in file.path.parent.iterdir()] == ["default.json"]


def test_file_that_others_may_read_is_refused(tmp_path):
    file = stores.File(tmp_path / "default.json")
    file.write(bundle.Bundle("key", "chain"))
    file.path.chmod(0o640)
    with pytest.raises(bundle.AcmeError, match="chmod 600"):
        file.read()
