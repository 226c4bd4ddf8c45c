"""Certificates: what TLS and WSS serve, when a new one is taken up, and what bad ones break."""

import shutil

import pytest
from fs_certificates import chain, fingerprint, names_served, served, write
from fs_daemon import premade_certificate, until

from tests.support.phone import Phone, TlsPhone, sip
from tests.support.ports import free_ports

RESCANNED = "Reload XML [Success]\n+OK scan complete\n"
RELOADED = "+OK cert reload event sent\n"
UNKNOWN = "-ERR reloadcert Command not found!\n"


@pytest.fixture
def secure(stopped):
    """A daemon not started yet, whose profile has sockets for TLS and WSS."""
    stopped.tls_port, stopped.wss_port = free_ports(), free_ports()
    directory(stopped, "first")
    return stopped


def directory(daemon, name):
    """Name the profile's directory of certificates in the file on disk."""
    daemon.certificates = daemon.root / name
    daemon.certificates.mkdir()
    (daemon.certificates / "tls.pem").write_text(premade_certificate())
    daemon.tree.profile(
        "internal", daemon.tree.sip_port, tls="true", tls_sip_port=daemon.tls_port,
        tls_cert_dir=daemon.certificates, tls_version="tlsv1.2,tlsv1.3",
        wss_binding=f"127.0.0.1:{daemon.wss_port}",
    )  # fmt: skip


def reloaded(daemon):
    """Ask for the certificates on disk; whether this version takes them up."""
    can = daemon.version >= (1, 11, 1)
    assert daemon.api("reloadcert") == (RELOADED if can else UNKNOWN)
    return can


def both(daemon):
    return served(daemon.tls_port), served(daemon.wss_port)


def on_disk(daemon):
    return write(daemon.certificates / "agent.pem"), write(daemon.certificates / "wss.pem")


def listens(daemon):
    with Phone(daemon.sip) as phone:
        return phone.options(1.0) is not None


def test_sockets_serve_a_file_each_and_status_names_them(secure):
    files = on_disk(secure)
    daemon = secure.start()
    assert both(daemon) == files
    sip, tls, wss = daemon.tree.sip_port, daemon.tls_port, daemon.wss_port
    rows = [line.split("\t") for line in daemon.api("sofia status").splitlines()[2:-2]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["internal", "profile", f"sip:mod_sofia@127.0.0.1:{sip}", "RUNNING (0)"],
        ["internal", "profile", f"sip:mod_sofia@127.0.0.1:{tls}", "RUNNING (0) (TLS)"],
    ]
    said = daemon.api("sofia xmlstatus")  # three entries of one name
    assert said.count("<name>internal</name>") == 3
    assert f"<data>sips:mod_sofia@127.0.0.1:{wss};transport=wss</data>" in said
    said = daemon.api("sofia xmlstatus profile internal")
    assert f"<tls-url>sip:mod_sofia@127.0.0.1:{tls}</tls-url>" in said
    assert f"<tls-bind-url>sips:mod_sofia@127.0.0.1:{tls};transport=tls</tls-bind-url>" in said
    assert f"<wss-bind-url>sips:mod_sofia@127.0.0.1:{wss};transport=wss</wss-bind-url>" in said


def test_call_over_tls_is_held_renewed_and_ended_from_either_side(secure):
    on_disk(secure)
    daemon = secure.start()
    with TlsPhone(("127.0.0.1", daemon.tls_port)) as phone:
        dialog = phone.call()
        contact = dialog.answer.get("Contact")
        assert contact == f"<sip:1000@127.0.0.1:{daemon.tls_port};transport=tls>"
        until(lambda: daemon.api("show calls count") == "\n1 total.\n", 5)
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200
        bye = phone.bye(phone.call("brief"))
        assert bye.get("Via").startswith("SIP/2.0/TLS ")


@pytest.mark.parametrize("junk", [b"\r\n\r\n", b"\0" * 100, b"INVITE\r\n\r\n"])
def test_junk_over_tls_does_not_end_it(secure, junk):
    on_disk(secure)
    daemon = secure.start()
    with TlsPhone(("127.0.0.1", daemon.tls_port)) as phone:
        phone.raw(junk)
    with TlsPhone(("127.0.0.1", daemon.tls_port)) as phone:
        assert phone.options().status == 200


@pytest.mark.versions
def test_new_certificate_and_the_connections_of_the_old(secure):
    before = on_disk(secure)
    daemon = secure.start()
    with TlsPhone(("127.0.0.1", daemon.tls_port)) as phone:
        dialog = phone.call()
        after = on_disk(daemon)
        daemon.api("reloadxml")
        assert daemon.api("sofia profile internal rescan") == RESCANNED
        assert both(daemon) == before
        now = after if reloaded(daemon) else before
        until(lambda: both(daemon) == now)
        assert phone.reinvite(dialog) == 200
        assert phone.options().status == 200
        assert phone.hang_up(dialog) == 200


