"""The commands against a daemon that has every table: what each does, and what proves it."""

import datetime
import os
import shutil
import signal
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from salt.exceptions import CommandExecutionError

from tests.functional.opensips.conftest import Node, flavours
from tests.support.ports import free_ports

MUTATED = {"result", "action", "before", "after", "evidence"}


def certificate(directory, name="sip.example.org", key=None, days=30):
    """A bundle of a certificate's directory; another `key` does not match it."""
    directory.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    (directory / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        (key or private).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made.fingerprint(hashes.SHA256()).hex()


def everything(node, flavour):
    """Every table that pillar can ask for; the twin's routes know no fraud."""
    node.tls_port, node.bin_port, node.engine, node.peer_port = (free_ports() for _ in range(4))
    node.fingerprint = certificate(node.root / "tls" / "one")
    sockets = [
        *node.context["sockets"],
        {"proto": "tls", "address": "127.0.0.1", "port": node.tls_port},
    ]
    node.context.update(
        sockets=sockets,
        gateways={"example": {"address": "127.0.0.1", "port": 9}},
        carriers={"carrier": {"gateways": ["example"]}},
        rtpengine={"1": [f"udp:127.0.0.1:{node.engine}"]},
        registrar={
            **node.context["registrar"],
            "domains": ["example.org"],
            "users": {"example.org": {"1000": {"ha1": "0" * 32}}},
        },
        certificates={"default": str(node.root / "tls" / "one")},
        tls={"default": {"certificate": "default"}},
        cluster={
            "id": 1,
            "nodes": {
                "sip-01": {"id": 1, "address": "127.0.0.1", "port": node.bin_port},
                "sip-02": {"id": 2, "address": "127.0.0.1", "port": node.peer_port},
            },
            "tags": {"vip": "sip-01"},
        },
        memory={"shared": 96, "private": 16},
        ping={**node.context["ping"], "interval": 300},  # nobody is there to answer
    )
    if flavour == "real":
        rule = {"prefix": "49", "calls_per_minute": {"warning": 30, "critical": 60}}
        node.context["fraud"] = {"1": [rule]}
    return node


@pytest.fixture(params=flavours())
def full(request, tmp_path, monkeypatch):
    """A proxy with every table, configured and running."""
    if os.geteuid() != 0:
        pytest.skip("the trial boot needs a network of its own, hence root")
    made = everything(Node(tmp_path, request.param), request.param)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for answer in (made.configured(), made.running()):
        assert answer["result"] is True, answer["comment"]
    yield made
    made.close()


def reloads_certificates(node):
    """From 4.0 on it dies of it, hence a certificate waits for a restart."""
    return node.call("status")["version"].startswith("OpenSIPS (3.")


def refused(call, *arguments, match, **keywords):
    with pytest.raises(CommandExecutionError, match=match):
        call(*arguments, **keywords)


def test_what_is_read(full):
    call = full.call
    assert call("address_test", "127.0.0.1") is True
    assert call("address_test", "198.51.100.1") is False
    refused(call, "address_test", "nonsense", match="no IP address")
    assert set(call("dr_gateways")) == {"example"}
    assert call("dr_carrier_status", "carrier") is True
    assert list(call("tls_list")) == ["default"]
    assert [row["url"] for row in call("rtpengine_show")["1"]] == [f"udp:127.0.0.1:{full.engine}"]
    assert call("shtag_list") == {"vip/1": "active"}
    cluster = call("cluster_status")
    assert [node["id"] for node in cluster["nodes"]["1"]] == [2]
    assert cluster["tags"] == {"vip/1": "active"}
    assert call("mi", "dr_gw_status")
    refused(call, "mi", "dr_gw_status", gw_id="example", status=0, match="only read")
    refused(call, "mi", "ds_reload", match="not known to only read")
    assert call("cert_served", "127.0.0.1", full.tls_port)["fingerprint"] == full.fingerprint
    refused(call, "cert_served", "127.0.0.1", 1, match="serves no certificate")


RELOADS = ("address_reload", "clusterer_reload", "domain_reload", "dr_reload", "fraud_reload",
           "dispatcher_reload", "rtpengine_reload", "tls_reload")  # fmt: skip


def test_every_table_is_read_again_and_checked(full):
    for function in RELOADS:
        if function == "fraud_reload" and not full.context["fraud"]:
            continue
        if function == "tls_reload" and not reloads_certificates(full):
            refused(full.call, function, match="tls_reload refused")
            continue
        done = full.call(function)
        assert set(done) == MUTATED, function
        assert done["before"] == done["after"], function
    assert full.call("config_diff")["disruption"] == "none"
    assert full.running()["changes"] == {}


def test_states_that_are_set_are_seen_and_outlive_a_reload(full):
    done = full.call("dr_gateway_status", "example", "i")
    assert (set(done), done["after"]) == (MUTATED, "Disabled MI")
    full.call("dr_reload")
    assert full.call("dr_gateway_status", "example") == "Disabled MI"
    assert full.call("dr_gateway_status", "example", "a")["after"] == "Active"
    refused(full.call, "dr_gateway_status", "example", "p", match="lifted by the next ping")
    refused(full.call, "dr_gateway_status", "nobody", "i", match="GW ID not found")
    assert full.call("dr_carrier_status", "carrier", False)["after"] is False
    assert full.call("dr_carrier_status", "carrier", True)["after"] is True
    url = f"udp:127.0.0.1:{full.engine}"
    assert full.call("rtpengine_enable", url, False)["after"] is False
    full.call("rtpengine_reload")
    assert full.call("rtpengine_show")["1"][0]["by_hand"] is True
    refused(full.call, "rtpengine_enable", "udp:127.0.0.1:1", match="no RTP engine")
    assert full.call("shtag_activate", "vip/1")["after"] == "active"
    refused(full.call, "shtag_activate", "nobody/1", match="there are: vip/1")


def test_certificate_is_renewed_and_proven(full):
    new = certificate(full.root / "tls" / "two")
    context = full.changed(certificates={"default": str(full.root / "tls" / "two")})
    predicted = full.configured(context, test=True)
    applied = full.configured(context)
    if not reloads_certificates(full):
        assert applied["result"] is False
        assert "restart needed: dbtext/tls_mgm" in applied["comment"]
        served = full.call("cert_served", "127.0.0.1", full.tls_port)
        assert served["fingerprint"] == full.fingerprint
        return
    assert applied["result"] is True, applied["comment"]
    assert applied["changes"]["actions"] == [full.taken(), "tls_reload"]
    assert predicted["changes"] == applied["changes"]
    assert full.call("cert_served", "127.0.0.1", full.tls_port)["fingerprint"] == new
    assert "PRIVATE" not in str(applied)


def test_certificate_with_another_key_is_never_served(full):
    """OpenSIPS says OK, drops the domain and serves nothing (measured)."""
    other = ec.generate_private_key(ec.SECP256R1())
    certificate(full.root / "tls" / "two", key=other)
    context = full.changed(certificates={"default": str(full.root / "tls" / "two")})
    failed = full.configured(context)
    assert failed["result"] is False
    assert not reloads_certificates(full) or "key does not match" in failed["comment"]
    served = full.call("cert_served", "127.0.0.1", full.tls_port)
    assert served["fingerprint"] == full.fingerprint
    assert full.running()["changes"] == {}


def test_tls_domain_beside_pillars_is_served_by_its_name(full):
    own = full.root / "tls" / "own"
    fingerprint = certificate(own, "own.example.org")
    bundle = {"chain": (own / "chain.pem").read_text(), "key": {"secret": "own-key"}}
    values = {"own-key": (own / "key.pem").read_text()}
    full.give_pillar(certificates={"own": bundle}, secret_values=values)
    asked = {"certificate": "own", "match_sip_domain": "own.example.org"}
    predicted = full.state("tls_domain_present", True, name="own.example.org", **asked)
    applied = full.state("tls_domain_present", False, name="own.example.org", **asked)
    assert "PRIVATE" not in str([predicted, applied])
    if not reloads_certificates(full):
        assert "restart needed: dbtext/tls_mgm" in applied["comment"]
        return
    assert applied["result"] is True, applied["comment"]
    assert applied["changes"]["actions"] == [full.taken(), "tls_reload"]
    assert predicted["changes"] == applied["changes"]
    served = full.call("cert_served", "127.0.0.1", full.tls_port, "own.example.org")
    assert served["fingerprint"] == fingerprint
    served = full.call("cert_served", "127.0.0.1", full.tls_port)
    assert served["fingerprint"] == full.fingerprint
    assert full.configured()["changes"] == {}, "it is kept"


def test_table_that_a_person_broke_is_put_back(full):
    """`tls_reload` by hand after an edit by hand: the one that ran comes back, and is served."""
    if not reloads_certificates(full):
        pytest.skip("tls_reload is refused from 4.0 on")
    path = full.conf / "dbtext" / "tls_mgm"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"BEGIN PRIVATE KEY", b"BEGIN PRIVATE KEX"))
    refused(full.call, "tls_reload", match="the table that ran is back")
    assert path.read_bytes() == good
    served = full.call("cert_served", "127.0.0.1", full.tls_port)
    assert served["fingerprint"] == full.fingerprint
    assert full.call("config_diff")["disruption"] == "none"


