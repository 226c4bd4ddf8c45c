"""The certificate beacon, run by Salt's own beacon machinery: stored, on disk, and served."""

import shutil

import pytest

from tests.functional.certificates.web_node import ME
from tests.functional.test_pillar import Compiler
from tests.support.bundles import CA, DAY, GOOD, KEYS, NOW, leaf, pem, renewed
from tests.support.ports import free_ports

HOUR = DAY / 24


@pytest.fixture
def web(shared_web):
    """It serves a good certificate, and nothing else is there."""
    shutil.rmtree(shared_web.directory, ignore_errors=True)
    shared_web.holds(GOOD)
    assert shared_web.deployed()["result"] is True
    if not shared_web.caller.cmd("service.status", "web"):
        shared_web.start()
    shared_web.deployed()
    return shared_web


def put(web, name, bundle):
    """Have a bundle on disk that pillar does not hold."""
    web.holds(GOOD, certificates_of_old={name: bundle})
    key = f"certificates_of_old:{name}"
    ret = web.state("deployed", False, name=name, pillar_key=key, owner=ME,
                    directory=str(web.directory))  # fmt: skip
    assert ret["result"] is True, ret["comment"]


def ending(days):
    return renewed(begins=NOW - 90 * DAY, ends=NOW + days * DAY + HOUR)


def told(web, *settings):
    """Event data by name and where."""
    events = web.look({"directory": str(web.directory)}, *settings)
    assert all("name" in event["data"] for event in events), events
    assert all("PRIVATE" not in str(event) for event in events)
    return {(one["data"]["name"], one["data"]["where"]): one["data"] for one in events}


def test_all_is_well(web):
    assert told(web, {"days": 21}) == {}


def test_only_what_ends_soon_is_told(web):
    for name, days in (("soon", 5), ("later", 60)):
        put(web, name, ending(days))
    events = web.look({"directory": str(web.directory)}, {"days": 21})
    (event,) = events
    assert event["tag"] == "salt/beacon/fsx-01.lab-local/certificate_expiry/soon"
    data = event["data"]
    assert data["days_left"] == 5
    assert (data["name"], data["where"]) == ("soon", "disk")
    assert data["place"] == str(web.directory / "soon" / "current")
    assert data["serial"]
    assert "problem" not in data


def test_damaged_bundle_is_told_and_hides_no_other(web):
    put(web, "good", ending(5))
    put(web, "bad", ending(6))
    (web.directory / "bad" / "current" / "chain.pem").write_text("damaged")
    found = told(web)
    assert found["bad", "disk"]["problem"].endswith("cannot be read; apply its state again")
    assert found["good", "disk"]["days_left"] == 5


def test_pillar_disk_and_socket_are_told_apart(web):
    soon = ending(3)
    web.holds(soon)
    assert set(told(web)) == {("web", "pillar")}
    web.deployed(service=None, served=None)
    found = told(web)
    assert set(found) == {("web", "pillar"), ("web", "disk"), ("web", "served")}
    assert found["web", "served"]["problem"].startswith(f"{web.at} serves serial ")
    assert found["web", "served"]["problem"].endswith("not what is on disk; reload it")
    web.deployed()
    found = told(web)
    assert {one["days_left"] for one in found.values()} == {3}
    assert found["web", "served"]["place"] == web.at
    assert found["web", "pillar"]["place"] == "certificates:web"


def test_bundle_that_would_be_refused_is_told_before_anyone_applies_it(web):
    web.holds({"chain": GOOD["chain"], "key": pem(KEYS["other"])})
    assert told(web)["web", "pillar"]["problem"] == "key does not match leaf CN=sip"
    web.holds({"chain": GOOD["chain"], "key": {"secret": "gone"}})
    assert "secret gone of certificates:web:key is not" in told(web)["web", "pillar"]["problem"]
    web.holds({**ending(-3), "minimum_days": 9})
    assert "CN=sip expired" in told(web)["web", "pillar"]["problem"]


def test_sockets_may_be_named(web):
    unused = free_ports()
    probe = [web.at, {"port": unused, "certificate": "web"}]
    found = told(web, {"days": 365}, {"probe": probe})
    assert found[web.at, "served"]["days_left"] == 29
    assert found["web", "served"]["problem"].startswith(f"127.0.0.1:{unused} serves no certificate")
    assert told(web, {"probe": []}) == {}


def test_sockets_of_both_daemons_come_from_pillar(web):
    node = {"node": {"address": "10.0.0.1", "name": "x"}}
    profiles = {"a": {"port": 5060}, "b": {"tls": {"port": 5061}, "wss": {"port": 7443},
                                           "certificate": "web"}}  # fmt: skip
    opensips = {
        "sockets": [
            {"proto": "udp", "port": 5060},
            {"proto": "tls", "port": 5061},
            {"proto": "wss", "port": 8443, "address": "10.0.0.9"},
        ],
        "tls": {
            "any": {"certificate": "web"},
            "named": {"certificate": "other", "names": ["*.example.org"],
                      "addresses": ["10.0.0.9:8443"]},
            "carrier": {"certificate": "web", "side": "client"},
        },
    }  # fmt: skip
    web.holds(GOOD, **node, freeswitch={"profiles": profiles}, opensips=opensips)
    found = web.call("sockets")
    assert [(one["certificate"], one["address"], one["port"], one["server_name"])
            for one in found] == [
        ("web", "127.0.0.1", web.port, None),
        ("web", "10.0.0.1", 5061, None),
        ("web", "10.0.0.1", 7443, None),
        ("web", "10.0.0.1", 5061, None),
        ("web", "10.0.0.9", 8443, None),
        ("other", "10.0.0.9", 8443, "probe.example.org"),
    ]  # fmt: skip
    directories = {one["directory"] for one in found}
    assert directories == {str(web.directory), "/etc/voice/tls", "/etc/voice/sofia"}


def test_nothing_deployed_is_nothing_to_say(web):
    shutil.rmtree(web.directory)
    web.holds({}, certificates={})
    assert told(web) == {}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"days": 0}, "whole number"),
        ({"days": True}, "whole number"),
        ({"directory": "x"}, "absolute"),
        ({"probe": "127.0.0.1:443"}, "list of sockets"),
    ],
)
def test_bad_settings_are_refused(web, setting, why, caplog):
    assert web.look(setting) == []
    assert why in caplog.text


def test_settings_are_a_list(web):
    beacons = web.look.__globals__["salt"].beacons.Beacon(
        web.caller.sminion.opts, web.caller.sminion.functions
    )
    validate = beacons.beacons["certificate_expiry.validate"]
    assert validate({"days": 3}) == (False, "certificate_expiry: must be a list of single settings")
    assert validate(["nonsense", {"days": 3}])[0] is True


def test_leaf_that_holds_an_address_shows_it(web):
    web.holds({"chain": pem(leaf(addresses=["127.0.0.1"]), CA), "key": GOOD["key"]})
    assert "127.0.0.1" in web.call("check", "web")["names"]


def test_every_node_is_told_to_look(tmp_path):
    settings = Compiler(tmp_path)("pbx-01.lab-local")["beacons"]["certificate_expiry"]
    assert {"days": 21} in settings
