"""Whatever FreeSWITCH or a file says, a parser answers or raises one line, soon and in little room.

`GUARDIAN_EXAMPLES` says how many examples each gets; `make evidence AREA=freeswitch` gives 10,000.
"""

import contextlib
import json
import os
import socket
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from tests.support.loading import load

EXAMPLES = int(os.environ.get("GUARDIAN_EXAMPLES", "300"))
many = settings(
    max_examples=EXAMPLES,
    deadline=500,  # milliseconds an example
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


ROOM = 4 << 20  # bytes, for what is some hundred bytes long


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


class Stream:
    """A socket that says what the test wants, in the pieces it wants."""

    def __init__(self, data, size):
        self._data, self._size = data, size

    def recv(self, _):
        said, self._data = self._data[: self._size], self._data[self._size :]
        return said

    def settimeout(self, _):
        pass

    sendall = settimeout

    def close(self):
        pass


AUTH = b"Content-Type: auth/request\n\n"
ACCEPTED = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
HEADER = st.sampled_from(
    [
        b"Content-Type: api/response",
        b"Content-Type: text/event-plain",
        b"Content-Type: text/disconnect-notice",
        b"Content-Type: command/reply",
        b"Content-Length: 4",
        b"Content-Length: -1",
        b"Content-Length: 16000000",  # announced is not sent: no room is made for it
        b"Content-Length: 99999999999999999999",
        b"Content-Length: \xd9\xa4",
        b"Reply-Text: -ERR no",
        b"Job-UUID: x",
        b": nothing",
        b"no colon",
        b"\xff\xfe",
    ]
)
FRAME = st.builds(
    lambda headers, body: b"\n".join(headers) + b"\n\n" + body,
    st.lists(HEADER, max_size=4),
    st.binary(max_size=12),
)


@many
@given(st.lists(FRAME | st.binary(max_size=64), max_size=6), st.integers(1, 64), st.booleans())
def test_event_socket(esl, frames, size, polite):
    data = (AUTH + ACCEPTED if polite else b"") + b"".join(frames)
    with pytest.MonkeyPatch.context() as patch, little_room():
        patch.setattr(socket, "create_connection", lambda *_, **__: Stream(data, size))
        try:
            with esl.connect(password="not-a-secret", timeout=1.0) as link:
                assert isinstance(link.api("status"), str)
                assert isinstance(link.bgapi("status"), str)
        except esl.EslError as err:
            assert_one_line(err)


def assert_one_line(err):
    assert "\n" not in str(err)
    assert len(str(err)) < 400
    assert "not-a-secret" not in str(err)


PIECE = st.sampled_from(
    [
        "<include>",
        "</include>",
        '<X-PRE-PROCESS cmd="set" data="a=$${a}b"/>',
        '<X-PRE-PROCESS cmd="set" data="a=b"/><x/>',
        '<X-PRE-PROCESS cmd="include" data="*.xml"/>',
        '<X-PRE-PROCESS cmd="include" data="../../etc/*"/>',
        "<!-- ",
        " -->",
        "<!--#exec id-->",
        "$${",
        "<profile name='a'>",
        "<settings>",
        '<param name="sip-port" value="5060"/>',
        "</settings>",
        "</profile>",
        '<extension name="x"><condition field="destination_number" expression="^(1+)+$">',
        '<action application="bridge" data="sofia/gateway/a/$1"/></condition></extension>',
        "<user id='1'>",
        "</user>",
        "&#x0;",
        "&x;",
        "<!DOCTYPE a [<!ENTITY x 'y'>]>",
        "]]>",
    ]
)
SECTION = '<document><section name="{}">\n{}\n</section></document>'


@pytest.fixture(scope="session")
def policy():
    return load("_utils/fs_policy.py")


@pytest.fixture(scope="session")
def dialplan():
    return load("_utils/fs_dialplan.py")


@many
@given(
    st.sampled_from(["configuration", "dialplan", "directory"]),
    st.dictionaries(
        st.sampled_from(["a.xml", "sub/b.xml"]),
        st.lists(PIECE | st.text(max_size=10), max_size=8).map("\n".join),
    ),
    st.lists(PIECE, max_size=10).map("\n".join),
)
def test_configuration(fsxml, fs_changes, rules, policy, dialplan, section, files, text):
    tree = {name: content.encode(errors="replace") for name, content in files.items()}
    tree["freeswitch.xml"] = SECTION.format(section, text).encode()
    with little_room():
        document = fsxml.load(tree)
        told = [*fsxml.check(document), *policy.check(document), *dialplan.check(document)]
        plan = fs_changes.classify(document, fsxml.load({}), rules)
        same = fs_changes.classify(document, document, rules)
    assert all("\n" not in line for line in told)
    assert told or document.root is not None
    assert plan["disruption"] == "restart", "nothing is known of a tree that is not there"
    assert same["disruption"] == ("none" if document.root is not None else "restart")


@pytest.fixture(scope="session")
def module(fsxml):
    """The execution module with an event socket that answers what the test wants."""
    found = load(
        "_modules/freeswitch.py",
        __opts__={},
        __context__={},
        __salt__={"pillar.get": lambda *_, **__: {}},
        __utils__={"fsxml.parse": fsxml.parse, "secret_seal.redacted": lambda told, _: told},
    )
    found._api = lambda *_, **__: found.answer
    return found


def asked(module, answer, *functions, most=ROOM):
    """Every function answers, or raises one line."""
    module.answer = answer
    for function in functions:
        with little_room(most):
            try:
                function()
            except CommandExecutionError as err:
                assert_one_line(err)


TAG = st.sampled_from(["profiles", "profile", "gateway", "gateways", "name", "state", "data", "x"])
ELEMENT = st.recursive(
    st.text(max_size=12) | st.sampled_from(["RUNNING (0)", "a&b", "&lt;", "\x01", "NOREG"]),
    lambda inner: (
        st.builds("<{0}>{1}</{0}>".format, TAG, inner) | st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=12,
)


@many
@given(ELEMENT | st.text(max_size=200), st.integers(0, 400))
def test_xmlstatus(module, text, cut):
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
    asked(
        module,
        (head + text)[: len(head) + cut],
        module.profiles,
        module.gateways,
        lambda: module.gateway_status("carrier"),
    )


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["rows", "row_count", "uuid", "created_epoch", "callstate", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@many
@given(VALUE.map(json.dumps) | st.text(max_size=60), st.integers(0, 200))
def test_show_json(module, text, cut):
    asked(module, text[:cut], module.calls_list, module.calls_count, module.registrations_count)


CALL = {
    "uuid": "0" * 36, "direction": "inbound", "created_epoch": "1700000000", "callstate": "ACTIVE",
    "name": "sofia/internal/1001@192.0.2.21", "cid_name": "x" * 40, "dest": "448001234567",
}  # fmt: skip
GATEWAY = """<gateway><name>carrier-{0}</name><profile>external</profile><state>REGED</state>
<status>UP</status><proxy>sip:192.0.2.{0}</proxy><username>a&b</username></gateway>"""


def test_node_full_of_calls(module):
    """5,000 rows, twice what a node carries: a second each on one core, half of P10's room."""
    rows = [CALL] * 5000
    before = time.process_time()
    asked(
        module, json.dumps({"row_count": len(rows), "rows": rows}), module.calls_list, most=50 << 20
    )
    assert time.process_time() - before < 5
    assert len(module.calls_list()) == len(rows)


def test_node_full_of_gateways(module):
    text = f"<gateways>{''.join(map(GATEWAY.format, range(5000)))}</gateways>"
    before = time.process_time()
    asked(module, text, module.gateways, most=50 << 20)
    assert time.process_time() - before < 10
    assert len(module.gateways()) == 5000
    assert module.gateways()["carrier-4999"]["status"] == "UP"
