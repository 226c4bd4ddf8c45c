"""The management client against a peer that may say anything."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import load

mi = load("_utils/mi.py")
Answer = Callable[[dict], list[bytes]]


class Peer:
    """A datagram socket that answers each request with what ``answer`` makes of it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.seen: list[dict] = []
        self.answer: Answer = lambda request: []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.bind(self.path)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._link.recvfrom(65536)
                if data == b"end":
                    return
                self.seen.append(json.loads(data))
                for reply in self.answer(self.seen[-1]):
                    self._link.sendto(reply, sender)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"end", self.path)
        self._link.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "mi.sock")
    yield peer
    peer.close()


def result(request: dict, value: object) -> list[bytes]:
    return [json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value}).encode()]


def error(request: dict, code: object, message: object) -> list[bytes]:
    told = {"code": code, "message": message}
    return [json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": told}).encode()]


def test_result_is_returned_and_parameters_are_sent_by_name(peer: Peer) -> None:
    peer.answer = lambda request: result(request, "OK")
    assert mi.call("ds_set_state", {"state": "i", "group": 1}, socket=peer.path) == "OK"
    assert peer.seen[0]["method"] == "ds_set_state"
    assert peer.seen[0]["params"] == {"state": "i", "group": 1}


def test_no_parameters_means_no_params_member(peer: Peer) -> None:
    """OpenSIPS refuses an empty object where a command takes nothing."""
    peer.answer = lambda request: result(request, {})
    mi.call("version", {}, socket=peer.path)
    assert "params" not in peer.seen[0]


def test_answer_to_an_earlier_question_is_not_taken(peer: Peer) -> None:
    peer.answer = lambda request: [
        json.dumps({"id": request["id"] - 1, "result": "stale"}).encode(),
        *result(request, "fresh"),
    ]
    assert mi.call("uptime", socket=peer.path) == "fresh"


def test_newer_name_is_found_by_asking(peer: Peer) -> None:
    def answer(request: dict) -> list[bytes]:
        match request["method"]:
            case "which":
                return result(request, ["which", "dispatcher:list"])
            case "dispatcher:list":
                return result(request, "listed")
        return error(request, -32601, "Method not found")

    peer.answer = answer
    assert mi.call("ds_list", socket=peer.path) == "listed"
    assert [request["method"] for request in peer.seen] == ["ds_list", "which", "dispatcher:list"]


@pytest.mark.parametrize("known", [["which"], "no list", None])
def test_command_of_a_module_that_is_not_loaded(peer: Peer, known: object) -> None:
    def answer(request: dict) -> list[bytes]:
        if request["method"] == "which":
            return result(request, known)
        return error(request, -32601, "Method not found")

    peer.answer = answer
    with pytest.raises(mi.MiError, match="ds_list unknown there; is its module loaded") as caught:
        mi.call("ds_list", socket=peer.path)
    assert caught.value.code == -32601


def test_unknown_command_of_no_other_name_is_told_as_it_is(peer: Peer) -> None:
    peer.answer = lambda request: error(request, -32601, "Method not found")
    with pytest.raises(mi.MiError, match="nonsense: Method not found"):
        mi.call("nonsense", socket=peer.path)
    assert len(peer.seen) == 1


def test_error_is_one_line_with_its_code_and_without_parameters(peer: Peer) -> None:
    peer.answer = lambda request: error(request, 404, "No such\nset\r\n" + "x" * 500)
    with pytest.raises(mi.MiError) as caught:
        mi.call("ds_set_state", {"address": "sip:hidden@10.0.0.1"}, socket=peer.path)
    told = str(caught.value)
    assert caught.value.code == 404
    assert "No such set" in told
    assert "hidden" not in told
    assert "\n" not in told
    assert len(told) < 400


def test_silence_ends_at_the_deadline(peer: Peer) -> None:
    began = time.monotonic()
    with pytest.raises(mi.MiError, match="no answer; the daemon is stuck or busy"):
        mi.call("uptime", socket=peer.path, timeout=0.2)
    assert 0.15 < time.monotonic() - began < 2.0


def test_chatter_of_others_does_not_move_the_deadline(peer: Peer) -> None:
    peer.answer = lambda request: [b'{"id": -1, "result": 0}'] * 50
    began = time.monotonic()
    with pytest.raises(mi.MiError, match="no answer"):
        mi.call("uptime", socket=peer.path, timeout=0.2)
    assert time.monotonic() - began < 2.0


def test_full_queue_of_a_stuck_daemon_is_no_hang(tmp_path: Path) -> None:
    path = str(tmp_path / "stuck.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler,
    ):
        stuck.bind(path)
        filler.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                filler.sendto(b"x", path)
        with pytest.raises(mi.MiError, match="stuck or busy"):
            mi.call("uptime", socket=path, timeout=0.2)


def test_nobody_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "left.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(path)
    with pytest.raises(mi.MiError, match=r"refused; is opensips running here\?"):
        mi.call("uptime", socket=path)
    with pytest.raises(mi.MiError, match=r"is opensips running here\?"):
        mi.call("uptime", socket=str(tmp_path / "no" / "such.sock"))


def test_nothing_of_ours_stays_beside_the_daemons_socket(peer: Peer, tmp_path: Path) -> None:
    peer.answer = lambda request: result(request, 1)
    mi.call("uptime", socket=peer.path)
    peer.answer = lambda request: [b"not json"]
    with pytest.raises(mi.MiError):
        mi.call("uptime", socket=peer.path)
    assert [path.name for path in tmp_path.iterdir()] == ["mi.sock"]


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"7", b'"text"', b"\xff\xfe", b"[" * 60_000, b'{"id": 1', b"{}" * 2],
)
def test_answer_that_is_none(peer: Peer, data: bytes) -> None:
    peer.answer = lambda request: [data]
    with pytest.raises(mi.MiError, match="is this OpenSIPS"):
        mi.call("uptime", socket=peer.path, timeout=1.0)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rest=st.dictionaries(
        st.sampled_from(["result", "error", "id", "jsonrpc", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=6,
        ),
    )
)
def test_any_object_is_a_result_or_one_line(peer: Peer, rest: dict) -> None:
    peer.answer = lambda request: [json.dumps({**rest, "id": request["id"]}).encode()]
    try:
        assert mi.call("uptime", socket=peer.path) == rest["result"]
    except mi.MiError as err:
        assert "\n" not in str(err)
        assert isinstance(err.code, int)


