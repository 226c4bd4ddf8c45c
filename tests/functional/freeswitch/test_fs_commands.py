"""Commands a person runs: each says what was, what it did and what is, and proves it."""

import re

import pytest

from tests.functional.freeswitch.fs_pairs import connect
from tests.functional.freeswitch.test_fs_elements import twice
from tests.functional.freeswitch.test_fs_pairs import until
from tests.support.phone import Phone


@pytest.fixture
def phone(up):
    with Phone(("127.0.0.1", up.context["profiles"]["internal"]["port"])) as phone:
        yield phone


def edit(node, path, old, new):
    file = node.conf / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_reload_shows_whether_anything_was_new(up):
    same = up.call("reloadxml")
    assert same["before"] == same["after"]
    edit(up, "dialplan/public.xml", 'name="answer"', 'name="answered"')
    done = up.call("reloadxml")
    assert done["before"] == same["after"] != done["after"]
    assert "[Success]" in done["evidence"]
    edit(up, "autoload_configs/acl.conf.xml", "127.0.0.1/32", "127.0.0.2/32")
    done = up.call("reloadacl")
    assert done["before"] != done["after"]
    assert up.call("acl_test", "127.0.0.2", "proxies") is True


def test_reload_of_a_broken_file_raises(up):
    (up.conf / "dialplan" / "broken.xml").write_text("<context>\n")
    with pytest.raises(Exception, match=r"reloadxml failed: .*error"):
        up.call("reloadxml")


def test_gateway_goes_and_comes(up):
    params = {"proxy": "127.0.0.1:5999", "register": False}
    twice(up, "gateway_present", name="carrier", profile="external", params=params)
    done = up.call("killgw", "external", "carrier")
    assert done["before"]["proxy"].endswith(":5999")
    assert done["after"] is None
    done = up.call("rescan", "external")
    assert done["after"] == {"gateways": ["carrier"]}


def test_apply_runs_a_plan(up):
    edit(up, "dialplan/public.xml", 'name="answer"', 'name="answered"')
    plan = up.call("config_diff")
    done = up.call("apply", plan)
    assert done["action"] == ["reloadxml"]
    assert done["before"] != done["after"]
    with pytest.raises(Exception, match="not applied here"):
        up.call("apply", {"actions": [{"do": "restart"}]})


def test_background_answers_as_the_foreground_does(up):
    assert up.call("bgapi", "module_exists mod_sofia") == up.call("api", "module_exists mod_sofia")
    for function in ("api", "bgapi"):
        with pytest.raises(Exception, match="command not allowed; allowed are: status"):
            up.call(function, "hupall")


def test_log_is_opened_anew(up):
    log = up.root / "log" / "freeswitch.log"
    before = log.stat().st_ino
    assert up.call("send_sighup")["before"]["inode"] == before


def test_drain_that_is_given_up_puts_the_node_back(up, phone):
    dialog = phone.call()
    done = up.call("drain", timeout=0, on_timeout="abort")
    assert done["result"] is False
    assert done["before"]["state"] == done["after"]["state"] == "in_service"
    assert done["after"]["drained_mark"] is None
    assert phone.invite().status == 200
    assert phone.hang_up(dialog) == 200


def test_drain_waits_and_says_who_drains(up, phone):
    dialog = phone.call()
    done = up.call("drain", timeout=0)
    assert (done["result"], done["after"]["state"]) == (False, "draining")
    assert up.call("drain_status")["drained_mark"]["by"] == "freeswitch.drain"
    assert phone.invite().status == 503
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    done = up.call("drain", timeout=10)
    assert done["after"]["state"] == "out_of_service", done
    up.call("undrain")
    found = up.call("drain_status")
    assert (found["state"], found["drained_mark"]) == ("in_service", None)


def test_drain_hangs_up_only_when_told_to(up, phone):
    dialog = phone.call()
    done = up.call("drain", timeout=0, on_timeout="kill")
    assert (done["result"], done["after"]["state"]) == (True, "out_of_service")
    assert "1 calls up after 0 s" in done["evidence"]
    assert phone.bye(dialog).get("Reason").startswith("SIP;cause=703")
    with pytest.raises(Exception, match="on_timeout is one of wait, abort, kill"):
        up.call("drain", on_timeout="hang up")


def test_public_password_is_told(node):
    """As a tree has it that was made by hand; `configured` refuses to write it."""
    assert node.configured()["result"] is True
    path = "autoload_configs/event_socket.conf.xml"
    edit(node, path, node.context["esl_password"], "ClueCon")
    node.caller.cmd("service.start", "freeswitch")
    until(lambda: node.call("status")["responding"], 20)
    ret = node.state("esl_password_not_default", False, name="x")
    assert ret["result"] is False
    assert "takes a public password" in ret["comment"]
    edit(node, path, "ClueCon", "another-not-a-secret")
    assert node.call("esl_password_is_default") is True, "what runs counts, not what is on disk"


def test_own_password_is_none_of_the_public_ones(up):
    assert up.state("esl_password_not_default", False, name="x")["result"] is True


def test_profile_takes_parameters_under_a_call(up, phone):
    dialog = phone.call()
    params = {"context": "default", "apply-inbound-acl": ["proxies", "carriers"]}
    changes = twice(up, "profile_running", name="internal", params=params)
    assert changes["actions"] == ["reloadxml", "rescan internal"]
    settings = (up.conf / "sip_profiles" / "internal.xml").read_text()
    named = re.findall('name="(context|apply-inbound-acl)" value="(.*)"', settings)
    assert sorted(named) == [
        ("apply-inbound-acl", "carriers"), ("apply-inbound-acl", "proxies"), ("context", "default"),
    ]  # fmt: skip
    assert phone.invite().status != 200
    assert phone.hang_up(dialog) == 200
    ret = up.state("profile_running", False, name="internal", params={"sip-port": 5099})
    assert ret["result"] is False
    assert "restart needed" in ret["comment"]
    assert up.state("profile_running", False, name="nowhere")["result"] is False


def test_profile_that_does_not_run_is_started(up, phone):
    with connect(up.conf) as link:
        young = "must be up for at least"
        while young in link.api("sofia profile external stop"):
            link.api("msleep 500")
    while "external" in up.call("profiles"):
        phone.options(0.1)
    changes = twice(up, "profile_running", name="external")
    assert changes == {"profile": {"old": "absent", "new": "RUNNING"}}


def test_certificates_that_no_version_renews_under_calls(up):
    if not up.call("status")["version"].startswith("1.10."):
        pytest.skip("this FreeSWITCH can")
    with pytest.raises(Exception, match="reads certificates at a start only"):
        up.call("cert_reload")
