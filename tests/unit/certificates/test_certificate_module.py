"""A bundle goes live as a whole, is kept as it should be, and never passes through an answer."""

import errno
import os

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.bundles import CA, DAY, GOOD, KEYS, LEAF, NOW, issue, leaf, pem, renewed
from tests.support.loading import load

KEY_LINE = GOOD["key"].splitlines()[1]


@pytest.mark.parametrize("bundle", [None, {}, {"chain": "x"}, "text", []])
def test_pillar_without_a_bundle(shelf, bundle):
    with pytest.raises(CommandExecutionError, match="certificates:default must hold chain and key"):
        shelf.deploy(bundle)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".hidden", "x y", "-x"])
def test_name_stays_below_the_directory(shelf, name):
    with pytest.raises(CommandExecutionError, match="may hold only"):
        shelf.module.inspect(name)


def test_life_of_a_bundle(shelf):
    predicted = shelf.deploy(test=True)
    assert predicted["result"] is None
    assert shelf.tree() == []
    done = shelf.deploy()
    assert done["result"] is True
    assert done["changes"] == predicted["changes"]
    assert (shelf.live / "key.pem").read_text() == GOOD["key"]
    assert (shelf.live / "key.pem").stat().st_mode & 0o777 == 0o600
    assert shelf.live.resolve().stat().st_mode & 0o777 == 0o700
    assert KEY_LINE not in str(done)
    assert shelf.deploy()["changes"] == {}
    assert shelf.deploy(test=True)["result"] is True
    again = shelf.deploy(renewed())
    assert again["changes"]["certificate"]["old"] == done["changes"]["certificate"]["new"]


def test_chain_and_key_may_be_references(shelf):
    shelf.pillar["secret_values"] = {"voice-chain": GOOD["chain"], "voice-key": GOOD["key"]}
    done = shelf.deploy({"chain": {"secret": "voice-chain"}, "key": {"secret": "voice-key"}})
    assert done["result"] is True
    assert (shelf.live / "key.pem").read_text() == GOOD["key"]
    with pytest.raises(CommandExecutionError, match="secret other of certificates:default:key is"):
        shelf.deploy({"chain": {"secret": "voice-chain"}, "key": {"secret": "other"}})
    shelf.pillar["secret_values"]["voice-key"] = None
    with pytest.raises(CommandExecutionError, match="must hold chain and key"):
        shelf.deploy({"chain": {"secret": "voice-chain"}, "key": {"secret": "voice-key"}})
    assert (shelf.live / "key.pem").read_text() == GOOD["key"]


def test_names_may_be_the_node_s_own(shelf):
    shelf.pillar["node"] = {"name": "sip-01", "workspace": "lab-local", "address": "10.0.0.1"}
    bundle = {
        "chain": pem(leaf(names=["sip-01.lab-local.example.org"], addresses=["10.0.0.1"]), CA),
        "key": GOOD["key"],
        "dns_names": ["{host}.{workspace}.example.org"],
        "addresses": ["{address}"],
    }
    assert shelf.deploy(bundle)["result"] is True
    assert shelf.deploy(bundle, dns_names=["sip-01.lab-local.example.org"])["result"] is True
    for name in ("{public_address}", "{secret_values}", "{}"):
        with pytest.raises(CommandExecutionError, match=r"this node fills in \{host\}, \{role\}"):
            shelf.deploy({**bundle, "addresses": [name]})
    shelf.module.__grains__ = {"ec2": {"public_ip": "192.0.2.1"}}
    with pytest.raises(CommandExecutionError, match=r"does not hold the address 192\.0\.2\.1"):
        shelf.deploy({**bundle, "addresses": ["{public_address}"]})
    shelf.pillar["node"]["name"] = "sip-02"
    with pytest.raises(CommandExecutionError, match=r"the name sip-02\.lab-local"):
        shelf.deploy(bundle)


def test_margin_is_for_what_is_to_become_live(shelf):
    """What is live and ends soon is no reason to stop the states of a node; its beacon says so."""
    soon = renewed(ends=NOW + 5 * DAY)
    shelf.deploy(soon)
    assert shelf.deploy({**soon, "minimum_days": 9})["changes"] == {}
    with pytest.raises(CommandExecutionError, match="in less than the 9 days"):
        shelf.deploy({**renewed(ends=NOW + 6 * DAY), "minimum_days": 9})
    with pytest.raises(CommandExecutionError, match="in less than the 9 days"):
        shelf.module.check("default", directory=str(shelf.directory))


def test_check_by_hand(shelf):
    assert shelf.module.check("default")["subject"] == "CN=sip"
    with pytest.raises(CommandExecutionError, match="certificates:other must hold chain and key"):
        shelf.module.check("other")


def test_what_any_daemon_can_serve_is_verified_without_policy(shelf):
    alone = issue("self", KEYS["leaf"], "self", KEYS["leaf"])
    assert shelf.module.verify("default", pem(alone), GOOD["key"])["subject"] == "CN=self"
    assert shelf.module.verify("default", pem(LEAF), GOOD["key"])["subject"] == "CN=sip"
    with pytest.raises(CommandExecutionError, match="certificate default: key does not match"):
        shelf.module.verify("default", GOOD["chain"], pem(KEYS["other"]))