# -- names, asked for once in a life --------------------------------------------------------------


def four(request: dict) -> list[bytes]:
    """4.0: new names are listed; of the old ones only some are aliases."""
    match request["method"]:
        case "which":
            return result(request, ["which", "rtpengine:show", "dispatcher:list"])
        case "rtpengine:show" | "dispatcher:list" | "ds_list":
            return result(request, request["method"])
    return error(request, -32601, "Method not found")


def test_names_are_asked_for_once_in_a_daemons_life(peer: Peer) -> None:
    peer.answer = four
    for _ in range(3):
        assert mi.call("rtpengine_show", socket=peer.path) == "rtpengine:show"
    methods = [request["method"] for request in peer.seen]
    assert methods == ["rtpengine_show", "which", *["rtpengine:show"] * 3]
    assert mi.call("ds_list", socket=peer.path) == "dispatcher:list", "known by now"
    with pytest.raises(mi.MiError, match="lb_list unknown there"):
        mi.call("lb_list", socket=peer.path)
    assert len(peer.seen) == 6


def test_another_life_may_have_other_names(tmp_path: Path) -> None:
    first = Peer(tmp_path / "mi.sock")
    first.answer = four
    mi.call("rtpengine_show", socket=first.path)
    first.close()
    Path(first.path).unlink()
    second = Peer(tmp_path / "mi.sock")
    second.answer = lambda request: result(request, request["method"])
    assert mi.call("rtpengine_show", socket=second.path) == "rtpengine_show"
    second.close()


# -- answers too long for a datagram --------------------------------------------------------------


class Pipe:
    """mi_fifo: reads requests, writes each answer in pieces into the pipe it names."""

    def __init__(self, path: Path, pieces: Callable[[dict], list[bytes]]) -> None:
        self.path, self.pieces, self.seen = path, pieces, []
        os.mkfifo(path)
        self._in = os.open(path, os.O_RDWR)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (text := os.read(self._in, 4096).decode()) != "end":
            _, name, request = text.split(":", 2)
            self.seen.append(json.loads(request))
            with (self.path.parent / name).open("wb", buffering=0) as reply:
                for piece in self.pieces(self.seen[-1]):
                    reply.write(piece)

    def close(self) -> None:
        os.write(self._in, b"end")
        self._thread.join(5)
        os.close(self._in)


def cut(request: dict) -> list[bytes]:
    """What OpenSIPS sends when the answer does not fit (measured)."""
    return [b"Internal error"]


def test_long_answer_comes_over_the_pipe(peer: Peer, tmp_path: Path) -> None:
    peer.answer = cut
    many = {"rows": ["x" * 100 for _ in range(5000)]}

    def pieces(request: dict) -> list[bytes]:
        (whole,) = result(request, many)
        return [whole[at : at + 4096] for at in range(0, len(whole), 4096)]

    pipe = Pipe(tmp_path / "mi.fifo", pieces)
    for _ in range(2):
        assert mi.call("ds_list", {"full": 1}, socket=peer.path) == many
    assert len(peer.seen) == 1, "the second time nobody asks by datagram"
    assert pipe.seen[0]["params"] == {"full": 1}
    pipe.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mi.fifo", "mi.sock"]


