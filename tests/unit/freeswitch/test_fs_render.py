"""Rendering: the shipped tree is right, and no pillar value leaves its attribute."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

REPO = Path(__file__).resolve().parents[3]
SOURCE = str(REPO / "salt" / "freeswitch" / "files")


def context(**changes):
    made = yaml.safe_load((REPO / "salt/freeswitch/defaults.yaml").read_text())
    made.update(
        node={"id": "pbx-01.lab-local", "name": "pbx-01", "zone": "a", "address": "192.0.2.21"},
        fleet={
            "sip-01": {"role": "sip", "address": "192.0.2.11"},
            "pbx-01": {"role": "pbx", "address": "192.0.2.21"},
        },
        esl_password="not-a-secret",
    )
    made.update(copy.deepcopy(changes))
    return made


CARRIER = {"profile": "external", "params": {"proxy": "192.0.2.99", "register": False}}
RICH = {
    "gateways": {"carrier": CARRIER},
    "users": {"1001": {"a1_hash": "0" * 32, "variables": {"limit": 2}}},
    "dialplan": {
        "public": [
            {"name": "a", "expression": "^1$", "actions": [{"application": "answer"}]},
            {"name": "b", "field": "x", "expression": "^2$", "actions": [
                {"application": "log", "data": "${x}"}]},
        ],
        "default": [],
    },
    "post_load_modules": ["mod_late"],
    "acl": {"proxies": {"default": "deny", "allow": ["198.51.100.0/24"]},
            "carriers": {"default": "deny", "deny": ["192.0.2.1/32"]}},
}  # fmt: skip


@pytest.fixture
def render(tree_render, tmp_path):
    def run(given):
        return tree_render.render(SOURCE, given, str(tmp_path / "cache"), "freeswitch")

    return run


@pytest.mark.parametrize("changes", [{}, RICH], ids=["defaults", "everything"])
def test_shipped_tree_is_clean(render, fsxml, changes):
    rendered = render(context(**changes))
    assert fsxml.lint(rendered["tree"]) == []
    document = fsxml.load(rendered["tree"])
    internal, *_ = [
        profile
        for profile in document.configuration("sofia.conf").all("profiles", "profile")
        if profile.attrib["name"] == "internal"
    ]
    wanted = internal.all("settings")[0]
    assert wanted.param("sip-ip") == "192.0.2.21"
    assert wanted.param("sip-options-respond-503-on-busy") == "true"
    assert wanted.param("apply-inbound-acl") == "proxies"
    assert wanted.param("log-auth-failures") == "true"
    (proxies,) = [
        node
        for node in document.configuration("acl.conf").all("network-lists", "list")
        if node.attrib["name"] == "proxies"
    ]
    assert "192.0.2.11/32" in [node.attrib["cidr"] for node in proxies.children]
    assert {entry["path"]: oct(entry["mode"]) for entry in rendered["system"]} == {
        "/etc/systemd/system/freeswitch.service.d/guardian.conf": "0o644",
        "/etc/default/freeswitch": "0o644",
        "/etc/fs_cli.conf": "0o600",
        "/etc/logrotate.d/freeswitch": "0o644",
    }
    assert b"-elegant-term" in rendered["system"][1]["content"]
    assert b"TimeoutStopSec=3600" in rendered["system"][0]["content"]


def test_compiled_templates_are_kept(render, tmp_path):
    first = render(context())
    compiled = list((tmp_path / "cache").iterdir())
    assert len(compiled) >= 15
    before = {path: path.stat().st_mtime_ns for path in compiled}
    assert render(context()) == first
    assert {path: path.stat().st_mtime_ns for path in compiled} == before
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"esl_password": None}, "where text is wanted"),
        ({"node": {"name": "x"}}, "address"),
        ({"domain": "a\nb"}, "freeswitch:domain holds a control character"),
        ({"gateways": {"g": {"profile": "external", "params": {"x": "$${y}"}}}}, "params:x holds"),
        ({"domain": "<X-PRE-PROCESS cmd='exec'/>"}, "freeswitch:domain holds"),
        ({"esl_password": "*" * 10}, "freeswitch:esl_password is masked"),
        ({"domain": "\udc80"}, "not valid Unicode"),
        ({"gateways": {"../x": CARRIER}}, "name may hold only"),
        ({"gateways": {"g": {"profile": "../..", "params": {}}}}, "outside the tree"),
        ({"gateways": {"g": {"params": {}}}}, "lacks profile"),
        ({"gateways": ["g"]}, "must map names"),
        ({"gateways": {"g": "h"}}, "must be a mapping"),
        ({"rtp": 7}, "start_port"),
    ],
)
def test_bad_pillar_is_one_line_without_the_value(render, changes, told):
    with pytest.raises(ValueError, match=r".") as caught:
        render(context(**changes))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "not-a-secret" not in str(caught.value)


def test_missing_password_names_the_key(render):
    given_context = context()
    del given_context["esl_password"]
    with pytest.raises(ValueError, match="'esl_password' is undefined; set it in pillar"):
        render(given_context)


def test_every_key_of_a_pillar_is_judged(render):
    """A name becomes an attribute as its value does."""
    with pytest.raises(ValueError, match=r"^pillar freeswitch:x key holds a control character"):
        render(context(x={"a\nb": 1}))
    with pytest.raises(ValueError, match=r"^pillar freeswitch:x:1:0 is masked; give the state the"):
        render(context(x=["fine", ["a" + "*" * 10]]))


def test_two_entries_of_one_file(render):
    gateways = {"a": CARRIER, "b": {**CARRIER, "name": "ignored"}}
    assert "sip_profiles/external/b.xml" in render(context(gateways=gateways))["tree"]
    lists = {"default": {"1": {"a1_hash": "0" * 32}}}
    with pytest.raises(ValueError, match=r"^directory/default.xml: two entries of the pillar lead"):
        render(context(domains=lists))


MANIFEST = "tree:\n  - {path: a.xml, template: a.xml.jinja}\n"


@pytest.fixture
def own(tree_render, tmp_path):
    """A function that renders a source of the test's own."""

    def run(manifest=MANIFEST, template="<a/>\n", **given_context):
        source = tmp_path / "source"
        source.mkdir()
        if manifest is not None:
            (source / "manifest.yaml").write_text(manifest)
        if template is not None:
            (source / "a.xml.jinja").write_text(template)
        return tree_render.render(str(source), given_context, str(tmp_path / "cache"), "freeswitch")

    return run


