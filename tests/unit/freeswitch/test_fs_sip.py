"""OPTIONS over UDP: the final answer to our own request, or 0 when the time is over."""

import socket
import threading
import time

import pytest

from tests.support.loading import load
from tests.support.ports import free_ports


@pytest.fixture(scope="session")
def sip():
    return load("_utils/sip.py")


class Answerer:
    """Gives each request the next list of answers, and the last one to all that follow."""

    def __init__(self, *answers, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answers = answers
        self.requests = []
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(10)
        self.host, self.port = self.socket.getsockname()[:2]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            request, sender = self.socket.recvfrom(65535)
            if request == b"end":
                return
            self.requests.append(request.decode())
            for answer in self.answers[min(len(self.requests), len(self.answers)) - 1]:
                self.socket.sendto(self.filled(answer), sender)

    def filled(self, answer):
        header = self.header("Call-ID")
        return answer.replace("CALL", header).encode(errors="surrogateescape")

    def header(self, name):
        found = [line for line in self.requests[-1].split("\r\n") if line.startswith(f"{name}:")]
        return found[0].partition(": ")[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as link:
            link.sendto(b"end", (self.host, self.port))
        self.thread.join(10)
        self.socket.close()
        assert not self.thread.is_alive()


def response(status, call="CALL"):
    return f"SIP/2.0 {status}\r\nCall-ID: {call}\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_final_answer_is_told(sip, host):
    with Answerer([response("200 OK")], host=host) as server:
        assert sip.options(host, server.port) == 200
        (request,) = server.requests
        shown = f"[{host}]" if ":" in host else host
        assert request.startswith(f"OPTIONS sip:{shown}:{server.port} SIP/2.0\r\n")
        assert server.header("To") == f"<sip:{shown}:{server.port}>"
        assert server.header("From").startswith(f"<sip:check@{shown}>;tag=")
        assert server.header("Via").startswith(f"SIP/2.0/UDP {shown}:")
        assert request.endswith("Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize("status", [200, 302, 404, 503, 603])
def test_provisional_answers_are_passed_over(sip, status):
    with Answerer([response("100 Trying"), response(f"{status} x")]) as server:
        assert sip.options(server.host, server.port) == status


def test_lost_request_is_sent_again_as_it_was(sip):
    with Answerer([], [], [response("200 OK")]) as server:
        assert sip.options(server.host, server.port, timeout=10) == 200
        first, *more = server.requests
        assert len(more) == 2
        assert set(more) == {first}


STRAYS = {
    "of another call": response("200 OK", call="another"),
    "a request": "OPTIONS sip:us SIP/2.0\r\nCall-ID: CALL\r\n\r\n",
    "another version": response("200 OK").replace("2.0", "3.0"),
    "no status": "SIP/2.0\r\nCall-ID: CALL\r\n\r\n",
    "a digit that is none": response("²00 OK"),
    "a long number": response("2" * 5000),
    "a status that is none": response("999 x"),
    "noise": "\udcff\udcfe\udc00"[:2],
    "nothing": "",
}


@pytest.mark.parametrize("stray", STRAYS)
def test_what_is_no_answer_to_us_is_none(sip, stray):
    with Answerer([STRAYS[stray]]) as server:
        assert sip.options(server.host, server.port, timeout=0.3) == 0
    assert server.requests
    with Answerer([STRAYS[stray], response("200 OK")]) as server:
        assert sip.options(server.host, server.port) == 200


def test_silence_ends_at_the_deadline(sip):
    with Answerer([]) as server:
        before = time.monotonic()
        assert sip.options(server.host, server.port, timeout=0.3) == 0
        assert 0.3 <= time.monotonic() - before < 2
    assert len(server.requests) == 2, "after a quarter of a second once more"


def test_no_time_asks_nothing(sip):
    with Answerer([response("200 OK")]) as server:
        assert sip.options(server.host, server.port, timeout=0) == 0
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_closed_port_is_no_answer(sip, host):
    before = time.monotonic()
    assert sip.options(host, free_ports(), timeout=30) == 0
    assert time.monotonic() - before < 5, "refused, so not waited for"


@pytest.mark.parametrize(
    ("host", "port"),
    [("a" * 300, 5060), ("a..b", 5060), ("127.0.0.1", 65536), ("::1", -1)],
)
def test_address_that_cannot_be_asked_is_no_answer(sip, host, port):
    assert sip.options(host, port) == 0
