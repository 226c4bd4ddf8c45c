"""TLS: certificates of the table, changed under a connection that is up."""

import hashlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from os_daemon import Daemon, until

from tests.support.phone import Phone, TlsPhone
from tests.support.ports import free_ports
from tests.support.secure_answerer import SecureAnswerer

BOTH = pytest.mark.parametrize("database", ["text", "sqlite"])
SQLITE = pytest.mark.parametrize("database", ["sqlite"])
HANG_SECONDS = 1.5


def pair(work: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate and its key."""
    key, certificate = work / f"{name}.key", work / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate.read_text(), key.read_text()


def domain(certificate: str, key: str, **more: object) -> dict[str, object]:
    return {
        "domain": "default", "type": 2, "match_ip_address": "*", "match_sip_domain": "*",
        "method": "TLSv1_2-", "verify_cert": 0, "require_cert": 0,
        "certificate": certificate, "private_key": key, **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    work = tmp_path_factory.mktemp("pairs")
    return [pair(work, name) for name in ("one", "two")]


@pytest.fixture
def secure(stopped: Daemon, pairs: list[tuple[str, str]]) -> Daemon:
    """With a TLS socket and one domain in the table; not started."""
    stopped.core.append(f"socket=tls:127.0.0.1:{stopped.port}")
    stopped.module("proto_tls").module("tls_openssl")
    stopped.module("tls_mgm", db_url=stopped.db_url)
    stopped.table("tls_mgm", domain(*pairs[0]))
    return stopped


@pytest.fixture
def held(secure: Daemon) -> Iterator[TlsPhone]:
    """A connection that is up before anything is changed."""
    with TlsPhone(secure.start().sip) as phone:
        yield phone


def served(daemon: Daemon) -> str:
    """The certificate that a new connection is shown; the error's kind when there is none."""
    try:
        with TlsPhone(daemon.sip, HANG_SECONDS) as phone:
            assert phone.options().status == 200
            return ssl.DER_cert_to_PEM_cert(phone.peer).strip()
    except TimeoutError:
        return "hangs"
    except OSError:
        return "refused"


def domains(daemon: Daemon) -> list[str]:
    return [one["name"] for one in daemon.call("tls_list")["Domains"]]


def no_4(daemon: Daemon) -> None:
    """What is not so on 4.0 has a test of its own."""
    if daemon.release >= (4, 0):
        pytest.skip("4.0.1 never serves what tls_reload brought")


@BOTH
def test_reload_gives_new_connections_the_new_certificate_and_keeps_the_old_ones(
    secure: Daemon, held: TlsPhone, pairs: list[tuple[str, str]]
) -> None:
    no_4(secure)
    assert served(secure) == pairs[0][0].strip()
    secure.table("tls_mgm", domain(*pairs[1]))
    assert secure.reload("tls_reload") == "OK"
    assert served(secure) == pairs[1][0].strip()
    assert held.options().status == 200


@pytest.mark.parametrize("broken", ["mismatch", "junk", "nothing"])
def test_reload_of_a_bad_certificate_is_ok_and_tls_is_dead_until_a_good_one(
    secure: Daemon, held: TlsPhone, pairs: list[tuple[str, str]], broken: str
) -> None:
    no_4(secure)
    rows = {
        "mismatch": [domain(pairs[1][0], pairs[0][1])],
        "junk": [domain("junk", "junk")],
        "nothing": [],
    }
    secure.table("tls_mgm", *rows[broken])
    assert secure.reload("tls_reload") == "OK"
    assert domains(secure) == []
    assert served(secure) == "hangs"
    assert held.options().status == 200
    secure.table("tls_mgm", domain(*pairs[1]))
    assert secure.reload("tls_reload") == "OK"
    assert domains(secure) == ["default"]
    assert served(secure) == pairs[1][0].strip()


def test_bad_domain_among_good_ones_disappears_alone(
    secure: Daemon, held: TlsPhone, pairs: list[tuple[str, str]]
) -> None:
    no_4(secure)
    other = domain(pairs[0][0], pairs[1][1], domain="other", match_ip_address="127.0.0.9:1")
    secure.table("tls_mgm", domain(*pairs[1]), other)
    assert secure.reload("tls_reload") == "OK"
    assert domains(secure) == ["default"]
    assert served(secure) == pairs[1][0].strip()


@SQLITE
def test_missing_table_is_refused_and_the_old_certificate_served(
    secure: Daemon, held: TlsPhone, pairs: list[tuple[str, str]]
) -> None:
    with secure.sql() as link:
        link.execute("DROP TABLE tls_mgm")
    assert secure.refused("tls_reload") == (500, "Failed to reload")
    assert served(secure) == pairs[0][0].strip()


def test_bad_certificate_does_not_keep_it_from_starting(
    secure: Daemon, pairs: list[tuple[str, str]]
) -> None:
    secure.table("tls_mgm", domain(pairs[1][0], pairs[0][1]))
    assert secure.check()[0] == 0
    secure.start()
    assert domains(secure) == []
    assert served(secure) == ("refused" if secure.release >= (4, 0) else "hangs")


def test_defaults_of_the_table_lock_out_who_has_no_certificate(
    secure: Daemon, pairs: list[tuple[str, str]]
) -> None:
    secure.table("tls_mgm", domain(*pairs[0], verify_cert=1, require_cert=1))
    assert served(secure.start()) == "refused"


def test_domains_of_the_script_are_not_reloaded(
    secure: Daemon, pairs: list[tuple[str, str]]
) -> None:
    certificate, key = secure.root / "certificate.pem", secure.root / "key.pem"
    certificate.write_text(pairs[0][0])
    key.write_text(pairs[0][1])
    secure.modules["tls_mgm"] = {
        "server_domain": "default", "match_ip_address": "[default]*",
        "match_sip_domain": "[default]*", "certificate": f"[default]{certificate}",
        "private_key": f"[default]{key}", "verify_cert": "[default]0",
        "require_cert": "[default]0",
    }  # fmt: skip
    secure.start()
    assert domains(secure) == ["default"]
    assert secure.refused("tls_reload") == (500, "DB url not set")
    assert served(secure) == pairs[0][0].strip()


def test_4_0_never_serves_what_a_reload_brought(
    secure: Daemon, held: TlsPhone, pairs: list[tuple[str, str]]
) -> None:
    """Its OpenSSL keeps contexts in the memory of the process that made them, here MI's: the next
    connection is shown the old certificate or ends the daemon, as memory happens to be.
    """
    if secure.release < (4, 0):
        pytest.skip("3.4 and 3.6 serve it")
    secure.table("tls_mgm", domain(*pairs[1]))
    assert secure.reload("tls_reload") == "OK"
    assert domains(secure) == ["default"]
    assert served(secure) != pairs[1][0].strip()


# -- connections of its own ----------------------------------------------------------------------


def fingerprint(certificate: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


@pytest.fixture
def called(
    secure: Daemon, pairs: list[tuple[str, str]], tmp_path: Path
) -> Iterator[SecureAnswerer]:
    """Whom calls go to over TLS; it wants to see either certificate, and shows the first."""
    (tmp_path / "own.pem").write_text("".join(pairs[0]))
    authority = "".join(certificate for certificate, _ in pairs)
    answerer = SecureAnswerer(tmp_path / "own.pem", authority, free_ports())
    secure.choose = f'$du = "sip:127.0.0.1:{answerer.port};transport=tls";'
    yield answerer
    answerer.close()


def client(certificate: str, key: str, **more: object) -> dict[str, object]:
    return domain(certificate, key, domain="out", type=1, **more)


def test_connection_of_its_own_shows_what_the_last_reload_brought(
    secure: Daemon, pairs: list[tuple[str, str]], called: SecureAnswerer
) -> None:
    no_4(secure)
    secure.table("tls_mgm", domain(*pairs[0]), client(*pairs[0]))
    secure.start()
    with Phone(secure.sip, through_proxy=True) as phone:
        held = phone.call()
        secure.table("tls_mgm", domain(*pairs[1]), client(*pairs[1]))
        assert secure.reload("tls_reload") == "OK"
        assert phone.reinvite(held) == 200
        assert called.shown == [fingerprint(pairs[0][0])], "the connection there was goes on"
        called.forget()
        until(lambda: phone.invite().status == 200)  # it may not have noticed yet
        assert called.shown[-1] == fingerprint(pairs[1][0])
        assert phone.hang_up(held) == 200


def test_connection_of_its_own_is_made_to_who_can_be_verified(
    secure: Daemon, pairs: list[tuple[str, str]], called: SecureAnswerer
) -> None:
    secure.table(
        "tls_mgm", domain(*pairs[0]), client(*pairs[0], verify_cert=1, ca_list=pairs[0][0])
    )
    with Phone(secure.start().sip, through_proxy=True) as phone:
        assert phone.invite().status == 200


@pytest.mark.parametrize("why", ["another authority", "no domain"])
def test_connection_of_its_own_is_not_made(
    secure: Daemon, pairs: list[tuple[str, str]], called: SecureAnswerer, why: str
) -> None:
    rows = [domain(*pairs[0])]
    if why == "another authority":
        rows.append(client(*pairs[0], verify_cert=1, ca_list=pairs[1][0]))
    secure.table("tls_mgm", *rows)
    with Phone(secure.start().sip, through_proxy=True) as phone:
        final = phone.transact(phone.request("INVITE"), 2.0)
        assert final is None or final.status == 477
    assert called.requests == []
