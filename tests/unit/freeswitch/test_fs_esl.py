"""The event socket client against a server that misbehaves in every way we know of."""

import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

AUTH = b"Content-Type: auth/request\n\n"
OK = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"


def reply(body, kind=b"api/response"):
    return b"Content-Type: %s\nContent-Length: %d\n\n%s" % (kind, len(body), body)


class Server:
    """Says each of ``lines`` after one command; keeps what it was told."""

    def __init__(self, greeting, *lines, linger=False):
        self.lines = lines
        self.greeting = greeting
        self.linger = linger
        self.heard = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        try:
            link, _ = self.socket.accept()
        except OSError:
            return
        with link:
            try:
                link.sendall(self.greeting)
                for line in self.lines:
                    while not self.heard.endswith(b"\n\n"):
                        data = link.recv(4096)
                        if not data:
                            return
                        self.heard += data
                    self.heard += b"|"
                    link.sendall(line)
                if self.linger:
                    self.done.wait(10)
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        self.socket.close()
        self.thread.join(5)


def ask(esl, server, command="status", timeout=2.0, password="secret-word"):
    return esl.api(command, password=password, port=server.port, timeout=timeout)


def test_answer_comes_back_as_sent(esl):
    with Server(AUTH, OK, reply("grüße\n".encode())) as server:
        assert ask(esl, server) == "grüße\n"
    assert server.heard.startswith(b"auth secret-word\n\n|api status\n\n")


def test_user_authentication(esl):
    with Server(AUTH, OK, reply(b"x")) as server:
        esl.api("status", password="p", user="monitor@default", port=server.port)
    assert server.heard.startswith(b"userauth monitor@default:p\n\n")


def test_events_between_command_and_answer_are_kept(esl):
    event = reply(b"Event-Name: HEARTBEAT\nUp-Time: 1%20s\n\n", b"text/event-plain")
    with (
        Server(AUTH, OK, OK, event + reply(b"fine"), linger=True) as server,
        esl.connect(port=server.port, password="p") as link,
    ):
        link.subscribe("HEARTBEAT")
        assert link.api("status") == "fine"
        assert link.next_event(1)["Up-Time"] == "1 s"


def test_background_job_is_awaited(esl):
    queued = b"Content-Type: command/reply\nReply-Text: +OK Job-UUID: 7\nJob-UUID: 7\n\n"
    other = b"Event-Name: BACKGROUND_JOB\nJob-UUID: 6\nContent-Length: 3\n\nno\n"
    mine = b"Event-Name: BACKGROUND_JOB\nJob-UUID: 7\nContent-Length: 4\n\nyes\n"
    events = reply(other, b"text/event-plain") + reply(mine, b"text/event-plain")
    with Server(AUTH, OK, OK, queued + events, linger=True) as server:
        assert esl.bgapi("reloadxml", password="p", port=server.port, timeout=2) == "yes\n"


def test_command_that_ends_the_connection(esl):
    bye = reply(b"The system is being shut down.\n", b"text/disconnect-notice")
    with (
        Server(AUTH, OK, reply(b"+OK Job-UUID: 1\n") + bye) as server,
        esl.connect(port=server.port, password="p") as link,
    ):
        link.end_with("reload mod_event_socket", timeout=2)
    with (
        Server(AUTH, OK, reply(b"+OK Job-UUID: 1\n"), linger=True) as server,
        esl.connect(port=server.port, password="p") as link,
        pytest.raises(esl.EslError, match="still connected"),
    ):
        link.end_with("reload mod_event_socket", timeout=0.2)


BAD = [
    (b"", (), "ended in a header"),
    (b"SSH-2.0-OpenSSH_9.2\r\n\n\n", (), "no colon"),
    (b"Content-Type: text/html\n\n", (), "no greeting"),
    (reply(b"Access Denied, go away.\n", b"text/rude-rejection"), (), "refused by its ACL"),
    (AUTH, (b"Content-Type: command/reply\nReply-Text: -ERR invalid\n\n",), "password refused"),
    (AUTH, (OK, b"Content-Type: api/response\n\n"), "Content-Length missing"),
    (AUTH, (OK, b"Content-Type: api/response\nContent-Length: -1\n\n"), "'-1' invalid"),
    (AUTH, (OK, b"Content-Type: api/response\nContent-Length: 99999999999\n\n"), "invalid"),
    (AUTH, (OK, b"Content-Type: api/response\nContent-Length: 1e3\n\n"), "'1e3' invalid"),
    (AUTH, (OK, "Content-Type: api/response\nContent-Length: ٣\n\n".encode()), "invalid"),
    (AUTH, (OK, b"Content-Type: api/response\nContent-Length: 10\n\nabc"), "ended in a body"),
    (AUTH, (OK, b"Content-Type: \xff\xfe\n\n"), "not UTF-8"),
    (AUTH, (OK, b"X: " + b"y" * (1 << 20) + b"\n\n"), "longer than"),
    (AUTH, (OK, b"Content-Length: 2\n\nhi"), "without Content-Type"),
    (AUTH, (OK, reply(b"bye", b"text/disconnect-notice")), "closed the connection"),
    (AUTH, (OK, b"Content-Type: command/reply\nReply-Text: -ERR no\n\n"), "refused the command"),
]


@pytest.mark.parametrize(("greeting", "lines", "told"), BAD, ids=[case[2] for case in BAD])
def test_bad_input_is_one_line(esl, greeting, lines, told):
    with Server(greeting, *lines) as server, pytest.raises(esl.EslError) as caught:
        ask(esl, server)
    message = str(caught.value)
    assert told in message
    assert message.startswith(f"ESL 127.0.0.1:{server.port}: ")
    assert "\n" not in message
    assert "secret-word" not in message


def test_invalid_utf8_from_a_caller_does_not_stop_us(esl):
    with Server(AUTH, OK, reply(b'{"cid":"\xff\xfe"}')) as server:
        assert ask(esl, server) == '{"cid":"\ufffd\ufffd"}'


def test_silence_ends_at_the_deadline_however_slowly_it_trickles(esl):
    with Server(AUTH, OK, b"Content-Type: api/response\nContent-Le", linger=True) as server:
        before = time.monotonic()
        with pytest.raises(esl.EslError, match="no answer before the deadline"):
            ask(esl, server, timeout=0.3)
        assert time.monotonic() - before < 1.5


def test_nobody_listens(esl):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(esl.EslError, match="is FreeSWITCH running"):
        esl.api("status", password="p", port=port)


@pytest.mark.parametrize("command", ["status\n\napi hupall", "a\rb", "a\0b"])
def test_command_cannot_smuggle_another(esl, command):
    with Server(AUTH, OK, linger=True) as server, pytest.raises(ValueError, match="line break"):
        ask(esl, server, command)


@pytest.mark.parametrize("password", ["", "a\nb"])
def test_unusable_password_is_refused_before_anything_is_sent(esl, password):
    with Server(AUTH) as server, pytest.raises(esl.AuthError, match="empty or has a line break"):
        ask(esl, server, password=password)
    assert server.heard == b""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_noise_never_tracebacks(esl, chunks, polite):
    """Whatever bytes come, the answer is text or one line of error, and soon."""
    noise = b"".join(chunks)
    lines = (OK, noise) if polite else ()
    with Server(AUTH if polite else noise, *lines) as server:
        before = time.monotonic()
        try:
            assert isinstance(ask(esl, server, timeout=1.0), str)
        except esl.EslError as err:
            assert "\n" not in str(err)
        assert time.monotonic() - before < 3