def test_damaged_live_copy_is_replaced_by_a_flip(shelf):
    shelf.deploy()
    before = shelf.live.resolve()
    (before / "key.pem").write_text("damaged")
    predicted = shelf.module.directories(str(shelf.directory))
    shelf.deploy()
    assert (shelf.live / "key.pem").read_text() == GOOD["key"]
    assert predicted == {"default": str(shelf.live.resolve())}
    assert shelf.live.resolve() != before
    assert before.exists(), "whoever has it open keeps it until it is pruned"
    (shelf.live / "chain.pem").unlink()
    again = shelf.deploy()
    assert again["changes"]["certificate"]["old"] == "damaged"


def test_owner_and_mode_are_put_right_in_place(shelf):
    shelf.deploy()
    before = shelf.live.resolve()
    (before / "key.pem").chmod(0o644)
    before.chmod(0o755)
    predicted = shelf.deploy(test=True)
    assert (before / "key.pem").stat().st_mode & 0o777 == 0o644
    done = shelf.deploy()
    assert done["changes"] == predicted["changes"]
    assert done["changes"]["attributes"] == [".", "key.pem"]
    assert done["comment"] == "certificate default repaired"
    assert (before / "key.pem").stat().st_mode & 0o777 == 0o600
    assert before.stat().st_mode & 0o777 == 0o700
    assert shelf.live.resolve() == before
    assert shelf.deploy()["changes"] == {}


def test_three_versions_are_kept_and_the_live_one_always(shelf):
    for _ in range(6):
        shelf.deploy(renewed())
    told = shelf.module.versions("default", str(shelf.directory))
    assert [one["live"] for one in told] == [True, False, False]
    assert all(one["serial"] and one["since"] for one in told)
    assert shelf.live.resolve().name == told[0]["version"]
    assert len(list(shelf.home.iterdir())) == 4
    (shelf.home / told[2]["version"] / "chain.pem").write_text("damaged")
    assert shelf.module.versions("default", str(shelf.directory))[2]["serial"] is None


def test_earlier_bundle_takes_its_version_up_again(shelf):
    first, second = renewed(), renewed()
    shelf.deploy(first)
    version = shelf.live.resolve()
    shelf.deploy(second)
    shelf.deploy(first)
    assert shelf.live.resolve() == version
    assert len(shelf.versions()) == 2


def test_what_is_not_ours_stays(shelf):
    shelf.deploy()
    (shelf.home / "README").write_text("mine")
    (shelf.home / ".ssh").mkdir()
    assert shelf.deploy()["changes"] == {}
    shelf.deploy(renewed())
    assert (shelf.home / "README").read_text() == "mine"
    assert (shelf.home / ".ssh").is_dir()


def test_directory_in_the_way_of_the_link_is_left_alone(shelf):
    (shelf.home / "current").mkdir(parents=True)
    with pytest.raises(CommandExecutionError, match="certificate default: cannot switch"):
        shelf.deploy()
    assert shelf.tree() == ["tls/default", "tls/default/current"]


def test_inspect_tells_absent_from_damaged(shelf):
    assert shelf.module.inspect("default", str(shelf.directory)) is None
    shelf.deploy()
    assert shelf.module.inspect("default", str(shelf.directory))["subject"] == "CN=sip"
    for content in (b"damaged", b"\xff\xfe"):
        (shelf.live / "chain.pem").write_bytes(content)
        with pytest.raises(CommandExecutionError, match="is no certificate; apply the state again"):
            shelf.module.inspect("default", str(shelf.directory))
    with pytest.raises(CommandExecutionError, match=r"default: chain is empty$"):
        shelf.deploy({**GOOD, "chain": ""})


def test_layout_of_freeswitch(shelf):
    """It sends the leaf from agent.pem and the intermediates from cafile.pem."""
    answer = shelf.deploy(layout="sofia")
    own, issuer, key = pem(LEAF), pem(CA), pem(KEYS["leaf"])
    assert (shelf.live / "agent.pem").read_text() == own + key
    assert (shelf.live / "cafile.pem").read_text() == issuer
    assert (shelf.live / "wss.pem").read_text() == own + issuer + key
    modes = {path.stat().st_mode & 0o777 for path in shelf.live.resolve().iterdir()}
    assert modes == {0o600}
    assert "PRIVATE" not in str(answer)
    assert shelf.deploy(layout="sofia")["changes"] == {}
    (shelf.live / "agent.pem").write_text("damaged")
    named = shelf.module.directories(str(shelf.directory), "sofia")
    shelf.deploy(layout="sofia")
    assert named == {"default": str(shelf.live.resolve())}


