"""dtls-srtp.pem: read anew for each call, so a new one needs no command at all."""

import re

from fs_certificates import fingerprint, write

_OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 49170 UDP/TLS/RTP/SAVPF 8\r\na=rtpmap:8 PCMA/8000\r\na=rtcp-mux\r\n"
    b"a=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
    b"a=fingerprint:sha-256 " + b"AA:" * 31 + b"AA\r\n"
    b"a=candidate:1 1 udp 2130706431 127.0.0.1 49170 typ host\r\n"
)


def answered(phone):
    """The answer to an offer of DTLS; the call is hung up."""
    request = phone.request("INVITE")
    request.body = _OFFER
    final = phone.transact(request, 8)
    assert final.status == 200
    phone.hang_up(phone.dialog(request, final))
    return final.body.decode()


def shown(phone):
    return re.search(r"a=fingerprint:sha-256 ?(.*)\r\n", answered(phone))[1]


def test_file_is_made_at_the_start_and_shown(stopped):
    stopped.premade = False
    daemon = stopped.start()
    with daemon.phone() as phone:
        body = answered(phone)
    assert re.search(r"m=audio \d+ UDP/TLS/RTP/SAVPF 8\r\n", body)
    assert "a=setup:active\r\n" in body
    made = (daemon.root / "certs" / "dtls-srtp.pem").read_text()
    assert f"a=fingerprint:sha-256 {fingerprint(made)}\r\n" in body


def test_new_file_is_shown_to_the_next_call(daemon, phone):
    dialog = phone.call()
    before = shown(phone)
    after = write(daemon.root / "certs" / "dtls-srtp.pem")
    assert shown(phone) == after != before
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200


def test_bad_file_is_not_noticed(daemon, phone):
    """A key that does not fit, no certificate, no file: the call is answered all the same."""
    file = daemon.root / "certs" / "dtls-srtp.pem"
    mismatched = write(file, mismatched=True)
    assert shown(phone) == mismatched
    file.write_text("junk")
    assert shown(phone) == ""
    file.unlink()
    assert shown(phone) == ""
    assert not file.exists()
