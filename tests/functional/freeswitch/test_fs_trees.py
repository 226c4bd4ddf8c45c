"""What the workspaces give their nodes, in front of a daemon: it loads, it is called, it registers.

Every node is compiled by Salt from the pillar as it is, and runs under its own addresses in a
network that nobody else is in.
"""

import hashlib
import os
import shutil
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.functional.freeswitch.fs_callers import (
    call,
    call_over_tls,
    trusting,
    upgrade,
    workers,
)
from tests.functional.freeswitch.fs_pairs import connect
from tests.functional.freeswitch.fs_places import (
    Network,
    Place,
    minion_ids,
    one_of_each_role,
    until,
    workspaces,
)
from tests.support.loading import load

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root"),
    pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed"),
]
CARRIER = "192.0.2.66"
STRANGER = "198.51.100.66"
PASSWORD = "trunk-not-a-secret"
TLS_BEYOND, WSS_BEYOND = 1, 2383  # 5061 and 7443 for a profile on 5060


@pytest.fixture(
    scope="module",
    params=[
        "twin",
        pytest.param(
            "real",
            marks=[
                pytest.mark.real,
                pytest.mark.skipif(not shutil.which("freeswitch"), reason="no freeswitch on PATH"),
            ],
        ),
    ],
)
def flavour(request):
    return request.param


@pytest.fixture(scope="module", autouse=True)
def voice_binary(tmp_path_factory):
    """What tells `voice` which daemon is here."""
    directory = tmp_path_factory.mktemp("bin")
    (directory / "freeswitch").write_text("#!/bin/sh\n")
    (directory / "freeswitch").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:{directory}")
        yield


def runs_as_written(place):
    """Assert that what is on disk runs, all of it, and that nothing else does."""
    assert place.complaints() == []
    checks = place.call("checks")
    assert all(check["ok"] for check in checks), checks
    running = {name: told["state"] for name, told in place.call("profiles").items()}
    assert running == dict.fromkeys(place.profiles, "RUNNING")
    assert place.configured()["changes"] == {}
    fsxml = load("_utils/fsxml.py")
    tree = {str(p.relative_to(place.conf)): p.read_bytes() for p in place.conf.rglob("*.xml")}
    with connect(place.conf) as link:
        for module in (*place.context["modules"], *place.context["post_load_modules"]):
            assert link.api(f"module_exists {module}").strip() == "true", module
        loaded = fsxml.parse(link.api("xml_locate root", 15.0))
    assert fsxml.differs(fsxml.load(tree).root, loaded) == ""


@pytest.mark.parametrize("workspace", workspaces())
def test_every_workspace_has_a_node_here(workspace):
    assert any(one.endswith(f".{workspace}") for one in minion_ids())


@pytest.mark.parametrize("minion_id", minion_ids())
def test_tree_of_a_node_loads_without_a_word(flavour, minion_id, tmp_path):
    place = Place(tmp_path, flavour, minion_id)
    with closing(Network([place.context["node"]["address"]])) as network, network.inside():
        place.start()
        runs_as_written(place)


def test_fault_in_a_tree_is_heard(flavour, tmp_path):
    """What the tests above would see: a gateway that FreeSWITCH leaves out."""
    if flavour == "twin":
        pytest.skip("the twin does not complain of parameters")
    params = {"proxy": CARRIER, "register": True, "username": "us"}
    faulty = {"trunk": {"profile": "external", "params": params}}
    place = Place(tmp_path, flavour, minion_ids()[0], gateways=faulty)
    with closing(Network([place.context["node"]["address"]])) as network, network.inside():
        place.start()
        assert any("password param is REQUIRED" in line for line in place.complaints())


# -- calls ---------------------------------------------------------------------------------------


def callers(place):
    """Return who calls each profile: a proxy of the fleet where proxies do, else a carrier."""
    fleet = place.context["fleet"].values()
    proxies = [entry["address"] for entry in fleet if entry["role"] == "sip"]
    return {
        name: proxies[0] if _list(profile) == "proxies" and proxies else CARRIER
        for name, profile in place.profiles.items()
    }


def _list(profile):
    return profile["params"].get("apply-inbound-acl", "")


def opened(place):
    """Return what opens a node's profiles: TLS, WebSocket, and its carrier on the access list."""
    names = list(place.pillar["certificates"])
    profiles = {
        name: {
            "tls": profile.get("tls", {"port": profile["port"] + TLS_BEYOND}),
            "wss": profile.get("wss", {"port": profile["port"] + WSS_BEYOND}),
            "certificate": profile.get("certificate", names[0]),
        }
        for name, profile in place.profiles.items()
    }
    lists = {
        _list(place.profiles[name]) for name, who in callers(place).items() if who == CARRIER
    } - {""}
    allowed = {name: [*place.context["acl"][name]["allow"], f"{CARRIER}/32"] for name in lists}
    return {"profiles": profiles, "acl": {name: {"allow": a} for name, a in allowed.items()}}


@pytest.fixture(scope="module", params=one_of_each_role())
def started(request, flavour, tmp_path_factory):
    """A node that takes calls over UDP, TLS and WebSocket, and its network."""
    root = tmp_path_factory.mktemp("place")
    plain = Place(root / "plain", flavour, request.param)
    place = Place(root / "open", flavour, request.param, **opened(plain))
    addresses = {place.context["node"]["address"], *callers(place).values(), STRANGER}
    with closing(Network(sorted(addresses))) as network:
        with network.inside():
            place.start()
        yield place, network