@pytest.mark.versions
def test_rescan_names_the_directory_that_reloadcert_reads(secure):
    before = on_disk(secure)
    daemon = secure.start()
    directory(daemon, "second")
    after = on_disk(daemon)
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert both(daemon) == before
    now = after if reloaded(daemon) else before
    until(lambda: both(daemon) == now)


def test_rescan_with_a_new_tls_port_advertises_what_is_not_there(secure):
    files = on_disk(secure)
    daemon = secure.start()
    old, daemon.tls_port = daemon.tls_port, free_ports()
    directory(daemon, "second")
    assert daemon.api("sofia profile internal rescan") == RESCANNED
    assert served(old) == files[0]
    with TlsPhone(("127.0.0.1", old)) as phone:
        contact = phone.call().answer.get("Contact")
    assert sip.Uri.parse(contact).port == daemon.tls_port
    with pytest.raises(ConnectionRefusedError):
        served(daemon.tls_port)


@pytest.mark.versions
@pytest.mark.parametrize("bad", ["mismatched", "junk"])
def test_reload_of_a_bad_file_says_ok_and_ends_handshakes(secure, bad):
    """The trap. Nothing is left to serve, while connections and calls that are up go on."""
    before = on_disk(secure)
    daemon = secure.start()
    with TlsPhone(("127.0.0.1", daemon.tls_port)) as phone:
        dialog = phone.call()
        for name in ("agent.pem", "wss.pem"):
            spoil(daemon.certificates / name, bad)
        if not reloaded(daemon):
            assert both(daemon) == before
            return
        until(lambda: served(daemon.tls_port) is None)
        assert served(daemon.wss_port) == before[1]  # WSS keeps what it had
        assert "RUNNING (1) (TLS)" in daemon.api("sofia status")
        assert phone.reinvite(dialog) == 200
        after = on_disk(daemon)
        assert reloaded(daemon)
        until(lambda: both(daemon) == after)
        assert phone.hang_up(dialog) == 200


@pytest.mark.versions
def test_reload_without_a_file_serves_a_certificate_of_nobody(secure):
    before = on_disk(secure)[0]
    daemon = secure.start()
    (daemon.certificates / "agent.pem").unlink()
    of_nobody = fingerprint((daemon.certificates / "tls.pem").read_text())
    now = of_nobody if reloaded(daemon) else before
    until(lambda: served(daemon.tls_port) == now)


def spoil(file, how):
    if how == "junk":
        file.write_text("junk")
    else:
        write(file, mismatched=True)


@pytest.mark.parametrize("bad", ["mismatched", "junk"])
def test_start_with_a_bad_agent_file_runs_without_a_handshake(secure, bad):
    on_disk(secure)
    spoil(secure.certificates / "agent.pem", bad)
    daemon = secure.start()
    assert served(daemon.tls_port) is None
    assert "RUNNING (0) (TLS)" in daemon.api("sofia status")
    assert listens(daemon)


@pytest.mark.parametrize("bad", ["mismatched", "junk"])
def test_start_with_a_bad_wss_file_runs_no_profile(secure, bad):
    """Not even over UDP; and `start` calls it a success."""
    on_disk(secure)
    spoil(secure.certificates / "wss.pem", bad)
    daemon = secure.start_without_profile()
    until(lambda: daemon.api("sofia status").endswith("\n0 profiles 0 aliases\n"))
    assert not listens(daemon)
    said = daemon.api("sofia profile internal start")
    assert said == "Reload XML [Success]\ninternal started successfully\n"
    until(lambda: daemon.api("sofia status").endswith("\n0 profiles 0 aliases\n"))


def test_start_without_the_directory_runs_no_profile(secure):
    shutil.rmtree(secure.certificates)
    daemon = secure.start_without_profile()
    until(lambda: daemon.api("sofia status").endswith("\n0 profiles 0 aliases\n"))
    assert not listens(daemon)


def test_start_without_files_serves_certificates_of_nobody(secure):
    (secure.certificates / "tls.pem").unlink()
    daemon = secure.start()
    made = [(daemon.certificates / name).read_text() for name in ("tls.pem", "wss.pem")]
    assert both(daemon) == tuple(map(fingerprint, made))
    assert names_served(daemon.tls_port) == ["FreeSWITCH"]


def test_what_stands_behind_the_first_certificate_is_sent_for_wss_only(secure):
    leaf, key, between = chain(secure.root)
    for name in ("agent.pem", "wss.pem"):
        (secure.certificates / name).write_text(leaf + between + key)
    daemon = secure.start()
    assert names_served(daemon.tls_port) == ["leaf"]
    assert names_served(daemon.wss_port) == ["leaf", "between"]


def test_intermediates_of_the_authorities_file_are_sent_for_tls_only(secure):
    leaf, key, between = chain(secure.root)
    for name in ("agent.pem", "wss.pem"):
        (secure.certificates / name).write_text(leaf + key)
    (secure.certificates / "cafile.pem").write_text(between)
    daemon = secure.start()
    assert names_served(daemon.tls_port) == ["leaf", "between"]
    assert names_served(daemon.wss_port) == ["leaf"]
