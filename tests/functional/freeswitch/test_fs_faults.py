"""A daemon that says one thing and does another, or nothing: one line, and the old state kept."""

import re
import shutil

import pytest

from tests.functional.freeswitch.test_fs_commands import edit
from tests.support.ports import free_ports

GATEWAY = {"profile": "external", "params": {"proxy": "127.0.0.1:5999", "register": False}}
BROKEN = "+OK [[error near line 3]: unclosed tag]\n"


def globals_of(node, function):
    """What a function of a module or util sees that the node's own caller runs."""
    functions = node.caller.sminion.functions
    loader = functions if function in functions else functions.pack["__utils__"]
    return loader[function].__globals__


def connection(node):
    return globals_of(node, "esl.connect")["Connection"]


@pytest.fixture
def lies(up, monkeypatch):
    """Answers that come instead of the daemon's, pattern of the command -> answer or error."""
    said = {}
    up.call("status")
    link = connection(up)
    honest = link.api

    def api(self, command, timeout=None):
        for pattern, answer in said.items():
            if re.search(pattern, command):
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return honest(self, command, timeout)

    monkeypatch.setattr(link, "api", api)
    return said


@pytest.fixture
def constants(up, monkeypatch):
    """Set how long the module waits."""
    up.call("status")
    return lambda **values: [
        monkeypatch.setitem(globals_of(up, "freeswitch.status"), name, value)
        for name, value in values.items()
    ]


def test_node_that_is_not_ready_says_so(up, lies):
    assert up.call("ready") is True
    lies["^json"] = (
        '{"response": {"systemStatus": "starting", "sessions": {"count": {"active": 0, "limit": 1},'
        ' "rate": {"max": 1}}, "version": "1.10.12 x", "uptime": {}}}'
    )
    assert up.call("ready") is False
    (failed,) = [check for check in up.call("checks") if not check["ok"]]
    assert failed["name"] == "core is ready"
    lies["^json"] = '{"response": {}}'
    assert up.call("status")["error"] == "status reply not understood"


def test_checks_go_on_where_an_answer_is_none(up, lies):
    lies["^sofia xmlstatus"] = "no xml"
    (failed,) = [check for check in up.call("checks") if not check["ok"]]
    assert failed["name"] == "event socket answers"
    up.close()
    (failed,) = up.call("checks")
    assert failed["detail"] == "freeswitch is not running"


@pytest.mark.parametrize(
    ("function", "arguments", "told"),
    [
        ("calls_count", ["legs"], "use calls or channels"),
        ("set_limits", [], "needs max_sessions or sessions_per_second"),
        ("set_limits", ["many"], "a number from 1 to 999999"),
        ("edit", ["with_anything"], "no element 'with_anything'; there are with_gateway"),
        ("gateway_restart", ["nowhere"], "gateway nowhere does not run"),
        ("acl_test", ["example", "proxies"], "'example' is no IP address"),
        ("apply", [{"actions": [{"do": "hupall"}]}], "no action 'hupall' is known"),
        ("apply", [{"actions": [{"do": "callcenter", "verb": "queue unload", "queue": "q"}]}],
         "no such verb of callcenter_config"),
        ("pause", ["sideways"], "use inbound or outbound"),
        ("killgw", ["external", "a b"], "only letters, digits"),
    ],
)  # fmt: skip
def test_wrong_word_is_told_by_what_is_right(up, function, arguments, told):
    with pytest.raises(Exception, match=re.escape(told)) as caught:
        up.call(function, *arguments)
    assert "\n" not in str(caught.value)


def test_limits_are_set_and_read_back(up):
    done = up.call("set_limits", 123, 45)
    assert done["result"] is True
    assert done["after"] == {"max_sessions": 123, "sps": 45}


def test_rescan_is_refused_over_a_pending_restart(up):
    port = up.context["profiles"]["external"]["port"]
    edit(up, "sip_profiles/external.xml", f'"{port}"', f'"{port + 1}"')
    with pytest.raises(Exception, match="rescan refused, the disk holds what needs a restart"):
        up.call("rescan", "external")


def test_two_trees_are_compared_by_hand(up):
    other = up.root / "other"
    shutil.copytree(up.conf, other)
    assert up.call("classify_change", str(up.conf), str(other))["disruption"] == "none"
    (other / "dialplan" / "public.xml").write_text('<context name="public">\n</context>\n')
    plan = up.call("classify_change", str(up.conf), str(other))
    assert [action["do"] for action in plan["actions"]] == ["reloadxml"]


def test_gateway_that_does_not_come_back_is_told(up):
    assert configure(up, up.changed(gateways__carrier=GATEWAY))["result"] is True
    edit(up, "sip_profiles/external/carrier.xml", "carrier", "another")
    with pytest.raises(Exception, match="gateway carrier did not come back"):
        up.call("gateway_restart", "carrier")


def test_answers_that_are_none_of_freeswitchs(up, lies):
    for command, answer, function, told in (
        ("show modules", '{"rows": {"a": 1}}', "modules", "its rows are no list"),
        ("show calls as", '{"rows": 5}', "calls_list", "its rows are no list"),
        ("show calls as", "[]", "calls_list", "answer is not a JSON object"),
        ("show calls as", "<", "calls_list", "answer is not JSON"),
        ("show calls as", "[" * 100_000, "calls_list", "answer is not JSON"),
        ("show calls count", "many", "calls_count", "count not understood"),
        ("show calls count", "²² total.", "calls_count", "count not understood"),
        ("show calls count", "9" * 5000 + " total.", "calls_count", "count not understood"),
        ("sofia xmlstatus", "<profiles", "profiles", "answer:"),
        ("sofia xmlstatus", OSError("connection lost"), "profiles", "connection lost"),
    ):
        lies.clear()
        lies[f"^{command}"] = answer
        with pytest.raises(Exception, match=told) as caught:
            up.call(function)
        assert "\n" not in str(caught.value)


