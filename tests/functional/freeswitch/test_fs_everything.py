"""A pillar that uses everything: it is of the schema, it loads without a word, and it works."""

import hashlib
import http.server
import json
import queue
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import jsonschema
import pytest
import salt.utils.dictupdate
import yaml

from tests.functional.freeswitch.fs_pairs import connect
from tests.functional.freeswitch.test_fs_faults import connection, globals_of
from tests.support.loading import REPOSITORY
from tests.support.phone import Phone, sip
from tests.support.ports import free_ports

HERE = Path(__file__).parent
LOUD = ("WARNING", "ERR", "CRIT", "ALERT")


@pytest.fixture
def full(node):
    """A node with every part of the pillar; what lies outside lies below its root."""
    text = (HERE / "everything.yaml").read_text().replace("/nonexistent", str(node.root))
    salt.utils.dictupdate.update(node.context, yaml.safe_load(text), merge_lists=False)
    bundle = node.root / "tls" / "default"
    bundle.mkdir(parents=True)
    certificate(bundle)
    node.context["tls_directories"] = {"default": str(bundle)}
    node.context["loglevel"] = "debug"
    node.context["log_levels"] = "notice,warning,err,crit,alert"
    music = node.root / "music"
    music.mkdir()
    (music / "tone.loc").write_text("tone_stream://%(200,200,440);loops=-1\n")
    return node


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes call records in."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.records.put(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.records = queue.Queue()
        server.url = f"http://127.0.0.1:{server.server_port}/v1/records"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def certificate(directory):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", directory / "key.pem", "-out", directory / "chain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    chain, key = ((directory / name).read_text() for name in ("chain.pem", "key.pem"))
    (directory / "agent.pem").write_text(chain + key)
    (directory / "cafile.pem").write_text(chain)
    (directory / "wss.pem").write_text(chain + key)


def test_it_is_of_the_schema():
    schema = json.loads((REPOSITORY / "pillar/schema/freeswitch.json").read_text())
    jsonschema.validate(
        {**yaml.safe_load((HERE / "everything.yaml").read_text()), "esl_password": "long-enough"},
        schema,
    )


def test_it_loads_without_a_word_and_works(full, collector):
    full.context["json_cdr"]["urls"] = [collector.url]
    applied = full.configured()
    assert applied["result"] is True, applied["comment"]
    started = full.running()
    assert started["result"] is True, started["comment"]
    assert full.configured()["changes"] == {}
    assert full.call("config_diff")["disruption"] == "none"
    with connect(full.conf) as link:
        for module in (*full.context["modules"], *full.context["post_load_modules"]):
            assert link.api(f"module_exists {module}") == "true", module
    with Phone(("127.0.0.1", full.context["profiles"]["internal"]["port"])) as phone:
        dialog = phone.call("1000")
        assert phone.invite("closed").status == 480
        assert phone.hang_up(dialog) == 200
    log = (full.root / "log" / "freeswitch.log").read_text()
    loud = [line for line in log.splitlines() if any(f"[{word}]" in line for word in LOUD)]
    told = [line for line in loud if "MSG Thread 0 Started" not in line]  # mod_sofia's greeting
    assert not told, "\n".join(told)
    if full.flavour == "real":
        records = [json.loads(collector.records.get(timeout=10)) for _ in range(2)]
        numbers = {one["callflow"][0]["caller_profile"]["destination_number"] for one in records}
        assert numbers == {"1000", "closed"}


def test_queues_agents_and_tiers_follow_under_calls(full):
    """Each by its own command; a queue that goes would take its callers along."""
    full.context["json_cdr"]["urls"] = []
    assert full.configured()["result"] is True
    assert full.running()["result"] is True
    two = {"type": "callback", "contact": "user/101", "status": "Available"}
    context = full.changed(callcenter__agents__two=two)
    center = context["callcenter"]
    center["queues"]["support@default"]["strategy"] = "ring-all"
    center["queues"]["sales@default"] = {"strategy": "top-down"}
    center["agents"]["one@default"]["contact"] = "user/102"
    center["tiers"][0]["level"] = 2
    center["tiers"].append({"agent": "two", "queue": "sales@default"})
    answer = full.configured(context)
    assert answer["result"] is True, answer["comment"]
    assert answer["changes"]["actions"] == [
        "reloadxml",
        "callcenter queue load sales@default",
        "callcenter queue reload support@default",
        "callcenter agent reload one@default",
        "callcenter agent reload two",
        "callcenter tier reload support@default one@default",
        "callcenter tier reload sales@default two",
    ]
    with connect(full.conf) as link:
        assert "support@default|ring-all" in link.api("callcenter_config queue list")
        assert "user/102" in link.api("callcenter_config agent list")
        tiers = link.api("callcenter_config tier list")
        assert "support@default|one@default|Ready|2|1" in tiers
    back = full.configured()
    assert back["result"] is False
    assert "queue sales@default removed with the callers who may wait in it" in back["comment"]
    del context["callcenter"]["agents"]["two"], context["callcenter"]["tiers"][1]
    answer = full.configured(context)
    assert answer["result"] is True, answer["comment"]
    with connect(full.conf) as link:
        assert "two" not in link.api("callcenter_config tier list")


