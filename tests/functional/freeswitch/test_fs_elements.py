"""States for one element: what they predict is what they do, and all else stays as it was."""

import contextlib
import socket

import pytest

from tests.support.answerer import Answerer
from tests.support.phone import Phone
from tests.support.ports import free_ports


def twice(node, which, **arguments):
    """Apply a state after its prediction and return its changes; a second time has none."""
    predicted = node.state(which, True, **arguments)
    applied = node.state(which, False, **arguments)
    assert applied["result"] is True, applied["comment"]
    assert predicted["result"] is None
    assert predicted["changes"] == applied["changes"]
    again = node.state(which, False, **arguments)
    assert again["result"] is True
    assert again["changes"] == {}
    return applied["changes"]


def test_gateway_comes_changes_moves_and_goes_under_a_call(up):
    port = up.context["profiles"]["internal"]["port"]
    with Phone(("127.0.0.1", port)) as phone:
        dialog = phone.call()
        params = {"proxy": "127.0.0.1:5999", "register": False}
        changes = twice(up, "gateway_present", name="carrier", profile="external", params=params)
        assert changes["actions"] == ["reloadxml", "rescan external"]
        assert up.call("gateway_status", "carrier")["proxy"].endswith(":5999")
        params["proxy"] = "127.0.0.1:5998"
        changes = twice(up, "gateway_present", name="carrier", profile="external", params=params)
        assert "killgw external carrier" in changes["actions"]
        changes = twice(up, "gateway_present", name="carrier", profile="internal", params=params)
        assert up.call("gateway_status", "carrier")["profile"] == "internal"
        changes = twice(up, "gateway_absent", name="carrier")
        assert changes["files"]["removed"] == ["sip_profiles/internal/carrier.xml"]
        assert up.call("gateway_status", "carrier") is None
        assert phone.reinvite(dialog) == 200
    assert up.configured()["changes"] == {}, "what came and went left nothing behind"


def test_gateway_that_registers_is_waited_for(up):
    with contextlib.closing(Answerer(free_ports())) as carrier:
        params = {
            "proxy": f"127.0.0.1:{carrier.port}", "register": True, "username": "us",
            "password": "not-a-secret-either",
        }  # fmt: skip
        ret = up.state(
            "gateway_present", False, name="carrier", profile="external", params=params,
            registered=True, timeout=20,
        )  # fmt: skip
        assert ret["result"] is True, ret["comment"]
        assert "REGED" in ret["comment"]
        assert "not-a-secret-either" not in str(ret)
        restarted = up.call("gateway_restart", "carrier")
        assert restarted["after"]["profile"] == "external"


def test_gateway_that_does_not_register_is_told_by_its_state(up):
    params = {"proxy": "127.0.0.1:9", "register": True, "username": "us", "password": "x"}
    ret = up.state(
        "gateway_present", False, name="carrier", profile="external", params=params,
        registered=True, timeout=0.5,
    )  # fmt: skip
    assert ret["result"] is False
    assert "gateway carrier is " in ret["comment"]
    assert "not REGED" in ret["comment"]


def test_limit_module_and_list(up):
    changes = twice(up, "limit", name="max-sessions", value=777)
    assert changes["actions"] == ["reloadxml", "fsctl max_sessions 777"]
    assert up.call("status")["max_sessions"] == 777
    changes = twice(up, "module_loaded", name="mod_esf")
    assert changes["actions"] == ["reloadxml", "load mod_esf"]
    assert up.call("api", "module_exists mod_esf") == "true"
    changes = twice(up, "acl_present", name="carriers", allow=["192.0.2.0/24"])
    assert changes["actions"] == ["reloadxml", "reloadacl"]
    assert up.call("acl_test", "192.0.2.7", "carriers") is True
    assert up.call("acl_test", "198.51.100.7", "carriers") is False
    twice(up, "acl_present", name="partners", allow=["198.51.100.0/24"])
    assert up.call("acl_test", "198.51.100.7", "partners") is True


def test_module_that_goes_needs_a_restart(up):
    ret = up.state("module_absent", False, name="mod_hash")
    assert ret["result"] is False
    assert "restart needed: module mod_hash no longer loaded" in ret["comment"]
    assert "mod_hash" in up.call("modules")


@pytest.mark.parametrize(
    ("which", "arguments", "told"),
    [
        ("gateway_present", {"name": "a b", "profile": "external", "params": {}}, "letters"),
        ("gateway_present", {"name": "a", "profile": "nowhere", "params": {}}, "not configured"),
        ("gateway_present",
         {"name": "a", "profile": "external", "params": {"proxy": "x\n<X-PRE-PROCESS"}}, "control"),
        ("limit", {"name": "no-such-limit", "value": 5}, "no setting no-such-limit"),
        ("acl_present", {"name": "carriers", "allow": ["0.0.0.0/0"]}, "nearly everyone"),
        ("module_loaded", {"name": "mod_xml_rpc"}, "plain HTTP"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_changes_nothing(up, which, arguments, told):
    before = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    ret = up.state(which, False, **arguments)
    assert ret["result"] is False
    assert told in ret["comment"]
    assert "\n" not in ret["comment"]
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == before


def test_drained_and_in_service(up):
    with Phone(("127.0.0.1", up.context["profiles"]["internal"]["port"])) as phone:
        dialog = phone.call()
        ret = up.state("drained", True, name="node")
        assert ret["result"] is None
        assert ret["changes"]["state"] == {"old": "in_service", "new": "out_of_service"}
        ret = up.state("drained", False, name="node", timeout=0)
        assert ret["result"] is False
        assert "still up" in ret["comment"]
        assert phone.invite().status == 503
        phone.hang_up(dialog)
        assert up.state("drained", False, name="node", timeout=10)["result"] is True
        twice(up, "in_service", name="node")
        assert phone.invite().status == 200


def test_profile_tells_its_facts(up):
    facts = up.call("profile_status", "internal")
    assert facts["context"] == "public"
    assert facts["sip-ip"] == "127.0.0.1"
    with pytest.raises(Exception, match="does not run"):
        up.call("profile_status", "nowhere")


def test_certificate_that_nobody_serves_is_one_line(up):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Exception, match="serves no certificate"):
        up.call("cert_served", "127.0.0.1", port, timeout=1)