def test_without_intermediates_the_leaf_stands_in(shelf):
    """With no cafile.pem FreeSWITCH makes up a certificate of its own and serves that."""
    alone = {"chain": pem(LEAF), "key": GOOD["key"], "authority": pem(CA)}
    shelf.deploy(alone, layout="sofia")
    assert (shelf.live / "cafile.pem").read_text() == pem(LEAF)


def test_layout_of_web_servers(shelf):
    shelf.deploy({**GOOD, "chain": GOOD["chain"].rstrip()}, layout="nginx")
    assert (shelf.live / "fullchain.pem").read_text() == GOOD["chain"]
    assert (shelf.live / "privkey.pem").read_text() == GOOD["key"]
    assert (shelf.live / "chain.pem").read_text() == GOOD["chain"]


def test_unknown_layout_and_owner_change_nothing(shelf):
    for keywords, told in (
        ({"layout": "x"}, "layout is none of plain, sofia, nginx"),
        ({"owner": "nobody-here"}, "no user nobody-here or group nobody-here.*; none is live"),
    ):
        with pytest.raises(CommandExecutionError, match=told):
            shelf.deploy(**keywords)
    assert shelf.tree() == []


def test_directory_tells_the_certificate_before_and_after_it_is_there(shelf):
    def directories(bundle):
        shelf.pillar["certificates"]["default"] = bundle
        return shelf.module.directories(str(shelf.directory))

    before = directories(GOOD)
    assert directories({"chain": "junk", "key": "junk"}) == {"default": str(shelf.live)}
    shelf.deploy(GOOD)
    assert directories(GOOD) == before == {"default": str(shelf.live.resolve())}
    assert directories(renewed()) != before
    assert directories({"chain": "junk", "key": "junk"}) == before, "what is live stays"


def test_error_of_a_file_names_it(shelf):
    shelf.directory.parent.mkdir(exist_ok=True)
    shelf.directory.write_text("a file in the way")
    with pytest.raises(CommandExecutionError) as caught:
        shelf.deploy()
    assert str(shelf.directory) in str(caught.value)
    assert str(caught.value).isprintable()


def test_modules_do_not_load_without_what_they_need(shelf):
    module, state = shelf.module, load("_states/certificate.py", __salt__={})
    beacon = load("_beacons/certificate_expiry.py", __salt__={})
    module.__utils__ = {}
    assert module.__virtual__()[0] is False
    assert state.__virtual__()[0] is False
    assert beacon.__virtual__()[0] is False
    module.__utils__ = {"certificate_bundle.verify": None}
    assert module.__virtual__() == "certificate"
    state.__salt__ = beacon.__salt__ = {"certificate.deploy": None, "certificate.expiry": None}
    assert state.__virtual__() == "certificate"
    assert beacon.__virtual__() == "certificate_expiry"


def test_state_passes_on_what_it_is_given_and_no_traceback(shelf):
    state = load("_states/certificate.py", __opts__={"test": True})
    state.__salt__ = {"certificate.deploy": shelf.module.deploy}
    ret = state.deployed("default", directory=str(shelf.directory))
    assert ret["result"] is None
    assert ret["changes"]["certificate"]["new"]["subject"] == "CN=sip"
    assert ret["name"] == "default"
    failed = state.deployed("other", directory=str(shelf.directory))
    assert failed["result"] is False
    assert failed["comment"] == "pillar certificates:other must hold chain and key"
    assert failed["changes"] == {}


def test_old_one_that_cannot_be_taken_back_is_told(shelf, monkeypatch):
    """The disk has filled up meanwhile; the next run finds what is served wrong."""
    shelf.deploy()
    shelf.services = {"web"}

    def fails():
        monkeypatch.setattr(os, "symlink", full)
        return False

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shelf.reload = fails
    with pytest.raises(CommandExecutionError, match=r"reloaded; cannot switch .*: no space left"):
        shelf.deploy(renewed(), service="web")


def test_reload_that_salt_itself_fails_is_told_in_one_line(shelf):
    shelf.services = {"web"}

    def fails():
        raise CommandExecutionError("Job for web.service failed.\nSee systemctl status")

    shelf.reload = fails
    with pytest.raises(CommandExecutionError) as caught:
        shelf.deploy(service="web")
    told = "web could not be reloaded; it is on disk, look at the journal of web"
    assert str(caught.value) == f"certificate default: {told}"


def test_damaged_version_is_not_gone_back_to(shelf):
    shelf.deploy()
    shelf.deploy(renewed())
    version = shelf.versions()[1]
    (shelf.home / version / "chain.pem").write_text("damaged")
    with pytest.raises(CommandExecutionError, match=f"version {version} is damaged"):
        shelf.module.rollback("default", directory=str(shelf.directory))
    assert shelf.versions()[1] == version


def test_pillar_that_failed_to_compile_names_no_address(shelf):
    shelf.pillar["freeswitch"] = {
        "profiles": {"a": {"tls": {"port": 5061}, "certificate": "default"}}
    }
    (socket,) = shelf.module.sockets()
    assert (socket["address"], socket["port"]) == ("127.0.0.1", 5061)