def test_module_rereads_its_file_under_a_call(full):
    full.context["json_cdr"]["urls"] = []
    assert full.configured()["result"] is True
    assert full.running()["result"] is True
    with Phone(("127.0.0.1", full.context["profiles"]["internal"]["port"])) as phone:
        dialog = phone.call("1000")
        answer = full.configured(
            full.changed(log_rollover=200_000_000, xml_curl__directory__timeout=5)
        )
        assert answer["result"] is True, answer["comment"]
        actions = ["reloadxml", "reload_module mod_logfile", "reload_module mod_xml_curl"]
        assert answer["changes"]["actions"] == actions
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200


@pytest.fixture(params=["1.10.12", "1.11.2"])
def version(request, monkeypatch):
    """Which FreeSWITCH the twin is."""
    monkeypatch.setenv("FREESWITCH_TWIN_VERSION", request.param)
    return request.param


@pytest.fixture
def tls(version, full):
    """A node whose internal profile speaks TLS too."""
    if full.flavour == "real" and version != "1.10.12":
        pytest.skip("the real FreeSWITCH has the version it has")
    profile = full.context["profiles"]["internal"]
    profile.update(tls={"port": free_ports()}, certificate="default")
    full.context["json_cdr"]["urls"] = []
    answer = full.configured()
    assert answer["result"] is True, answer["comment"]
    answer = full.running()
    assert answer["result"] is True, answer["comment"]
    return full


