"""Certificates from a real ACME server, by the runner as the master loads it."""

import contextlib
import datetime
import functools
import http.server
import json
import logging
import socket
import stat
import threading

import acme.client
import pytest
import requests
from cryptography import x509

from guardian.acme import challenges, config, order, service
from guardian.acme.stores import File
from guardian.locks import local
from tests.support.acme import Master, pebble
from tests.support.loading import load

bundles = load("_utils/certificate_bundle.py")


def verify(chain, key, names, authority):
    return bundles.verify(chain, key, names, authority=authority)


def leaf(stored):
    return x509.load_pem_x509_certificate(stored["chain"].encode())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_first_certificate_is_issued_and_stored_for_its_owner_alone(master, ca):
    master.acme["authority"] = str(master.root / "roots.pem")
    (master.root / "roots.pem").write_text(ca.authority())
    told = master.run("issue", "default")["default"]
    assert told["result"] is True
    assert told["names"] == ["pbx.example.net"]
    stored = master.stored()
    assert bundles.verify(stored["chain"], stored["key"], ["pbx.example.net"])
    assert mode(master.file) == 0o600
    assert mode(master.file.parent) == 0o700
    assert [mode(one) for one in (master.root / "acme/accounts").iterdir()] == [0o600]
    assert not list((master.root / "acme/unstored").iterdir())


def test_nothing_is_ordered_while_nothing_is_due(master):
    first = master.run("renew")["default"]
    before = master.file.read_bytes()
    second = master.run("renew", "default")["default"]
    assert "none is stored" in first["comment"]
    assert (second["result"], second["comment"]) == (True, "acme default: in order")
    assert second["fingerprint"] == first["fingerprint"]
    assert master.file.read_bytes() == before


def test_order_by_hand_takes_a_fresh_key_and_the_same_account(master, ca):
    master.run("issue", "default")
    first, account = master.stored(), next((master.root / "acme/accounts").iterdir())
    key = account.read_bytes()
    master.run("issue", "default")
    assert master.stored()["key"] != first["key"]
    assert leaf(master.stored()).public_key() != leaf(first).public_key()
    assert account.read_bytes() == key


def test_certificate_with_less_than_a_third_of_its_life_is_due(master):
    master.run("issue", "default")
    wanted = config.parse(master.acme)
    certificate = wanted.certificate("default")
    stored = certificate.store.read()
    ends = stored.leaf().not_valid_after_utc
    third = (ends - stored.leaf().not_valid_before_utc) / 3
    second = datetime.timedelta(seconds=1)

    def why(now):
        return service.due(wanted, certificate, stored, verify, now=now)

    assert why(ends - third - second) == ""
    assert "are left of" in why(ends - third + second)
    assert "0 days are left" in why(ends + 40 * third)


def test_renewal_replaces_what_is_due(master, monkeypatch):
    master.run("issue", "default")
    first = master.stored()
    tomorrow = leaf(first).not_valid_after_utc - datetime.timedelta(days=30)
    real = service.due

    def later(*arguments, **keywords):
        return real(*arguments, **{**keywords, "now": keywords.get("now") or tomorrow})

    monkeypatch.setattr(service, "due", later)
    told = master.run("renew")["default"]
    assert "issued and stored; 30 days are left" in told["comment"]
    assert master.stored()["key"] != first["key"]


def test_other_names_are_a_reason_to_renew(master):
    master.run("issue", "default")
    master.wanted["names"] = ["pbx.example.net", "sip.example.net"]
    assert "due: " in master.run("status")["default"]["comment"]
    told = master.run("renew")["default"]
    assert told["names"] == ["pbx.example.net", "sip.example.net"]
    master.wanted["names"] = ["sip.example.net"]
    assert "not wanted any more" in master.run("renew")["default"]["comment"]
    assert master.run("status")["default"]["comment"] == "acme default: in order"


