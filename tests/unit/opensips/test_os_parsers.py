"""Whatever OpenSIPS or a file says, a parser answers or raises one line, soon and in little room.

`GUARDIAN_EXAMPLES` says how many examples each gets; `make evidence AREA=opensips` gives 10,000.
"""

import contextlib
import inspect
import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import load

EXAMPLES = int(os.environ.get("GUARDIAN_EXAMPLES", "300"))
many = settings(
    max_examples=EXAMPLES,
    deadline=500,  # milliseconds an example
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ROOM = 4 << 20  # bytes, for what is some hundred bytes long

mi = load("_utils/mi.py")
opensips_mi = load("_utils/opensips_mi.py")
cfg = load("_utils/opensips_cfg.py")
lint = load("_utils/opensips_lint.py")
module = load("_modules/opensips.py", __opts__={"opensips.binary": __file__})
tables = load("_utils/opensips_tables.py")


@contextlib.contextmanager
def little_room(most=ROOM):
    """Whatever is parsed inside takes no more than that, at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak} bytes"


def assert_one_line(err):
    assert "\n" not in str(err)
    assert len(str(err)) < 400


# -- the management interface --------------------------------------------------------------------


class Link:
    """A datagram socket that says what the test wants; ``ID`` in it becomes the request's id."""

    def __init__(self, datagrams):
        self._datagrams = list(datagrams)
        self._number = b"0"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def bind(self, path):
        Path(path).touch()

    def sendto(self, data, _):
        self._number = str(json.loads(data)["id"]).encode()

    def recv(self, _):
        if not self._datagrams:
            raise TimeoutError
        return self._datagrams.pop(0).replace(b"ID", self._number)

    def setsockopt(self, *_):
        pass

    settimeout = setsockopt


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, "9" * 5000, "²", "Active", "10.0.0.1", "10.0.0.1/99", "udp:x:1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("PARTITIONS", "SETS", "Destinations", "id", "URI", "state", "attr", "uri"),
                    *("Partitions", "grp", "ip", "mask", "group", "enabled", "Resources", "name"),
                    *("max", "load", "Gateways", "ID", "IP", "State", "Carriers", "Enabled"),
                    *("Set", "Nodes", "url", "disabled", "recheck_ticks", "Tag", "Cluster"),
                    *("Clusters", "cluster_id", "node_id", "link_state", "Capabilities", "type"),
                    *("Domains", "IP ADDRESS FILTERS", "Records", "AOR", "registrar", "tm:x"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def _json(value):
    return json.dumps(value).encode()


# What is a whole answer but for its result, and what is none.
DATAGRAM = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=80).map(lambda text: text.encode(errors="replace")),
    VALUE.map(lambda value: b'{"jsonrpc": "2.0", "result": %s, "id": ID}' % _json(value)),
    VALUE.map(lambda value: b'{"jsonrpc": "2.0", "error": %s, "id": ID}' % _json(value)),
    VALUE.map(lambda value: b'{"error": {"code": %s, "message": %s}, "id": ID}' % (
        _json(value), _json(value))),
    VALUE.map(lambda value: b'{"result": 1, "id": %s}' % _json(value)),
    VALUE.map(_json),
    st.sampled_from([
        b"[" * 100_000, b'{"a":' * 100_000, b'{"result": 1, "id": ID', b'{"id": ID}',
        b"Internal error", b'{"result": "' + b"x" * 60_000 + b'", "id": ID}', b"\xff\xfe", b"",
    ]),
)  # fmt: skip


@many
@given(st.lists(DATAGRAM, max_size=3), st.sampled_from(["ds_list", "which", "no_such"]))
def test_answer(tmp_path_factory, datagrams, command):
    run = tmp_path_factory.getbasetemp() / "mi"
    run.mkdir(exist_ok=True)
    # 100,000 brackets are what is measured here, not what is made of them.
    with pytest.MonkeyPatch.context() as patch, little_room(16 << 20):
        patch.setattr(mi.sockets, "socket", lambda *_: Link(datagrams))
        try:
            mi.call(command, {"a": "not-a-secret"}, socket=str(run / "mi.sock"), timeout=1.0)
        except mi.MiError as err:
            assert_one_line(err)
            assert "not-a-secret" not in str(err)
    assert not list(run.iterdir()), "what it listened on is gone"


