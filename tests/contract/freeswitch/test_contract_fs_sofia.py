"""Profiles and gateways: what rescan applies, what it spoils, what restart costs."""

import pytest
from fs_daemon import Daemon, until

from tests.support.phone import Phone, sip
from tests.support.ports import free_ports

RESCANNED = "Reload XML [Success]\n+OK scan complete\n"


def gateway(daemon, name="carrier"):
    return daemon.api(f"sofia xmlstatus gateway {name}")


def test_rescan_adds_a_gateway_and_leaves_calls(daemon, phone):
    dialog = phone.call()
    daemon.tree.gateway("carrier")
    assert gateway(daemon) == "Invalid Gateway!\n"
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert "<state>NOREG</state>" in until(lambda: "<gateway>" in gateway(daemon)) * gateway(daemon)
    assert phone.reinvite(dialog) == 200


def test_rescan_ignores_a_changed_gateway_until_killgw(stopped):
    stopped.tree.gateway("carrier", proxy="127.0.0.1:9")
    daemon = stopped.start()
    daemon.tree.gateway("carrier", proxy="127.0.0.1:10")
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert "<proxy>sip:127.0.0.1:9</proxy>" in gateway(daemon)
    killed = daemon.api("sofia profile internal killgw carrier")
    assert killed == "+OK gateway marked for deletion.\n"
    assert daemon.api("sofia profile internal killgw carrier") == "-ERR no such gateway.\n"
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert "<proxy>sip:127.0.0.1:10</proxy>" in gateway(daemon)


def test_removed_gateway_lingers_until_killgw(stopped):
    file = stopped.tree.gateway("carrier")
    daemon = stopped.start()
    file.unlink()
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert "<name>carrier</name>" in gateway(daemon)
    daemon.api("sofia profile internal killgw carrier")
    assert gateway(daemon) == "Invalid Gateway!\n"


def test_gateway_registers_with_its_carrier(stopped):
    with Phone(("127.0.0.1", 9)) as carrier:
        stopped.tree.gateway(
            "carrier", proxy=f"127.0.0.1:{carrier.port}", register="true", username="u",
            password="hushed",
        )  # fmt: skip
        daemon = stopped.start()
        asked = carrier.wait(lambda m: m.method == "REGISTER")
        assert asked.get("From").startswith(f"<sip:u@127.0.0.1:{carrier.port}")
        until(lambda: "<state>REGED</state>" in gateway(daemon))


def test_rescan_with_a_new_port_advertises_what_is_not_there(daemon, phone):
    port = free_ports()
    daemon.tree.profile("internal", port)
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    dialog = phone.call()  # the socket is where it was
    assert sip.Uri.parse(dialog.answer.get("Contact")).port == port


def test_rescan_leaves_the_user_agent(daemon, phone):
    daemon.tree.profile("internal", daemon.tree.sip_port, user_agent_string="another")
    daemon.api("sofia profile internal rescan")
    assert phone.options().get("User-Agent") == "contract"


def test_rescan_applies_the_context(daemon, phone):
    daemon.tree.profile("internal", daemon.tree.sip_port, context="nothing-here")
    daemon.api("sofia profile internal rescan")
    assert phone.invite().status != 200


def test_rescan_says_ok_over_broken_xml(daemon):
    daemon.tree.write("dialplan/broken.xml", "<context>\n")
    said = daemon.api("sofia profile internal rescan")
    assert said.startswith("Reload XML [[error near line ")
    assert said.endswith("]\n+OK scan complete\n")


def test_young_profile_refuses_restart_and_stop_in_words_only(shared):
    for how in ("restart", "stop"):
        said = shared.api(f"sofia profile internal {how}")
        first, second = said.splitlines()
        assert first == "Profile internal must be up for at least 10 seconds to stop/restart."
        assert second.startswith("Please wait ")
        assert "-ERR" not in said
    with Phone(shared.sip) as phone:
        assert phone.options().status == 200


@pytest.fixture(scope="module")
def aged(flavour, tmp_path_factory):
    """A daemon with profiles `a` to `c`, old enough to be restarted."""
    daemon = Daemon(flavour, tmp_path_factory.mktemp("aged"))
    daemon.ports = {name: free_ports() for name in "abc"}
    for name, port in daemon.ports.items():
        daemon.tree.profile(name, port)
    daemon.start()
    until(lambda: "Profile a must" not in daemon.api("sofia profile a stop"), 20, 0.2)
    daemon.api("sofia profile a start")
    yield daemon
    daemon.close()


def running(daemon, name):
    return f"{name}\tprofile" in daemon.api("sofia status")


def test_restart_ends_calls_at_once_and_comes_back(aged):
    with Phone(("127.0.0.1", aged.ports["b"])) as phone:
        dialog = phone.call()
        said = aged.api("sofia profile b restart")
        assert said == "Reload XML [Success]\nrestarting: b"
        assert phone.bye(dialog).get("Reason").startswith("Q.850;cause=16")
        until(lambda: (answer := phone.options(0.4)) and answer.status == 200, 20)


def test_restart_over_broken_xml_kills_the_profile(aged):
    with Phone(("127.0.0.1", aged.ports["c"])) as phone:
        aged.tree.write("dialplan/broken.xml", "<context>\n")
        dialog = phone.call()
        said = aged.api("sofia profile c restart")
        assert said.startswith("Reload XML [[error near line ")
        assert phone.bye(dialog).get("Reason").startswith("Q.850;cause=16")
        until(lambda: not running(aged, "c"), 20)
        assert "is ready" in aged.api("status")  # the core does not mind
        (aged.tree.conf / "dialplan/broken.xml").unlink()
        said = aged.api("sofia profile c start")
        assert said == "Reload XML [Success]\nc started successfully\n"
        until(lambda: (answer := phone.options(0.4)) and answer.status == 200, 20)
