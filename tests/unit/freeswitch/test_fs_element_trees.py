"""A tree that has no place for an element is told by its file, and what to do first."""

import pytest

from tests.support.loading import load

MODULES = "autoload_configs/modules.conf.xml"
SWITCH = "autoload_configs/switch.conf.xml"
LISTS = "autoload_configs/acl.conf.xml"
PROFILE = "sip_profiles/internal.xml"


@pytest.fixture(scope="session")
def elements():
    return load("_utils/fs_elements.py")


CASES = {
    "module": (MODULES, lambda of, tree: of.with_module(tree, "mod_x")),
    "list": (LISTS, lambda of, tree: of.with_list(tree, "carriers", ["192.0.2.0/24"], [])),
    "limit": (SWITCH, lambda of, tree: of.with_setting(tree, "max-sessions", 5)),
    "profile": (PROFILE, lambda of, tree: of.with_profile(tree, "internal", {"context": "x"})),
    "module gone": (MODULES, lambda of, tree: of.without_module(tree, "mod_x")),
}


@pytest.mark.parametrize("case", CASES)
def test_file_that_is_missing(elements, case):
    path, change = CASES[case]
    with pytest.raises(ValueError, match=rf"^{path}: missing; apply freeswitch.configured first$"):
        change(elements, {})


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("module", "has no </modules>; apply freeswitch.configured first"),
        ("list", "has no </network-lists>; apply freeswitch.configured first"),
        ("limit", "no setting max-sessions to change"),
        ("profile", "has no <settings> on lines of their own"),
    ],
)
def test_file_without_the_place(elements, case, told):
    """Somebody wrote it by hand, all on one line or for another version."""
    path, change = CASES[case]
    tree = {path: b"<x><settings></settings></x>\n"}
    with pytest.raises(ValueError, match=rf"^{path}: {told}$"):
        change(elements, tree)
    assert tree == {path: b"<x><settings></settings></x>\n"}


def test_parameter_of_a_profile_is_set_where_it_stands(elements):
    lines = (
        "<profile>\n  <settings>\n"
        '    <param name="a" value="1"/>\n    <param name="b" value="1"/>\n'
        '    <param name="a" value="2"/>\n    <param name="c" value="1"/>\n'
        "  </settings>\n</profile>\n"
    )
    params = {"a": ["3", "4"], "b": 'say "<&>"', "new": True}
    changed = elements.with_profile({PROFILE: lines.encode()}, "internal", params)
    assert changed[PROFILE].decode() == (
        "<profile>\n  <settings>\n"
        '    <param name="a" value="3"/>\n    <param name="a" value="4"/>\n'
        '    <param name="b" value="say &quot;&lt;&amp;&gt;&quot;"/>\n'
        '    <param name="c" value="1"/>\n    <param name="new" value="true"/>\n'
        "  </settings>\n</profile>\n"
    )
    assert elements.with_profile(changed, "internal", params) == changed


@pytest.mark.parametrize("value", ["a\nb", "$${x}", "<X-PRE-PROCESS", "\x7f"])
@pytest.mark.parametrize("key", ["value", "name"])
def test_value_that_would_leave_its_attribute(elements, key, value):
    params = {"x": value} if key == "value" else {value: "x"}
    tree = {PROFILE: b"<profile>\n  <settings>\n  </settings>\n</profile>\n"}
    for change in (
        lambda: elements.with_profile(tree, "internal", params),
        lambda: elements.with_gateway(tree, "carrier", "internal", params),
    ):
        with pytest.raises(ValueError, match=r"^a value holds a control character, '\$\$\{' or a"):
            change()