@many
@given(st.lists(DATAGRAM, max_size=3))
def test_answer_over_the_pipe(tmp_path_factory, pieces):
    pipe = tmp_path_factory.getbasetemp() / "answers"
    if not pipe.exists():
        os.mkfifo(pipe)
    ends = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        for piece in pieces:
            with contextlib.suppress(BlockingIOError):  # it holds 64 KiB
                os.write(ends, piece.replace(b"ID", b"5"))
        with little_room(16 << 20):
            try:
                answer = mi._read_pipe(ends, Path("mi.fifo"), time.monotonic() + 0.01)
                assert isinstance(answer, dict)
            except mi.MiError as err:
                assert_one_line(err)
    finally:
        os.close(ends)


READERS = [
    function
    for name, function in inspect.getmembers(opensips_mi, inspect.isfunction)
    if hasattr(function, "__wrapped__")
]


@many
@given(VALUE)
def test_what_commands_answer(value):
    answer = json.loads(json.dumps(value))
    with little_room():
        for reader in READERS:
            arguments = [answer, "x"][: len(inspect.signature(reader.__wrapped__).parameters)]
            try:
                reader(*arguments)
            except ValueError as err:
                assert_one_line(err)


def test_every_reader_is_tried():
    assert len(READERS) > 8


# -- configuration -------------------------------------------------------------------------------

PIECE = st.sampled_from(
    [
        *('"', "'", "\\", "/*", "*/", "#", "\n", "\r\n", " ", "{", "}", ";", "socket=", "udp:"),
        *("socket=udp:10.0.0.1:5060", "socket = tls:999.9.9.9:99999 AS x", "socket=udp:[::1]"),
        *('include_file "', 'include_file "routes.d/10-request.cfg"', 'loadmodule "tm.so"'),
        *('modparam("tm", "a", "', "route[x] {", "mysql://a:not-a-secret@h/d", "sqlite:", "\x00"),
    ]
).map(str.encode) | st.binary(max_size=12)  # fmt: skip
CONTENT = st.lists(PIECE, max_size=14).map(b"".join) | st.builds(
    lambda piece, times: piece * times, PIECE, st.integers(1, 300)
)
PATH = st.sampled_from(
    [
        *("opensips.cfg", "conf.d/10-core.cfg", "conf.d/15-standing.cfg", "routes.d/10-a.cfg"),
        *("dbtext/dispatcher", "dbtext/address", "dbtext/tls_mgm", "dbtext/x", "dbtext/version"),
        *("runtime/location", "other"),
    ]
)
TREE = st.dictionaries(PATH, CONTENT, max_size=4)
ORDER = set(cfg.ORDER)


@many
@given(TREE, TREE)
def test_configuration(old, new):
    with little_room():
        plan = cfg.classify(old, new, [3, 4, 18])
        same = cfg.classify(new, new, [3, 4, 18])
        part = cfg.safe_part(old, new, [3, 4, 18])
        bound = [*cfg.sockets(new), *cfg.sockets(new, "tls")]
        cfg.destinations(new)
        for content in new.values():
            assert isinstance(cfg.meaning(content), str)
    assert all("\n" not in line and "\r" not in line for line in plan["why"])
    assert "not-a-secret" not in str(plan)
    assert {action["do"] for action in plan["actions"]} <= ORDER
    assert same == {"disruption": "none", "why": [], "actions": [], "files": []}
    assert cfg.classify(old, part, [3, 4, 18])["disruption"] != "restart"
    assert all(isinstance(port, int) for _, port in bound)