@pytest.mark.parametrize(
    "manifest",
    [None, "", "[]", "tree: 7", "tree: [a]", "tree: {a: b}", "{", "a: b", "tree: []\nsystem: [7]",
     "\0", "!!python/object:os.system {}"],
)  # fmt: skip
def test_manifest_that_is_none(own, manifest):
    with pytest.raises(
        ValueError, match=r"manifest.yaml: cannot be read as a manifest; see"
    ) as err:
        own(manifest)
    assert "\n" not in str(err.value)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, r"^a.xml.jinja: template missing from the source$"),
        ("\n{% if %}", r"^a.xml.jinja:2: Expected an expression"),
        (
            "{{ missing.key }}",
            r"^a.xml.jinja: 'missing' is undefined; set it in pillar freeswitch$",
        ),
        ("{{ secret + 1 }}", r"^a.xml.jinja: TypeError while rendering; check its pillar$"),
        ("{{ secret | int / 0 }}", r"^a.xml.jinja: ZeroDivisionError while rendering; check its"),
        ("{{ [1] | map('nosuch') | list }}", r"^a.xml.jinja: No filter named 'nosuch'.$"),
        ("{{ '%d' | format(secret) }}", r"^a.xml.jinja: TypeError while rendering; check its"),
    ],
)
def test_template_that_does_not_render(own, template, told):
    with pytest.raises(ValueError, match=told) as caught:
        own(template=template, secret="canary-8F3K")
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_values_as_text(own):
    """In XML they are escaped; for OpenSIPS a word is quoted."""
    template = (
        "{{ yes }} {{ many }} {{ one | many | join }} {{ list | many | join }}|{{ word | quoted }}"
    )
    rendered = own(template=template, yes=True, many=7, one="a", list=["b", "c"], word='a"b\\c & d')
    assert rendered["tree"] == {
        "a.xml": b"true 7 a bc|&#34;a\\&#34;b\\\\c &amp; d&#34;",
    }
    assert rendered["system"] == []


def test_digests_tell_contents_apart_and_show_none(tree_render, render):
    first, second = (render(context(esl_password=word)) for word in ("canary-8F3K", "canary-9G4L"))
    told = [tree_render.digests(rendered) for rendered in (first, second)]
    differing = {path for path in told[0] if told[0][path] != told[1][path]}
    assert differing == {"autoload_configs/event_socket.conf.xml", "/etc/fs_cli.conf"}
    assert set(told[0]) == {*first["tree"], *(entry["path"] for entry in first["system"])}
    assert "canary" not in str(told)


def test_source_of_the_templates(tree_render):
    def cached(url):
        return ["/cache/files/a.xml.jinja", "/cache/files/manifest.yaml"] if "here" in url else []

    assert tree_render.fetch("/srv/templates", None) == "/srv/templates"
    assert tree_render.fetch("salt://here/files", cached) == "/cache/files"
    for answer in (cached, lambda _: None):
        with pytest.raises(
            ValueError, match=r"^salt://missing: no manifest.yaml there on the master$"
        ):
            tree_render.fetch("salt://missing", answer)


TEXT = st.text(max_size=40)


@settings(max_examples=200, deadline=None)
@given(password=TEXT.filter(bool), proxy=TEXT)
def test_values_come_back_exactly_or_are_refused(tree_render, fsxml, tmp_path_factory, password,
                                                 proxy):  # fmt: skip
    """No value can become an attribute, an element or a directive of its own."""
    cache = tmp_path_factory.getbasetemp() / "templates"
    gateway = {"profile": "external", "params": {"proxy": proxy}}
    given_context = context(esl_password=password, gateways={"g": gateway})
    try:
        tree = tree_render.render(SOURCE, given_context, str(cache), "freeswitch")["tree"]
    except ValueError as err:
        assert "\n" not in str(err)
        return
    document = fsxml.load(tree)
    assert document.problems == []
    (found,) = [
        node
        for profile in document.configuration("sofia.conf").all("profiles", "profile")
        for node in profile.all("gateways", "gateway")
    ]
    assert found.param("proxy") == proxy
    settings_node = document.configuration("event_socket.conf").all("settings")[0]
    assert settings_node.param("password") == password