def test_routes_are_not_reloaded_beside_other_changes(full):
    path = full.conf / "conf.d" / "10-core.cfg"
    path.write_text(path.read_text().replace("udp_workers=4", "udp_workers=5"))
    refused(full.call, "reload_routes", match="refused, it would ignore: .*udp_workers=5")
    path.write_text(path.read_text().replace("udp_workers=5", "udp_workers=4"))
    done = full.call("reload_routes")
    assert done["evidence"] == "1 of 50 reloads in this process's life"


def test_drain_gives_what_it_can_and_says_what_it_cannot(full):
    """No peer is up: the sharing tag stays, and everybody is told."""
    unit = full.root / "system/etc/systemd/system/opensips-health.socket"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.touch()
    (full.root / "opensips-health.socket").touch()
    before = full.call("drain_status", 0)
    assert (before["state"], before["health"], before["draining"]) == ("in_service", True, False)
    done = full.call("drain", timeout=30, by="a test")
    assert (set(done), done["result"]) == (MUTATED, True)
    assert "no peer is up to take vip/1" in done["evidence"]
    after = full.call("drain_status", 0.1)
    expected = {"state": "out_of_service", "draining": True, "transactions": 0, "dialogs": 0,
                "flat": True, "tags_held": ["vip/1"], "health": False}  # fmt: skip
    assert {key: after[key] for key in expected} == expected
    assert after["drained_mark"]["by"] == "a test"
    standing = (full.conf / "conf.d" / "15-standing.cfg").read_text()
    assert "draining=i:1" in standing
    refused(full.call, "shtag_activate", "vip/1", match="this proxy is drained")
    # Somebody opens the port again: the next apply closes it.
    (full.root / "opensips-health.socket").touch()
    assert full.configured()["changes"] == {}
    assert full.running()["changes"]["actions"] == ["stop opensips-health.socket"]
    assert full.call("undrain")["after"] == "in_service"
    assert full.call("drain_status", 0)["health"] is True
    assert full.running()["changes"] == {}
    assert "draining=i:0" in (full.conf / "conf.d" / "15-standing.cfg").read_text()