@pytest.mark.parametrize(
    "piece",
    [b"/*", b'"', b"'", b"\\", b'\\"', b"#", b"/*/", b"/* ", b"socket=udp:1", b" ", b"\n", b"a:\\"],
)
def test_long_file_is_read_in_its_length(piece):
    """64 KiB that no parser likes: a second on one core."""
    content = piece * (65536 // len(piece))
    before = time.process_time()
    for path in ("conf.d/10-core.cfg", "dbtext/dispatcher"):
        cfg.classify({path: content}, {path: b'"' + content}, [3, 4, 18])
        cfg.sockets({path: content})
    with contextlib.suppress(ValueError):
        tables.decode("dispatcher", b"id(int)\n" + content)
    assert time.process_time() - before < 3


SAID = st.lists(
    st.sampled_from(
        [
            "Nov 24 [6] ERROR:core:fix_actions: called route [nowhere] (id=5) is not defined",
            "Nov 24 [6] CRITICAL:core:yyerror: parse error in a/opensips.cfg:1:2-3: syntax",
            'Nov 24 23:22:49 [6] CRITICAL:core:fix_expr: bad re "^(8"',
            "ERROR:db_text:dbt_load_file: error at row=99999999999 col=1 c=t",
            "ERROR:core:main: could not resolve (((", "ERROR:x:y: route <[> is redefined",
            "ERROR:core:z: fixing failed (code=-1) at x.cfg:99999999999999999999",
            'ERROR:a:b: cannot bind (mysql://a:not-a-secret@h/o) "\\"', "BUG:", "ERROR::: ",
        ]
    )
    | st.text(max_size=40),
    max_size=8,
).map("\n".join)  # fmt: skip


@many
@given(SAID, TREE, st.booleans())
def test_words_of_a_daemon_that_does_not_start(said, made, up):
    with little_room():
        told = [*lint.problems(made), *lint.explain(said, made, "a", "/etc/opensips", up=up)]
    assert all("\n" not in line and len(line) < 400 for line in told)
    assert "not-a-secret" not in str(told)


@many
@given(
    st.text(max_size=80)
    | st.builds("version: opensips {} (x86_64/linux)".format, st.text("0123456789.²٣", max_size=9))
    | st.sampled_from(["opensips " + ".".join(["9" * 5000] * 3), "opensips 3.4.18"])
)
def test_release(told):
    module.__context__, module.__salt__ = {}, {"cmd.run_stdout": lambda *_, **__: told}
    assert [type(number) for number in module._release()] == [int, int, int]


# -- tables --------------------------------------------------------------------------------------

HEAD = st.sampled_from(
    [
        b"id(int,auto) setid(int) destination(string) weight(string)\n",
        b"table_name(string) table_version(int)\n",
        b"id(int,auto) q(double)\n",
        b"",
    ]
)
FIELD = st.sampled_from(
    [b"1", b"-1", b"1e999", b"nan", b"\\", b"\\:", b"\\n", b":", b"\n", b"sip\\:10.0.0.1", b"\xff"]
) | st.binary(max_size=6)


@many
@given(st.sampled_from(sorted(tables.TABLES)), HEAD, st.lists(FIELD, max_size=12).map(b":".join))
def test_table(table, head, lines):
    with little_room():
        try:
            rows = tables.decode(table, head + lines)
            assert isinstance(rows, list)
        except ValueError as err:
            assert_one_line(err)
        cfg.destinations({"dbtext/dispatcher": head + lines})


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@many
@given(st.lists(st.tuples(st.integers(0, 9999), TEXT, TEXT, TEXT), max_size=5))
def test_row_comes_back_as_it_was_whatever_is_in_it(given_rows):
    """No value leaves its field; what is empty is NULL."""
    rows = [
        {"setid": number, "destination": f"sip:{uri}", "attrs": a or None, "description": d or None}
        for number, uri, a, d in given_rows
    ]
    content = tables.encode("dispatcher", rows)
    assert content.count(b"\n") == len(rows) + 1
    back = tables.decode("dispatcher", content)
    assert [{key: row[key] for key in rows[0]} for row in back] == rows if rows else back == []
