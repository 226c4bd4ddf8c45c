"""The event socket client against a server that misbehaves in every way we know of."""

import contextlib
import socket
import struct
import threading
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

AUTH = b"Content-Type: auth/request\n\n"
OK = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"


def reply(body, kind=b"api/response"):
    return b"Content-Type: %s\nContent-Length: %d\n\n%s" % (kind, len(body), body)


class Server:
    """Says each of ``lines`` after one command; keeps what it was told.

    It then waits to be let go (``linger``), or resets the connection (``reset``).
    """

    def __init__(self, greeting, *lines, linger=False, reset=False):
        self.lines = lines
        self.greeting = greeting
        self.linger = linger
        self.reset = reset
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
                if self.reset:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        self.socket.shutdown(socket.SHUT_RDWR)
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


def refused(answer):
    return b"Content-Type: command/reply\nReply-Text: %s\n\n" % answer


def test_command_that_ends_the_connection_may_be_lost_or_refused(esl):
    """The module that reloads may drop us before it has answered; what it refuses it says."""
    with Server(AUTH, OK, b"") as server, esl.connect(port=server.port, password="p") as link:
        link.end_with("reload mod_event_socket", timeout=5)
        with pytest.raises(esl.EslError, match="connection is closed; connect again"):
            link.api("status")
    with (
        Server(AUTH, OK, refused(b"-ERR no such command")) as server,
        esl.connect(port=server.port, password="p") as link,
        pytest.raises(esl.EslError, match="refused the command: -ERR no such command"),
    ):
        link.end_with("reload mod_event_socket", timeout=5)


@pytest.mark.parametrize("ask_for", ["subscribe", "bgapi"])
def test_subscription_that_is_refused(esl, ask_for):
    with (
        Server(AUTH, OK, refused(b"-ERR permission denied")) as server,
        esl.connect(port=server.port, password="p") as link,
        pytest.raises(esl.EslError, match="refused the command: -ERR permission denied"),
    ):
        getattr(link, ask_for)("BACKGROUND_JOB")


def test_answer_that_belongs_to_nothing_is_not_taken_for_ours(esl):
    """Else every later command would get the answer of the one before it."""
    with (
        Server(AUTH, OK, reply(b"of an earlier command") + OK) as server,
        esl.connect(port=server.port, password="p") as link,
        pytest.raises(esl.EslError, match="an answer came that nobody asked for; connect again"),
    ):
        link.bgapi("reloadxml")


def test_closed_connection_says_so(esl):
    with Server(AUTH, OK) as server:
        link = esl.connect(port=server.port, password="p")
        link.close()
        for use in (lambda: link.api("status"), link.next_event, lambda: link.subscribe("ALL")):
            with pytest.raises(esl.EslError, match="connection is closed; connect again"):
                use()
        link.close()


def test_connection_that_is_reset(esl):
    """A daemon that is killed: before our command, and while it should answer."""
    with (
        Server(AUTH, OK, reset=True) as server,
        esl.connect(port=server.port, password="p") as link,
    ):
        server.thread.join(5)
        with pytest.raises(esl.EslError, match=r"connection lost \(.+\); try again"):
            link.api("status")
    with (
        Server(AUTH, OK, b"Content-Type: api/resp", reset=True) as server,
        esl.connect(port=server.port, password="p") as link,
        pytest.raises(esl.EslError, match=r"connection lost \(.+\); try again"),
    ):
        link.api("status")


def test_daemon_that_takes_no_command_is_given_up_at_the_deadline(esl):
    """It reads nothing: what we send fills the buffers between us and stays there."""
    with (
        Server(AUTH, OK, linger=True) as server,
        esl.connect(port=server.port, password="p") as link,
    ):
        before = time.monotonic()
        with pytest.raises(esl.EslError, match="took no command before the deadline"):
            link.api("x" * (64 << 20), timeout=0.3)
        assert time.monotonic() - before < 2
        with pytest.raises(esl.EslError, match="took no command before the deadline"):
            link.api("status", timeout=0)


def test_port_that_takes_no_connection_is_given_up_at_the_deadline(esl):
    """Its queue is full: the daemon has not accepted for a while."""
    with socket.socket() as busy, contextlib.ExitStack() as waiting:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(busy.getsockname())
        before = time.monotonic()
        with pytest.raises(esl.EslError, match=r"no connection within 0.3 s; is FreeSWITCH busy"):
            esl.api("status", password="p", port=busy.getsockname()[1], timeout=0.3)
        assert time.monotonic() - before < 2


@pytest.mark.parametrize("host", ["a" * 300, "\udc80"])
def test_host_that_is_none(esl, host):
    with pytest.raises(
        esl.EslError, match=r"cannot connect \(.+\); is FreeSWITCH running"
    ) as caught:
        esl.api("status", password="p", host=host)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("length", "fits"), [(-1, True), (0, True), (1, False), (2, False)])
def test_longest_header(esl, length, fits):
    head = b"Content-Type: api/response\nContent-Length: 2\nX: "
    header = head + b"y" * (esl.HEADER_LIMIT + length - len(head))
    with Server(AUTH, OK, header + b"\n\nok") as server:
        if fits:
            assert ask(esl, server) == "ok"
        else:
            with pytest.raises(esl.EslError, match="header longer than 65536 bytes"):
                ask(esl, server)


def test_answer_longer_than_any_real_one_is_not_waited_for(esl):
    announced = b"Content-Type: api/response\nContent-Length: %d\n\n" % (esl.BODY_LIMIT + 1)
    with Server(AUTH, OK, announced, linger=True) as server:
        before = time.monotonic()
        with pytest.raises(esl.EslError, match=f"Content-Length '{esl.BODY_LIMIT + 1}' invalid"):
            ask(esl, server, timeout=30)
        assert time.monotonic() - before < 5


def test_longest_answer_takes_little_room(esl):
    """Its bytes once and its text once; a wide character makes the text four times as large."""
    body = b"a" * (esl.BODY_LIMIT - 4) + "\U0001f600".encode()
    with Server(AUTH, OK, reply(body)) as server:
        tracemalloc.start()
        try:
            answer = ask(esl, server, timeout=30)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(answer) == esl.BODY_LIMIT - 3
    assert peak < 100 << 20


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
    with Server(AUTH, OK, OK) as server, pytest.raises(ValueError, match="line break"):
        ask(esl, server, command)
    assert server.heard == b"auth secret-word\n\n|"


@pytest.mark.parametrize("password", ["", "a\nb"])
def test_unusable_password_is_refused_before_anything_is_sent(esl, password):
    with (
        Server(AUTH, OK) as server,
        pytest.raises(esl.AuthError, match="empty or has a line break"),
    ):
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
