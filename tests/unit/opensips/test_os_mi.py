"""The management client against a peer that may say anything."""

import contextlib
import json
import socket
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


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