def test_time_that_is_none_is_zero(up, lies):
    lies["^show calls as"] = '{"rows": [{"uuid": "a", "created_epoch": 1e999}, "no row"]}'
    assert [(call["uuid"], call["created"]) for call in up.call("calls_list")] == [("a", 0)]


def test_background_that_ends_is_one_line(up, lies, monkeypatch):
    def lost(self, command, timeout=None):
        raise OSError("connection lost")

    monkeypatch.setattr(connection(up), "bgapi", lost)
    with pytest.raises(Exception, match=r"^connection lost$"):
        up.call("bgapi", "status")


def refused(node, context, told):
    """Hold that a change was taken back whole, and why."""
    before = {path: path.read_bytes() for path in node.conf.rglob("*.xml")}
    with pytest.raises(Exception, match=re.escape(told)) as caught:
        configure(node, context)
    assert str(caught.value).endswith("the previous configuration is back")
    assert {path: path.read_bytes() for path in node.conf.rglob("*.xml")} == before


def configure(node, context):
    """As the state does, by a loader whose modules stay the same."""
    return node.call("configure", node.source, context, name=str(node.conf))


def test_reload_that_says_ok_and_fails_is_taken_back(up, lies):
    lies["^reloadxml"] = BROKEN
    refused(up, up.changed(gateways__carrier=GATEWAY), "reloadxml failed")


def test_reload_that_leaves_another_configuration_is_taken_back(up, lies):
    lies["^xml_locate root"] = "<document/>"
    refused(up, up.changed(domain="other.invalid"), "holds something else at freeswitch.xml")


def test_gateway_that_does_not_run_after_its_rescan_is_taken_back(up, lies):
    lies["^sofia xmlstatus gateway carrier"] = "Invalid Gateway!\n"
    refused(up, up.changed(gateways__carrier=GATEWAY), "carrier does not run after its rescan")


def test_gateway_that_lives_on_is_told(up, lies):
    assert configure(up, up.changed(gateways__carrier=GATEWAY))["result"] is True
    lies["^sofia profile external killgw"] = "+OK gateway marked for deletion.\n"
    refused(up, up.context, "gateway carrier still runs after its killgw")


def test_profile_that_is_added_must_run(up, lies, constants):
    constants(PROFILE_SECONDS=0.3)
    profile = {**up.context["profiles"]["external"], "port": free_ports()}
    context = up.changed(profiles__partner=profile)
    lies["^sofia xmlstatus$"] = "<profiles></profiles>"
    refused(up, context, "profile partner does not run after its start")
    lies.clear()
    assert "start partner" in configure(up, context)["changes"]["actions"]
    assert up.call("profiles")["partner"]["running"] is True


def test_queue_that_is_not_there_after_its_load_is_taken_back(up, lies):
    context = up.changed(modules=[*up.context["modules"], "mod_callcenter"])
    assert configure(up, context)["result"] is True
    context["callcenter"]["queues"] = {"support": {"strategy": "longest-idle-agent"}}
    lies["^callcenter_config queue list"] = "name|strategy\n+OK\n"
    refused(up, context, "queue support is not there after its load")


def test_new_password_that_is_not_taken_is_taken_back(up, lies, constants, monkeypatch):
    def lost(self, command, timeout=None):
        raise OSError("connection lost")

    monkeypatch.setattr(connection(up), "end_with", lost)
    refused(up, up.changed(esl_password="another-not-a-secret"), "connection lost")


def test_event_socket_that_does_not_answer_anew_is_taken_back(up, lies, constants):
    constants(EVENT_SOCKET_SECONDS=0.5)
    lies["^status$"] = OSError("connection lost")
    refused(up, up.changed(esl_password="another-not-a-secret"), "reload_event_socket failed")


def test_pause_without_effect_is_told(up, lies):
    lies["^fsctl pause "] = "+OK\n"
    with pytest.raises(Exception, match="fsctl pause inbound had no effect"):
        up.call("pause")


def test_log_directory_that_is_not_there_is_no_fault(up, lies):
    lies["log_dir"] = "/nonexistent"
    assert up.call("send_sighup")["after"] == {"inode": None, "size": None}


def test_start_that_systemd_refuses_is_told(node):
    assert node.configured()["result"] is True
    (node.root / "disabled").touch()
    (node.root / "unstartable").touch()
    ret = node.running()
    assert ret["result"] is False
    assert "systemd could not start freeswitch; see its journal" in ret["comment"]
    assert not (node.root / "disabled").exists(), "it is to start with the node"
    (node.root / "unstartable").unlink()
    assert node.running()["result"] is True


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("<profiles></profiles>", "profile external runs; profile internal runs"),
        (OSError("connection lost"), "connection lost"),
    ],
)
def test_start_that_does_not_bring_all_up_is_told(up, lies, constants, answer, told):
    constants(START_SECONDS=1.0)
    up.close()
    lies["^sofia xmlstatus"] = answer
    with pytest.raises(Exception, match=f"is not up 1 s after its start: {told}; see its log"):
        up.call("ensure_running")
    lies.clear()
    assert up.call("ensure_running")["result"] is True


def test_password_cannot_be_tried_on_a_daemon_that_is_down(node):
    assert node.configured()["result"] is True
    with pytest.raises(Exception, match="cannot connect"):
        node.call("esl_password_is_default")
    ret = node.state("esl_password_not_default", False, name="x")
    assert ret["result"] is False
