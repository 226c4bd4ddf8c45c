"""A proxy that says one thing and does another, or nothing: one line, and the old state kept."""

import errno
import fcntl
import inspect
import os
import re
import signal

import pytest

from tests.functional.opensips.test_os_broken import certificates, tree
from tests.support.ports import free_ports


def scope_of(node, function):
    """What a function of a module or util sees that the node's own caller runs."""
    functions = node.caller.sminion.functions
    loader = functions if function in functions else functions.pack["__utils__"]
    return loader[function].__globals__


@pytest.fixture
def lies(up, monkeypatch):
    """Answers that come instead of the daemon's, command -> answer, error or what makes one."""
    said = {}
    up.call("status")
    honest = scope_of(up, "mi.call")["call"]

    def call(command, params=None, **keywords):
        answer = said.get(command, honest)
        if answer is honest:
            return honest(command, params, **keywords)
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    # The loader hands out what it found at first: the function itself is to answer otherwise.
    utils = up.caller.sminion.functions.pack["__utils__"]
    monkeypatch.setitem(utils._dict, "mi.call", call)
    return said


def configure(node, context, **keywords):
    """As the state does, by a loader whose modules stay the same."""
    return node.call("configure", str(node.source), context, name=str(node.conf), **keywords)


def more(node):
    """A context with one destination more: one `ds_reload`."""
    return node.changed(dispatcher={"1": [node.destination(number) for number in (1, 2, 3)]})


def refused(node, context, told):
    """Hold that a change was taken back whole, and why."""
    before = tree(node)
    with pytest.raises(Exception, match=re.escape(told)) as caught:
        configure(node, context)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("the previous configuration is back")
    assert tree(node) == before


def test_socket_that_is_gone_is_told(up):
    path = up.root / "run" / "opensips_mi.sock"
    aside = path.with_suffix(".aside")
    path.rename(aside)
    status = up.call("status")
    assert (status["running"], status["responding"], status["calls"]) == (True, False, None)
    assert "No such file or directory; is opensips running here?" in status["error"]
    assert up.voice("in_service")["state"] == "in_service", "what cannot be asked counts as busy"
    refused(up, more(up), "No such file or directory; is opensips running here?")
    aside.rename(path)
    assert configure(up, more(up))["result"] is True
    assert len(up.states()) == 3


def test_daemon_that_hangs_is_told_and_takes_the_change_later(up, monkeypatch):
    monkeypatch.setitem(scope_of(up, "opensips.status"), "RELOAD_SECONDS", 1.0)
    group = os.getpgid(up.pid())
    os.killpg(group, signal.SIGSTOP)
    try:
        refused(up, more(up), "no answer; the daemon is stuck or busy")
    finally:
        os.killpg(group, signal.SIGCONT)
    assert configure(up, more(up))["result"] is True
    assert len(up.states()) == 3


def test_socket_that_may_not_be_used_is_told(up, lies):
    lies["ds_reload"] = PermissionError(errno.EACCES, "MI: Permission denied")
    refused(up, more(up), "Permission denied")


def test_reload_that_says_ok_and_takes_nothing_is_taken_back(up, lies):
    lies["ds_reload"] = "OK"
    refused(up, more(up), "ds_reload said OK but ds_list does not show what table dispatcher holds")
    lies.clear()
    assert configure(up, more(up))["result"] is True
    assert len(up.states()) == 3


def test_reload_that_fails_is_taken_back(up, lies):
    lies["reload_routes"] = OSError("MI: reload_routes: reload failed")
    before = up.states()
    refused(up, up.changed(algorithm=9), "reload_routes: reload failed")
    assert up.states() == before


def test_list_that_is_none_is_told(up, lies):
    for answer in ([], {}, {"PARTITIONS": [{"SETS": 5}]}, "OK", None, 7):
        lies["ds_list"] = answer
        with pytest.raises(Exception, match="ds_list: answer not understood") as caught:
            up.call("dispatcher_list")
        assert "\n" not in str(caught.value)


def test_domain_that_is_gone_after_its_reload_is_taken_back(up, lies):
    """`tls_reload` says OK of a certificate that it cannot use, and forgets the domain."""
    port = free_ports()
    context = up.changed(
        sockets=[*up.context["sockets"], {"proto": "tls", "address": "127.0.0.1", "port": port}],
        tls={"main": {"certificate": "web"}},
        certificates=certificates(up.root),
    )
    up.close()
    assert configure(up, context)["result"] is True
    assert up.call("ensure_running")["result"] is True
    context["tls"]["main"]["names"] = ["example.org"]
    lies["tls_list"] = {"Domains": []}
    refused(up, context, "tls_reload said OK but tls_list does not show what table tls_mgm holds")
    lies.clear()
    answer = configure(up, context)
    assert answer["result"] is True
    assert answer["changes"]["actions"] == [up.taken(), "tls_reload"]