def test_pipe_nobody_reads_and_pipe_that_says_nothing(peer: Peer, tmp_path: Path) -> None:
    peer.answer = cut
    os.mkfifo(tmp_path / "mi.fifo")
    with pytest.raises(mi.MiError, match=r"mi\.fifo: .*is opensips running here\?"):
        mi.call("ds_list", socket=peer.path)
    (tmp_path / "mi.fifo").unlink()
    pipe = Pipe(tmp_path / "mi.fifo", lambda request: [b"[1]", b'{"id": 1', b'{"a"}'])
    with pytest.raises(mi.MiError, match="no answer; the daemon is stuck or busy"):
        mi.call("ds_list", socket=peer.path, timeout=0.2)
    pipe.close()
    pipe = None
    (tmp_path / "mi.fifo").unlink()
    pipe = Pipe(tmp_path / "mi.fifo", lambda request: error(request, 500, "ERROR"))
    with pytest.raises(mi.MiError, match="ds_list: ERROR") as caught:
        mi.call("ds_list", socket=peer.path)
    assert caught.value.code == 500
    pipe.close()


def test_answer_of_any_length_is_not_taken(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answer = cut
    monkeypatch.setattr(mi, "PIPE_BYTES", 1000)
    pipe = Pipe(tmp_path / "mi.fifo", lambda request: [b"x" * 4000])
    with pytest.raises(mi.MiError, match="answer is longer than 1000 bytes"):
        mi.call("ds_list", socket=peer.path)
    pipe.close()


def test_place_that_takes_no_pipe_of_ours(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answer = cut
    os.mkfifo(tmp_path / "mi.fifo")

    def full(path: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mi.os, "mkfifo", full)
    with pytest.raises(mi.MiError, match="No space left on device"):
        mi.call("ds_list", socket=peer.path)


# -- what is answered, as data --------------------------------------------------------------------

answers = load("_utils/opensips_mi.py")

# As 3.4.18, 3.6.8 and 4.0.1 answered (shortened).
READ: list[tuple[str, list, object]] = [
    ("destinations",
     [{"PARTITIONS": [{"name": "default", "SETS": [
         {"id": 1, "Destinations": [
             {"URI": "sip:a", "state": "Active", "attr": "pbx-01;calls=30", "weight": 2}]},
         {"id": 2, "Destinations": [{"URI": "sip:b", "state": "Probing"}]}, {"id": 3}]}]}],
     {"1": [{"uri": "sip:a", "state": "Active", "node": "pbx-01", "weight": 2}],
      "2": [{"uri": "sip:b", "state": "Probing", "node": ""}], "3": []}),
    ("addresses",
     [{"Partitions": [{"Destinations": [
         {"grp": 2, "ip": "2001:DB8:0:0:0:0:0:1", "mask": "128"},
         {"grp": 1, "ip": "127.0.0.1", "mask": "32"}]}]},
      {"Partitions": [{"Destinations": [
          {"grp": 1, "ip": "192.0.2.0", "mask": "255.255.255.0"}]}]}],
     {"1": ["127.0.0.1/32", "192.0.2.0/24"], "2": ["2001:db8::1/128"]}),
    ("balanced",
     [{"Destinations": [{"uri": "sip:a", "id": 1, "group": 1, "enabled": "yes",
                         "Resources": [{"name": "calls", "max": 10, "load": 0}]}]}],
     {1: {"uri": "sip:a", "group": 1, "enabled": True,
          "resources": {"calls": {"max": 10, "load": 0}}}}),
    ("gateways", [{"Gateways": [{"ID": "gw1", "IP": "127.0.0.1:7001", "State": "Active"}]}],
     {"gw1": {"address": "127.0.0.1:7001", "state": "Active"}}),
    ("relays",
     [[{"Set": 1, "Nodes": [{"url": "udp:a:1", "disabled": 1, "recheck_ticks": 4294967295}]}]],
     {"1": [{"url": "udp:a:1", "enabled": False, "by_hand": True}]}),
    ("tags", [[{"Tag": "vip", "Cluster": 1, "State": "backup"}]], {"vip/1": "backup"}),
    ("peers",
     [{"Clusters": [{"cluster_id": 1, "Nodes": [
         {"node_id": 2, "url": "bin:a:1", "link_state": "Down", "state": "enabled"}]}]}],
     {"1": [{"id": 2, "url": "bin:a:1", "up": False, "enabled": True}]}),
    ("capabilities",
     [{"Clusters": [{"cluster_id": 1, "Capabilities": [{"name": "x", "state": "Ok"}]}]}],
     {"1": {"x": "Ok"}}),
    ("tls_domains",
     [{"Domains": [{"name": "d", "type": "TLS_DOMAIN_CLI", "IP ADDRESS FILTERS": ["*"],
                    "SIP DOMAIN FILTERS": ["a"], "METHOD": "TLSv1_2-TLSv1_3"}]}],
     {"d": {"side": "client", "addresses": ["*"], "names": ["a"], "method": "TLSv1_2-TLSv1_3"}}),
    ("registrants",
     [{"Records": [{"AOR": "sip:u@a", "registrar": "sip:a", "state": "REGISTERED_STATE",
                    "enabled": "yes"}]}],
     {"sip:u@a": {"registrar": "sip:a", "state": "REGISTERED_STATE", "enabled": True}}),
    ("domains", [{"Domains": [{"name": "b"}, {"name": "a"}]}], ["a", "b"]),
    ("count", [{"dialog:early_dialogs": 2}, "early_dialogs"], 2),
    ("count", [{}, "early_dialogs"], 0),
]  # fmt: skip


@pytest.mark.parametrize(("function", "given", "read"), READ)
def test_answer_is_read(function: str, given: list, read: object) -> None:
    assert getattr(answers, function)(*given) == read


@pytest.mark.parametrize("function", sorted({name for name, _, _ in READ}))
@pytest.mark.parametrize("nonsense", [None, 7, "text", [7], {"Domains": 7}, {"x": {}}])
def test_answer_of_another_shape_is_one_line(function: str, nonsense: object) -> None:
    arguments = [nonsense, "x"] if function == "count" else [nonsense]
    try:
        getattr(answers, function)(*arguments)
    except ValueError as err:
        assert str(err).endswith(": answer not understood; is this OpenSIPS?")


@pytest.mark.parametrize(
    ("command", "held", "rows", "right"),
    [
        ("clusterer_reload", {"1": [{"id": 2}]}, [(1, 1), (1, 2)], True),
        ("clusterer_reload", {"1": [{"id": 3}]}, [(1, 1), (1, 2)], False),
        ("clusterer_reload", {}, [(1, 1), (1, 2)], False),
        ("clusterer_reload", {"1": [{"id": 2}]}, [(1, 1), (1, 2), (1, 3)], False),
    ],
)
def test_node_does_not_list_itself(command: str, held: dict, rows: list, right: bool) -> None:
    table = [{"cluster_id": cluster, "node_id": node} for cluster, node in rows]
    assert answers.same(command, held, table) is right


def test_what_cannot_be_compared_is_the_same() -> None:
    assert answers.same("tcp_reload", None, []) is True


# -- TLS ------------------------------------------------------------------------------------------

domains = load("_utils/opensips_tls.py")
probe = load("_utils/tls_probe.py")
SOCKETS = [("10.0.0.1", 5061), ("10.0.0.1", 443)]


@pytest.mark.parametrize(
    ("addresses", "names", "expected"),
    [
        ("*", "*", [(5061, None), (443, None)]),
        (None, None, [(5061, None), (443, None)]),
        ("10.0.0.1:443", "a.b,c.d", [(443, "a.b")]),
        ("10.0.0.1", "*.a.b", [(5061, "probe.a.b"), (443, "probe.a.b")]),
        ("10.0.0.2:443", "*", []),
    ],
)
def test_each_domain_is_proven_where_it_stands(
    addresses: str | None, names: str | None, expected: list
) -> None:
    row = {"domain": "d", "type": 2, "certificate": "pem", "match_ip_address": addresses,
           "match_sip_domain": names}  # fmt: skip
    client = {"domain": "c", "type": 1}
    found = domains.expected([row, client], SOCKETS)
    assert [(one["port"], one["server_name"]) for one in found] == expected
    assert domains.pairs([row, client]) == [
        {"domain": "d", "certificate": "pem", "private_key": ""}
    ]


def test_ciphers_are_names_that_openssl_has() -> None:
    row = {"domain": "d", "type": 2}
    domains.check_ciphers([row, {**row, "cipher_list": "ECDHE+AESGCM:!aNULL"}])
    for ciphers in ("NONSENSE", "ECDHE\0+AESGCM"):
        with pytest.raises(ValueError, match="opensips:tls:d:ciphers names none that OpenSSL has"):
            domains.check_ciphers([row, {**row, "cipher_list": ciphers}])


def test_nobody_serves() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} serves no certificate: "):
            probe.served("127.0.0.1", port, timeout=0.5)
    with pytest.raises(OSError, match="serves no certificate"):
        probe.served("127.0.0.1", 10**6)


def test_certificate_is_told_whoever_signed_it(tmp_path: Path) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "1", "-subj", "/CN=x", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError), context.wrap_socket(server.accept()[0], True) as one:
                one.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        served = probe.served("127.0.0.1", server.getsockname()[1], "x.example.org")
    assert served.split() == chain.read_text().split()
