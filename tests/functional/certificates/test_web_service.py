"""A service that serves a certificate has it after the state, or the old one and a failed state."""

import pytest

from tests.support.bundles import GOOD, KEYS, LEAF, pem, renewed


@pytest.fixture
def web(shared_web):
    """It serves a good certificate."""
    for name in ("stubborn", "unreloadable"):
        (shared_web.root / name).unlink(missing_ok=True)
    bundle = renewed()
    shared_web.holds(bundle)
    ret = shared_web.deployed()
    assert ret["result"] is True, ret["comment"]
    if not shared_web.caller.cmd("service.status", "web"):
        assert ret["comment"].endswith("; web does not run")
        shared_web.start()
    shared_web.old = shared_web.call("facts", bundle["chain"])["serial"]
    assert shared_web.serves() == shared_web.old
    shared_web.before = shared_web.reloads(), tree(shared_web)
    return shared_web


def tree(web):
    return sorted(str(path) for path in web.directory.rglob("*"))


def hold_another(web):
    bundle = renewed()
    web.holds(bundle)
    return web.call("facts", bundle["chain"])["serial"]


def test_new_certificate_is_reloaded_and_proven(web):
    serial = hold_another(web)
    predicted = web.deployed(test=True)
    assert (web.reloads(), tree(web)) == web.before
    ret = web.deployed()
    assert ret["result"] is True
    assert ret["changes"] == predicted["changes"]
    assert ret["changes"]["disruption"] == "reload"
    assert web.serves() == serial
    assert web.reloads() == web.before[0] + 1
    again = web.deployed()
    assert again["changes"] == {}
    assert again["result"] is True
    assert web.reloads() == web.before[0] + 1


def test_what_is_on_disk_but_not_served_is_reloaded(web):
    """As after a run that was killed between the flip and the reload."""
    serial = hold_another(web)
    web.deployed(service=None, served=None)
    assert web.serves() == web.old
    predicted = web.deployed(test=True)
    ret = web.deployed()
    assert ret["changes"] == predicted["changes"]
    at = f"127.0.0.1:{web.port}"
    assert ret["changes"]["served"] == {
        at: {"old": f"serves serial {web.old}", "new": f"serves serial {serial}"}
    }
    assert ret["comment"] == "certificate web reloaded"
    assert web.serves() == serial
    assert web.deployed()["changes"] == {}


@pytest.mark.parametrize("fault", ["stubborn", "unreloadable"])
def test_service_that_does_not_take_it_up_gets_the_old_one_back(web, fault, monkeypatch):
    hold_another(web)
    (web.root / fault).touch()
    hurry(web, monkeypatch)
    ret = web.deployed()
    still = f"{web.at} still serves serial {web.old}; "
    told = {"stubborn": still, "unreloadable": "web could not be reloaded; "}
    assert ret["result"] is False
    assert told[fault] in ret["comment"]
    assert ret["comment"].isprintable()
    assert web.serves() == web.old
    assert tree(web) == web.before[1]
    assert web.reloads() == web.before[0] + 3, "two for the new one, one for the old one"
    (web.root / fault).unlink()
    assert web.deployed()["result"] is True
    assert web.serves() != web.old


def hurry(web, monkeypatch):
    """A daemon that will never serve it is waited for no longer than needed."""
    monkeypatch.setitem(web.caller.sminion.opts, "certificate.served_seconds", 0.3)


def test_disk_that_is_right_is_not_taken_back(web, monkeypatch):
    hold_another(web)
    web.deployed(service=None, served=None)
    (web.root / "stubborn").touch()
    hurry(web, monkeypatch)
    before = tree(web)
    ret = web.deployed()
    assert ret["result"] is False
    assert "it is on disk, look at the journal of web" in ret["comment"]
    assert tree(web) == before


def test_bad_bundle_reloads_nothing(web):
    web.holds({"chain": GOOD["chain"], "key": pem(KEYS["other"])})
    ret = web.deployed()
    assert ret["result"] is False
    assert ret["comment"].endswith(f"key does not match leaf CN=sip; kept serial {web.old}")
    assert (web.reloads(), tree(web)) == web.before
    assert web.serves() == web.old


def test_sockets_need_a_service_and_a_form(web):
    assert "needs the service" in web.deployed(service=None)["comment"]
    for served, told in (
        (["443"], "is not address:port"),
        ([{"port": 0}], "port between 1 and 65535"),
        ([{"port": True}], "port between 1 and 65535"),
        ([{"host": "x", "port": 1}], "a mapping of address, certificate"),
        ([443], "a mapping of address, certificate"),
    ):
        assert told in web.deployed(served=served)["comment"]


def test_nobody_listening_where_it_should_be_served(web, monkeypatch):
    hold_another(web)
    hurry(web, monkeypatch)
    ret = web.deployed(served=[{"port": 1}])
    assert ret["result"] is False
    assert "127.0.0.1:1 still serves no certificate: Connection refused" in ret["comment"]
    assert "with the old one, too" in ret["comment"]
    assert web.serves() == web.old


def test_rollback(web):
    new = hold_another(web)
    web.deployed()
    answer = web.call("rollback", "web", directory=str(web.directory))
    assert answer["result"] is True
    assert answer["action"] == f"rollback {answer['before']} -> {answer['after']}"
    assert answer["evidence"].startswith(f"serial {web.old}, ends ")
    assert web.serves() == web.old
    there = [one["version"] for one in web.call("versions", "web", directory=str(web.directory))]
    assert there[0] == answer["after"]
    back = web.call("rollback", "web", answer["before"], directory=str(web.directory))
    assert web.serves() == new
    assert back["result"] is True
    with pytest.raises(Exception, match=f"no version 0123; others: {there[0]}"):
        web.call("rollback", "web", "0123", directory=str(web.directory))


def test_rollback_without_a_service_only_flips(web):
    web.holds({**GOOD, "service": None, "served": []})
    web.deployed(service=None, served=None)
    web.call("rollback", "web", directory=str(web.directory))
    assert web.reloads() == web.before[0]
    alone = {"directory": str(web.root / "single")}
    web.deployed(service=None, served=None, **alone)
    with pytest.raises(Exception, match="no version but the live one; others: none"):
        web.call("rollback", "web", **alone)


def test_first_certificate_stays_when_it_is_not_served(web, monkeypatch):
    """There is no older one to go back to, and a start would need it."""
    hold_another(web)
    hurry(web, monkeypatch)
    ret = web.deployed(directory=str(web.root / "first"))
    assert ret["result"] is False
    assert "it is on disk, look at the journal of web" in ret["comment"]
    assert (web.root / "first" / "web" / "current" / "chain.pem").exists()


def test_leaf_alone_is_served_where_pillar_names_its_authority(web):
    web.holds({"chain": pem(LEAF), "key": GOOD["key"]})
    assert "is missing; add the intermediates" in web.deployed()["comment"]
