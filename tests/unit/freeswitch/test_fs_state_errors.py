"""What the FreeSWITCH states make of a module that raises, or is not there."""

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.loading import load


def fails(*_, **__):
    raise CommandExecutionError("ESL 127.0.0.1:8021: connection lost; try again")


def state(test=False, **functions):
    functions = {name.replace("__", "."): function for name, function in functions.items()}
    return load("_states/freeswitch.py", __salt__=functions, __opts__={"test": test})


def test_states_are_there_with_their_module_only():
    assert state(freeswitch__configure=fails).__virtual__() == "freeswitch"
    loads, why = state().__virtual__()
    assert loads is False
    assert why.endswith("run saltutil.sync_all")


@pytest.mark.parametrize(
    ("call", "function"),
    [
        (lambda s: s.installed("freeswitch"), "voice__install_package"),
        (lambda s: s.running(), "freeswitch__ensure_running"),
        (lambda s: s.profile_running("internal"), "freeswitch__profiles"),
        (lambda s: s.tls_certificate("internal", "default"), "certificate__deploy"),
        (lambda s: s.esl_password_not_default("x"), "freeswitch__esl_password_is_default"),
    ],
)
def test_what_a_module_raises_is_the_comment(call, function):
    ret = call(state(**{function: fails}))
    assert ret["result"] is False
    assert ret["comment"] == "ESL 127.0.0.1:8021: connection lost; try again"
    assert ret["changes"] == {}


def test_node_that_fails_a_check_is_not_put_into_service():
    checks = [
        {"name": "profile a runs", "ok": False, "detail": "absent"},
        {"name": "b", "ok": True},
    ]
    ret = state(voice__checks=lambda: {"checks": checks}).in_service("x")
    assert ret["result"] is False
    assert ret["comment"] == "checks failed: profile a runs: absent"


def test_node_that_does_not_come_into_service_is_told():
    states = state(
        voice__checks=lambda: {"checks": []},
        voice__in_service=lambda: {"state": "draining"},
        voice__undrain=fails,
    )
    ret = states.in_service("x")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "connection lost" in ret["comment"]


@pytest.mark.parametrize(
    ("old", "new", "spared"),
    [
        (b"<", b"<document/>", None),
        (b"<document/>", b"<", None),
        (b"<document/>", b"<document/>\n", {"freeswitch.xml": b"<document/>\n"}),
    ],
)
def test_nothing_is_spared_of_a_tree_that_cannot_be_read(old, new, spared):
    """Whatever is left out of the new one, the way to it stays a restart."""
    changes, table, xml = (load(f"_utils/{n}.py") for n in ("fs_changes", "fs_table", "fsxml"))
    utils = {
        "fsxml.load": xml.load,
        "fs_changes.classify": changes.classify,
        "fs_table.rules": table.rules,
    }
    module = load("_modules/freeswitch.py", __opts__={}, __utils__=utils, __context__={})
    daemon = module._Daemon()
    daemon._version = ()
    assert daemon.safe_part({"freeswitch.xml": old}, {"freeswitch.xml": new}) == spared
