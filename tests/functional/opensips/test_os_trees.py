"""The proxies of the real workspaces, each with what its pillar gives it: do they answer?"""

import os
from contextlib import closing

import pytest

from tests.functional.freeswitch.fs_places import LAB, Network, until, workspaces
from tests.functional.opensips.os_tier import Proxy, flavours, fleet, installed, proxies
from tests.support.loading import load

sip = load("_utils/sip.py")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")


@pytest.fixture(scope="module", autouse=True)
def voice_binary(tmp_path_factory):
    """What tells `voice` which daemon is here."""
    yield from installed(tmp_path_factory.mktemp("bin"))


def beside(proxy, directory):
    """Return a network with the addresses of the node and of all others in its fleet."""
    _, _, workspace = proxy.context["node"]["id"].partition(".")
    known = {entry["address"] for entry in fleet(workspace, directory).values()}
    return Network(sorted({proxy.address[0], *known}))


@pytest.mark.parametrize("workspace", workspaces())
def test_every_workspace_has_a_proxy_here(workspace):
    assert any(one.endswith(f".{workspace}") for one in proxies())


@pytest.mark.parametrize("minion_id", proxies())
@pytest.mark.parametrize("flavour", flavours("opensips"))
def test_tree_of_a_proxy_loads_without_a_word_and_answers(flavour, minion_id, tmp_path):
    if flavour == "twin" and not minion_id.endswith(f".{LAB}"):
        pytest.skip("the twin speaks no WebSocket and hides no topology")
    proxy = Proxy(tmp_path / "proxy", flavour, minion_id)
    with closing(beside(proxy, tmp_path / "fleet")) as network, network.inside():
        proxy.start()
        assert sip.options(*proxy.address, 2.0) == 200
        assert proxy.complaints() == []
        # The seed of a cluster waits some seconds for others before it says that it has all.
        until(lambda: all(check["ok"] for check in proxy.call("checks")), 20)
        assert proxy.configured()["changes"] == {}
        assert proxy.running()["changes"] == {}


@pytest.mark.parametrize("flavour", flavours("opensips"))
def test_complaint_of_a_daemon_is_heard(flavour, tmp_path):
    """What the test above would see."""
    if flavour == "twin":
        pytest.skip("the twin does not run startup_route")
    proxy = Proxy(tmp_path / "proxy", flavour, proxies()[0])
    routes = proxy.source / "routes.d/20-dispatch.cfg.jinja"
    routes.write_text(routes.read_text() + 'startup_route { xlog("L_ERR", "a fault\\n"); }\n')
    with closing(beside(proxy, tmp_path / "fleet")) as network, network.inside():
        proxy.start()
        assert any("a fault" in line for line in proxy.complaints())