def over_tls(node, *, newest=ssl.TLSVersion.TLSv1_3):
    port = node.context["profiles"]["internal"]["tls"]["port"]
    trust = node.root / "tls/default/chain.pem"
    context = ssl.create_default_context(cafile=str(trust))
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    plain = socket.create_connection(("127.0.0.1", port), 5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def call_over_tls(link, phone):
    """Call over a TLS connection; return the dialog."""
    invite = phone.request("INVITE", "1000")
    invite.set("Contact", f"<sip:caller@127.0.0.1:{link.getsockname()[1]};transport=tls>")
    send_over_tls(link, invite)
    final = receive(link, lambda m: m.status >= 200 and m.cseq == (1, "INVITE"))
    assert final.status == 200
    dialog = phone.dialog(invite, final)
    send_over_tls(link, phone.within(dialog, "ACK"))
    return dialog


def hang_up_over_tls(link, phone, dialog):
    send_over_tls(link, phone.within(dialog, "BYE"))
    return receive(link, lambda m: m.cseq[1] == "BYE").status


def send_over_tls(link, request):
    request.set("Via", request.get("Via").replace("SIP/2.0/UDP", "SIP/2.0/TLS"))
    link.sendall(request.build())


def test_call_over_tls(tls):
    with over_tls(tls) as link, Phone(("127.0.0.1", 9)) as phone:
        served = hashlib.sha256(link.getpeercert(binary_form=True)).hexdigest()
        on_disk = ssl.PEM_cert_to_DER_cert((tls.root / "tls/default/chain.pem").read_text())
        assert served == hashlib.sha256(on_disk).hexdigest()
        dialog = call_over_tls(link, phone)
        assert tls.call("status")["sessions"] == 1
        assert hang_up_over_tls(link, phone, dialog) == 200


def receive(link, wanted):
    """Return the next message on a stream that is wanted."""
    link.settimeout(5)
    data = b""
    while True:
        data += link.recv(65_535)
        while b"\r\n\r\n" in data:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(re.search(rb"(?im)^content-length:\s*(\d+)", head)[1])
            if len(rest) < length:
                break
            message = sip.parse(head + b"\r\n\r\n" + rest[:length])
            data = rest[length:]
            if wanted(message):
                return message


def test_old_tls_is_refused(tls):
    with pytest.raises(ssl.SSLError):
        over_tls(tls, newest=ssl.TLSVersion.TLSv1_1)


def test_new_certificate(tls):
    """Before 1.11.1 only a restart makes FreeSWITCH serve it; since, the calls over TLS go on."""
    following = tls.root / "tls" / "next"
    following.mkdir()
    certificate(following)
    tls.context["tls_ciphers"] = None
    assert tls.configured()["result"] is False, "ciphers are read at a start"
    tls.call("pause")
    assert tls.configured()["result"] is True
    assert tls.running()["result"] is True
    context = tls.changed(tls_directories={"default": str(following)})
    port = context["profiles"]["internal"]["tls"]["port"]
    renewed = hot(tls)
    with over_tls(tls) as link, Phone(("127.0.0.1", 9)) as phone:
        dialog = call_over_tls(link, phone)
        before = tls.call("cert_served", "127.0.0.1", port)["fingerprint"]
        answer = tls.configured(context)
        assert "tls-cert-dir" in str(answer)
        after = tls.call("cert_served", "127.0.0.1", port)["fingerprint"]
        assert answer["result"] is renewed, answer["comment"]
        assert (after != before) is renewed
        assert hang_up_over_tls(link, phone, dialog) == 200
    if not renewed:
        return
    actions = ["reloadxml", "reload_module mod_xml_curl", "rescan internal", "reloadcert"]
    assert answer["changes"]["actions"] == actions
    other = tls.root / "tls" / "mismatched"
    other.mkdir()
    certificate(other)
    for name in ("agent.pem", "wss.pem"):
        swapped = (other / "chain.pem").read_text() + (following / "key.pem").read_text()
        (other / name).write_text(swapped)
    answer = tls.configured(tls.changed(tls_directories={"default": str(other)}))
    assert answer["result"] is False
    assert "the previous configuration is back" in answer["comment"]
    assert tls.call("cert_served", "127.0.0.1", port)["fingerprint"] == after
    assert set(tls.call("cert_reload")["after"].values()) == {after}


def test_new_certificate_needs_a_drain_where_ciphers_are_named(tls):
    """Whatever the version: reloadcert would go on with ciphers that nobody chose."""
    following = tls.root / "tls" / "next"
    following.mkdir()
    certificate(following)
    answer = tls.configured(tls.changed(tls_directories={"default": str(following)}))
    assert answer["result"] is False
    assert "restart needed: tls-cert-dir" in answer["comment"]


def test_certificates_that_are_not_renewed_are_told(tls, monkeypatch):
    """Ciphers would be forgotten; a file may be missing, or be served by nobody."""
    if not hot(tls):
        pytest.skip("before 1.11.1 none is")
    with pytest.raises(Exception, match="reloadcert would forget tls-ciphers"):
        tls.call("cert_reload")
    tls.context["tls_ciphers"] = None
    tls.call("pause")
    assert tls.configured()["result"] is True
    assert tls.running()["result"] is True
    agent = tls.root / "tls" / "default" / "agent.pem"
    good = agent.read_text()
    certificate(agent.parent)
    other = agent.read_text()
    agent.unlink()
    with pytest.raises(Exception, match=r"agent.pem: No such file.*; apply its certificate first"):
        tls.call("cert_reload")
    monkeypatch.setitem(globals_of(tls, "freeswitch.status"), "CERTIFICATE_SECONDS", 0.5)
    agent.write_text(
        good.partition("-----BEGIN PRIVATE")[0] + other[other.index("-----BEGIN PRIV") :]
    )
    with pytest.raises(Exception, match="serves no certificate"):
        tls.call("cert_reload")
    agent.write_text(other)
    done = tls.call("cert_reload")
    (before,) = done["before"].values()
    assert "serves no certificate" in before
    lost = connection(tls).api
    monkeypatch.setattr(
        connection(tls), "api",
        lambda self, command, timeout=None: "+OK" if command == "reloadcert"
        else lost(self, command, timeout),
    )  # fmt: skip
    agent.write_text(good)
    with pytest.raises(Exception, match="still serves the certificate that ends"):
        tls.call("cert_reload")


def hot(node):
    version = node.call("status")["version"].split("-")[0]
    return tuple(map(int, version.split("."))) >= (1, 11, 1)


def with_pillar(node, pillar):
    """Give the minion of a node this pillar."""
    (node.root / "pillar" / "top.sls").write_text("base: {'*': [given]}\n")
    (node.root / "pillar" / "given.sls").write_text("#!json\n" + json.dumps(pillar))
    node.caller.sminion.gen_modules()


def test_state_has_a_profile_serve_a_certificate_of_pillar(tls):
    """Its first is a restart, from one directory to another; later ones follow under calls."""
    source = tls.root / "tls" / "source"
    source.mkdir()
    certificate(source)
    bundle = {name: (source / f"{name}.pem").read_text() for name in ("chain", "key")}
    with_pillar(tls, {"certificates": {"voice": {**bundle, "self_signed": True}}})
    arguments = {"name": "internal", "certificate": "voice", "directory": str(tls.root / "served")}
    port = tls.context["profiles"]["internal"]["tls"]["port"]
    wanted = tls.caller.cmd("certificate.facts", bundle["chain"])["fingerprint"]
    predicted = tls.state("tls_certificate", True, **arguments)
    assert predicted["result"] is None, predicted["comment"]
    assert predicted["changes"]["certificate"]["new"]["fingerprint"].startswith(wanted[:16])
    refused = tls.state("tls_certificate", False, **arguments)
    assert refused["result"] is False
    assert "restart needed: tls-cert-dir" in refused["comment"]
    assert (tls.root / "served" / "voice" / "current" / "agent.pem").exists()
    tls.call("pause")
    assert tls.state("tls_certificate", False, **arguments)["result"] is True
    assert tls.running()["result"] is True
    assert tls.call("cert_served", "127.0.0.1", port)["fingerprint"] == wanted
    assert tls.state("tls_certificate", False, **arguments)["changes"] == {}
    assert "PRIVATE KEY" not in str((predicted, refused))
    missing = tls.state("tls_certificate", False, **{**arguments, "certificate": "nowhere"})
    assert missing["result"] is False
    assert "pillar certificates:nowhere must hold chain and key" in missing["comment"]