def test_disk_that_is_full_changes_nothing(up, monkeypatch):
    before = tree(up)
    up.call("status")
    scope = scope_of(up, "staged.stage")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(scope, "_write", full)
    with pytest.raises(
        Exception, match="no space left; free some and run again, the live tree is untouched"
    ) as caught:
        configure(up, more(up))
    assert "\n" not in str(caught.value)
    assert tree(up) == before
    assert not list(up.root.glob(".conf.staged*"))
    monkeypatch.undo()
    assert configure(up, more(up))["result"] is True


@pytest.mark.parametrize("command", ["ds_reload", "ds_list"])
def test_apply_that_was_killed_is_finished_by_the_next(up, lies, command):
    """Killed between the exchange and its reload, or after it and before anything was noted."""
    swapped = []

    def killed():
        if tree(up) != before:  # not while it still looks around
            os._exit(9)
        swapped.append(command)
        return honest()

    def honest():
        lies.pop(command)
        try:
            return up.mi(command)
        finally:
            lies[command] = killed

    before = tree(up)
    lies[command] = killed
    child = os.fork()
    if child == 0:
        try:
            configure(up, more(up))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    lies.clear()
    assert tree(up) != before, "it was killed after the exchange"
    predicted = configure(up, more(up), test=True)
    answer = configure(up, more(up))
    assert answer["result"] is True
    assert answer["changes"]["actions"] == predicted["changes"]["actions"]
    assert "ds_reload" in answer["changes"]["actions"]
    assert len(up.states()) == 3
    assert configure(up, more(up))["changes"] == {}


def test_second_apply_waits_and_then_names_who_is_at_it(up, monkeypatch):
    path = up.root / "voice" / "lock"
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        up.call("status")
        utils = up.caller.sminion.functions.pack["__utils__"]
        assert "nodelock.hold" in utils
        hold = inspect.unwrap(utils._dict["nodelock.hold"])
        monkeypatch.setattr(hold, "__defaults__", (0.3, *hold.__defaults__[1:]))  # its timeout
        before = tree(up)
        with pytest.raises(Exception, match=r"lock|busy|held") as caught:
            configure(up, more(up))
        assert "\n" not in str(caught.value)
        assert tree(up) == before
        assert configure(up, more(up), test=True)["result"] is None, "to predict needs no lock"
    assert configure(up, more(up))["result"] is True


def test_start_that_systemd_refuses_is_told(node):
    assert node.configured()["result"] is True
    (node.root / "disabled").touch()
    (node.root / "unstartable").touch()
    ret = node.running()
    assert ret["result"] is False
    assert ret["comment"] == "systemd could not start opensips; see its journal"
    assert not (node.root / "disabled").exists(), "it is to start with the node"
    (node.root / "unstartable").unlink()
    assert node.running()["result"] is True


def test_daemon_that_does_not_come_up_is_told(node, monkeypatch):
    assert node.configured()["result"] is True
    node.call("status")
    monkeypatch.setitem(scope_of(node, "opensips.status"), "START_SECONDS", 1.0)
    monkeypatch.setitem(scope_of(node, "opensips.status"), "_ready", lambda now: False)
    with pytest.raises(Exception, match="opensips is not up 1 s after its start") as caught:
        node.call("ensure_running")
    assert "journalctl -u opensips" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\x00", "7"])
def test_note_of_who_is_withdrawn_that_cannot_be_read_stops_everything(up, content):
    """Whoever is out must not come back because nobody knows of it."""
    up.voice("withdraw", "pbx-02.lab-local")
    note = up.root / "voice" / "withdrawn.json"
    good, before = note.read_text(), tree(up)
    note.write_text(content)
    for test in (True, False):
        with pytest.raises(
            Exception, match=r"withdrawn\.json: unreadable; mend or remove it"
        ) as caught:
            configure(up, more(up), test=test)
        assert "\n" not in str(caught.value)
    assert tree(up) == before
    assert up.states()["pbx-02"] == "Inactive"
    note.write_text(good)
    assert configure(up, more(up))["result"] is True
    assert up.states()["pbx-02"] == "Inactive"