@pytest.fixture
def place(started):
    """That node, seen from within its network, with its workers if its calls go to workers."""
    place, network = started
    with network.inside(), workers(place.pillar.get("fsx", {}).get("ports", [])):
        yield place


@pytest.fixture
def certificate(place):
    """Who a node must be over TLS: the deployed chain and a name in it."""
    name = next(iter(place.profiles.values()))["certificate"]
    chain = Path(place.context["tls_directories"][name]) / "chain.pem"
    return trusting(chain), place.pillar["certificates"][name]["dns_names"][0]


def at(place, settings):
    return place.context["node"]["address"], settings["port"]


def require_tls(place):
    """Skip where a twin opens no socket for TLS; the real daemon has to."""
    profile = next(iter(place.profiles.values()))
    with socket.socket() as link:
        if place.flavour == "twin" and link.connect_ex(at(place, profile["tls"])):
            pytest.skip("the twin has no socket for TLS")


def calls_in(place, profile):
    return int(place.call("profile_status", profile)["calls-in"])


def test_tree_opened_for_calls_loads_without_a_word(place):
    runs_as_written(place)


def test_call_on_each_profile(place, tmp_path):
    for name, caller in callers(place).items():
        before = calls_in(place, name)
        assert call(tmp_path, caller, at(place, place.profiles[name])) == "", name
        assert calls_in(place, name) == before + 1, name
    until(lambda: place.call("calls_count") == 0)


def test_stranger_is_not_served(place, tmp_path):
    for name, profile in place.profiles.items():
        assert "unexpected" in call(tmp_path, STRANGER, at(place, profile)), name


def test_call_over_tls_on_each_profile(place, certificate, tmp_path):
    require_tls(place)
    for name, caller in callers(place).items():
        target = at(place, place.profiles[name]["tls"])
        before = calls_in(place, name)
        assert call_over_tls(tmp_path, caller, target, *certificate) == "", name
        assert calls_in(place, name) == before + 1, name
    until(lambda: place.call("calls_count") == 0)


@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_socket_serves_what_was_deployed(place, kind):
    require_tls(place)
    for name, profile in place.profiles.items():
        directory = place.context["tls_directory"]
        deployed = place.caller.cmd("certificate.inspect", profile["certificate"], directory)
        served = place.call("cert_served", *at(place, profile[kind]))
        assert served["fingerprint"] == deployed["fingerprint"], name


def test_websocket_opens_on_each_profile(place, certificate):
    if place.flavour == "twin":
        pytest.skip("the twin speaks no WebSocket")
    for name, profile in place.profiles.items():
        assert upgrade(at(place, profile["wss"]), *certificate) == "sip", name


# -- a gateway and its registrar -----------------------------------------------------------------


def registrar_of(client, minion_id, tmp_path):
    """Return another node of the fleet that lets `trunk` register, beside the client's."""
    address = client.context["fleet"][minion_id.partition(".")[0]]["address"]
    secret = hashlib.md5(f"trunk:{address}:{PASSWORD}".encode(), usedforsecurity=False)
    return Place(
        tmp_path / "registrar",
        client.flavour,
        minion_id,
        event_socket={"port": client.context["event_socket"]["port"] + 1},
        users={"trunk": {"a1_hash": secret.hexdigest()}},
        profiles={"internal": {"params": {"disable-register": False}}},
    )


def trunk_to(registrar, **changes):
    address, port = at(registrar, registrar.profiles["internal"])
    params = {"proxy": f"{address}:{port}", "realm": address, "username": "trunk",
              "password": PASSWORD, "register": True}  # fmt: skip
    return {"profile": "external", "params": {**params, **changes}}


@pytest.fixture
def pair(flavour, tmp_path):
    """Two nodes of a fleet in one network: one with a gateway, and the registrar it leads to."""
    one, other = minion_ids()[:2]
    assert one.partition(".")[2] == other.partition(".")[2], "they are of one fleet"
    registrar = registrar_of(Place(tmp_path / "plain", flavour, one), other, tmp_path)
    client = Place(tmp_path / "client", flavour, one, gateways={"trunk": trunk_to(registrar)})
    places = registrar, client
    addresses = [place.context["node"]["address"] for place in places]
    with closing(Network(addresses)) as network, network.inside():
        for place in places:
            place.start()
            assert place.complaints() == []
        yield client, registrar


def trunk_present(client, trunk, timeout):
    return client.state(
        "gateway_present", False, name="trunk", registered=True, timeout=timeout, **trunk
    )


def test_gateway_registers_with_a_second_instance(pair):
    client, registrar = pair
    assert client.call("await_gateway", "trunk", timeout=20)["state"] == "REGED"
    assert registrar.call("registrations_count") == 1
    ret = trunk_present(client, trunk_to(registrar), timeout=20)
    assert ret["result"] is True, ret["comment"]
    assert ret["changes"] == {}
    assert "REGED" in ret["comment"]
    runs_as_written(client)


def test_gateway_with_a_wrong_password_is_told_by_its_state(pair):
    client, registrar = pair
    ret = trunk_present(client, trunk_to(registrar, password="wrong-not-a-secret"), timeout=5)
    assert ret["result"] is False
    assert ret["comment"] == "gateway trunk is FAIL_WAIT, not REGED, after 5 s"
    ret = trunk_present(client, trunk_to(registrar), timeout=20)
    assert ret["result"] is True, ret["comment"]
    assert registrar.call("registrations_count") == 1