@pytest.mark.skipif(not shutil.which("opensips"), reason="needs two real OpenSIPS")
@pytest.mark.real
def test_drain_gives_the_sharing_tag_to_a_peer(tmp_path, monkeypatch):
    """The peer comes first: of two minions in one process, Salt serves the one made last."""
    (tmp_path / "peer").mkdir()
    (tmp_path / "own").mkdir()
    path, port, peer_port = os.environ["PATH"], free_ports(), free_ports()
    cluster = {
        "id": 1,
        "nodes": {
            "sip-01": {"id": 1, "address": "127.0.0.1", "port": port},
            "sip-02": {"id": 2, "address": "127.0.0.1", "port": peer_port},
        },
        "tags": {"vip": "sip-01"},
    }
    nodes = []
    try:
        for directory, name in (("peer", "sip-02"), ("own", "sip-01")):
            monkeypatch.setenv("PATH", path)
            node = Node(tmp_path / directory, "real")
            nodes.append(node)
            monkeypatch.setenv("PATH", f"{tmp_path / directory / 'bin'}:{path}")
            node.context["cluster"] = cluster
            node.context["node"] = {**node.context["node"], "name": name}
            for answer in (node.configured(), node.running()):
                assert answer["result"] is True, answer["comment"]
        peer, own = nodes
        deadline = time.monotonic() + 20
        while not own.call("cluster_status")["nodes"]["1"][0]["up"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert own.call("shtag_list") == {"vip/1": "active"}
        done = own.call("set_draining", True)
        assert "vip/1 given to node 2" in done["evidence"]
        assert own.call("shtag_list") == {"vip/1": "backup"}
        assert [tag["State"] for tag in peer.mi("clusterer_list_shtags")] == ["active"]
        own.call("set_draining", False)
        assert own.call("shtag_list") == {"vip/1": "backup"}, "it is not taken back by itself"
        assert own.call("shtag_activate", "vip/1")["after"] == "active"
    finally:
        for node in nodes:
            node.close()


def test_one_destination_is_withdrawn_and_restored(full):
    uri = "sip:127.0.0.1:2"
    assert full.call("dispatcher_withdraw", uri)["after"] == ["Inactive"]
    assert full.states() == {"pbx-01": "Active", "pbx-02": "Inactive"}
    os.kill(full.pid(), signal.SIGSTOP)
    os.kill(full.pid(), signal.SIGCONT)
    assert full.configured()["changes"] == {}
    assert full.call("dispatcher_restore", uri)["after"] == ["Active"]
    full.voice("withdraw", "pbx-02.lab-local")
    refused(full.call, "dispatcher_restore", uri, match="pbx-02.lab-local is; voice.restore it")
    refused(full.call, "dispatcher_withdraw", "sip:nobody", match="is in no set")
    full.voice("restore", "pbx-02.lab-local")
    assert full.states() == {"pbx-01": "Active", "pbx-02": "Active"}


def test_rows_are_shown_without_secrets(full):
    (row,) = full.call("rows", "tls_mgm")
    assert row["domain"] == "default"
    assert "private_key" not in row
    (row,) = full.call("rows", "subscriber")
    assert (row["username"], "ha1" in row) == ("1000", False)
    refused(full.call, "rows", "dialplan", match="not part of this configuration")