def test_web_server_of_ours_answers_from_its_directory(master, ca):
    web = master.root / "web"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=web)
    with http.server.ThreadingHTTPServer(("127.0.0.1", ca.port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        master.wanted["challenge"] = {"webroot": str(web)}
        told = master.run("issue", "default")["default"]
        server.shutdown()
    assert told["result"] is True
    assert not list((web / ".well-known/acme-challenge").iterdir())


def test_chain_that_is_preferred_is_taken(master, tmp_path):
    with pebble(tmp_path / "ca", ALTERNATE_ROOTS=2) as ca:
        master = Master(tmp_path / "master", ca)
        root = x509.load_pem_x509_certificate(ca.authority(1).encode())
        (name,) = root.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        (tmp_path / "roots.pem").write_text(ca.authority(1))
        master.acme["authority"] = str(tmp_path / "roots.pem")
        refused = master.run("issue", "default")["default"]
        assert refused["result"] is False
        master.wanted["preferred_chain"] = name.value
        assert master.run("issue", "default")["default"]["result"] is True
        master.wanted["preferred_chain"] = "Nobody"
        del master.acme["authority"]
        assert "no chain ends at 'Nobody'" in master.run("issue", "default")["default"]["comment"]


def test_ca_that_rejects_nonces_and_remembers_proofs(master, tmp_path):
    with pebble(tmp_path / "ca", WFE_NONCEREJECT=50, AUTHZREUSE=100) as ca:
        master = Master(tmp_path / "master", ca)
        for _ in range(3):
            assert master.run("issue", "default")["default"]["result"] is True
        # Proven once, remembered since: nobody need be able to ask.
        master.wanted["challenge"]["standalone"]["address"] = "192.0.2.1"
        assert master.run("issue", "default")["default"]["result"] is True


def test_ca_that_binds_accounts(tmp_path):
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    with pebble(tmp_path / "ca", binding={"kid-1": key}) as ca:
        master = Master(tmp_path / "master", ca)
        assert "set binding" in master.run("issue", "default")["default"]["comment"]
        master.acme["binding"] = {"kid": "kid-1", "hmac": str(tmp_path / "hmac")}
        assert "is not there" in master.run("issue", "default")["default"]["comment"]
        (tmp_path / "hmac").write_text(f"{key}\n")
        assert "chmod 600" in master.run("issue", "default")["default"]["comment"]
        (tmp_path / "hmac").chmod(0o600)
        assert master.run("issue", "default")["default"]["result"] is True


def test_name_that_is_not_ours_is_told_and_nothing_is_left(master, ca):
    master.run("issue", "default")
    before = master.file.read_bytes()
    (master.root / "web").mkdir()
    master.wanted["challenge"] = {"webroot": str(master.root / "web")}  # that nobody serves
    told = master.run("issue", "default")
    assert (told["retcode"], master.context["retcode"]) == (1, 1)
    comment = told["default"]["comment"]
    assert comment.startswith("acme default: not proven: pbx.example.net by http-01: ")
    assert "\n" not in comment
    assert master.file.read_bytes() == before
    assert not [one for one in (master.root / "web").rglob("*") if one.is_file()]


def test_port_that_is_taken(master, ca):
    with socket.create_server(("127.0.0.1", ca.port)):
        comment = master.run("issue", "default")["default"]["comment"]
    assert f"cannot listen on 127.0.0.1:{ca.port} for http-01: Address already in use" in comment


def test_name_that_the_ca_does_not_issue(master):
    master.wanted["names"] = ["pbx.blocked.example"]
    comment = master.run("issue", "default")["default"]["comment"]
    assert "the CA refuses: rejectedIdentifier: " in comment


def test_ca_that_is_down_costs_nothing_and_little_time(tmp_path, monkeypatch):
    with pebble(tmp_path / "ca") as ca:
        master = Master(tmp_path / "master", ca)
        master.run("issue", "default")
        before = master.file.read_bytes()
        ca.stop()
        comment = master.run("issue", "default")["default"]["comment"]
        assert "cannot be reached (ConnectionError)" in comment
        # What is not due needs no CA.
        assert master.run("renew")["default"]["comment"] == "acme default: in order"
        ca.start()

        @contextlib.contextmanager
        def dies(self, proofs, deadline):
            with published(self, proofs, deadline):
                ca.stop()
                yield

        published = challenges.Standalone.published
        with monkeypatch.context() as patched:
            patched.setattr(challenges.Standalone, "published", dies)
            assert "cannot be reached" in master.run("issue", "default")["default"]["comment"]
        ca.start()
        assert master.file.read_bytes() == before
        # It has forgotten us, as a new one would have; the account is made again.
        assert master.run("issue", "default")["default"]["result"] is True


def test_stranger_in_the_cas_place(master):
    del master.acme["ca"]
    assert "is not who it says" in master.run("issue", "default")["default"]["comment"]


@pytest.mark.parametrize("body", [b"", b"<html>proxy</html>", b"[]", b"{}", b'{"newNonce": 7}'])
def test_what_answers_is_no_acme(master, monkeypatch, body):
    def answer(self, method, url, **keywords):
        found = requests.Response()
        found.status_code, found._content, found.url = 200, body, url
        return found

    monkeypatch.setattr(requests.Session, "request", answer)
    comment = master.run("issue", "default")["default"]["comment"]
    assert "answers what is no ACME" in comment or "no ACME" in comment


def test_store_that_refuses_is_told_before_the_order(master, ca):
    master.file.parent.mkdir()
    master.file.mkdir()
    asked = len(ca.log())
    told = master.run("issue", "default")["default"]
    assert told["comment"] == f"acme default: {master.file}: Is a directory"
    assert len(ca.log()) == asked


def test_what_could_not_be_stored_is_not_ordered_again(master, ca, monkeypatch):
    real = File.write

    def full(self, bundle):
        if self.path == master.file:
            raise service.AcmeError(f"{self.path}: No space left on device")
        real(self, bundle)

    monkeypatch.setattr(File, "write", full)
    assert "No space left" in master.run("renew")["default"]["comment"]
    (kept,) = (master.root / "acme/unstored").iterdir()
    assert mode(kept) == 0o600
    held = json.loads(kept.read_text())
    monkeypatch.setattr(File, "write", real)
    asked = len(ca.log())
    told = master.run("renew")["default"]
    assert "stored what an earlier run could not" in told["comment"]
    assert master.stored() == held
    assert len(ca.log()) == asked
    assert not kept.exists()


def test_only_one_runs(master):
    with local.held(master.root / "acme", "acme", "renew"):
        told = master.run("renew")
    assert told["retcode"] == 1
    assert "(renew, pid " in told["comment"]
    assert told["comment"].endswith("wait until it is done")


def test_account_key_that_others_may_read_or_that_is_damaged(master):
    master.run("issue", "default")
    (key,) = (master.root / "acme/accounts").iterdir()
    key.chmod(0o644)
    assert "chmod 600" in master.run("issue", "default")["default"]["comment"]
    key.chmod(0o600)
    key.write_text("nonsense")
    assert "is not the key of an account" in master.run("issue", "default")["default"]["comment"]
    assert key.read_text() == "nonsense"


def test_no_key_shows(master, caplog, capsys, ca):
    caplog.set_level(logging.DEBUG)
    told = [master.run("issue", "default"), master.run("status"), master.run("renew")]
    account = next((master.root / "acme/accounts").iterdir()).read_text()
    stored = config.parse(master.acme).certificate("default").store.read()
    seen = "".join((caplog.text, *capsys.readouterr(), repr(told), repr(stored)))
    for secret in (account, master.stored()["key"]):
        for line in secret.splitlines()[1:-1]:
            assert line not in seen


def test_ca_that_suggests_a_time(master, monkeypatch):
    master.run("issue", "default")
    wanted = config.parse(master.acme)
    stored = wanted.certificate("default").store.read()
    assert order.suggested_renewal(wanted, stored) is None  # Pebble 2.4 does not say
    now = datetime.datetime.now(datetime.UTC)
    for days, due in ((-1, True), (1, False)):
        when = now + datetime.timedelta(days=days)
        _suggest(monkeypatch, when)
        assert (order.suggested_renewal(wanted, stored) <= now) is due
        assert ("the CA suggests" in master.run("renew")["default"]["comment"]) is due


def _suggest(monkeypatch, when):
    """Let the CA's directory have what a server with ARI has there, and answer it."""
    directory, get = acme.client.ClientV2.get_directory, acme.client.ClientNetwork.get

    def with_ari(url, net):
        found = directory(url, net)
        found._jobj["renewalInfo"] = f"{url}/ari"
        return found

    def answered(self, url, **keywords):
        if "/ari/" not in url:
            return get(self, url, **keywords)
        window = {"start": when.isoformat(), "end": when.isoformat()}
        answer = requests.Response()
        answer.status_code, answer._content = 200, json.dumps({"suggestedWindow": window}).encode()
        return answer

    monkeypatch.setattr(acme.client.ClientV2, "get_directory", staticmethod(with_ari))
    monkeypatch.setattr(acme.client.ClientNetwork, "get", answered)


def test_certificate_that_fails_stops_no_other(master):
    other = {**master.wanted, "store": {"file": str(master.root / "stored" / "other.json")}}
    master.wanted["names"] = ["pbx.blocked.example"]
    master.acme["certificates"]["other"] = other
    told = master.run("renew")
    assert told["default"]["result"] is False
    assert told["other"]["result"] is True
    assert told["retcode"] == 1
    assert (master.root / "stored" / "other.json").exists()
    assert "retcode" not in master.run("renew", "other")
