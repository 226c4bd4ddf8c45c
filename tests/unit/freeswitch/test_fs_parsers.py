"""Whatever FreeSWITCH or a file says, a parser answers or raises one line, soon and in little room.

`GUARDIAN_EXAMPLES` says how many examples each gets; `make evidence AREA=freeswitch` gives 10,000.
"""

import json
import os
import socket

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
    with pytest.MonkeyPatch.context() as patch:
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


@many
@given(
    st.sampled_from(["configuration", "dialplan", "directory"]),
    st.dictionaries(
        st.sampled_from(["a.xml", "sub/b.xml"]),
        st.lists(PIECE | st.text(max_size=10), max_size=8).map("\n".join),
    ),
    st.lists(PIECE, max_size=10).map("\n".join),
)
def test_configuration(fsxml, fs_changes, rules, policy, section, files, text):
    tree = {name: content.encode(errors="replace") for name, content in files.items()}
    tree["freeswitch.xml"] = SECTION.format(section, text).encode()
    document = fsxml.load(tree)
    for line in (*fsxml.check(document), *policy.check(document)):
        assert "\n" not in line
    plan = fs_changes.classify(document, fsxml.load({}), rules)
    assert plan["disruption"] in ("none", "reload", "restart")
    if document.root is not None:
        assert fs_changes.classify(document, document, rules)["disruption"] == "none"


@pytest.fixture(scope="session")
def module(fsxml):
    """The execution module with an event socket that answers what the test wants."""
    found = load(
        "_modules/freeswitch.py",
        __opts__={},
        __context__={},
        __utils__={"fsxml.parse": fsxml.parse},
    )
    found._api = lambda *_, **__: found.answer
    return found


def asked(module, answer, *functions):
    """Every function answers, or raises one line."""
    module.answer = answer
    for function in functions:
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
