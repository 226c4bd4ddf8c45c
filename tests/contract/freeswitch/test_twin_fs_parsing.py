"""The twin's parsers against anything: a value or their own error, in bounded time."""

import contextlib
import sys
import time
import xml.etree.ElementTree as ET

import pytest
from fs_daemon import TWIN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.phone import sip

sys.path.append(str(TWIN))

import media
import xmlparse
import xmltree

_quick = settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
_XML_PIECES = st.sampled_from([
    "<a>", "</a>", "<a b='c'/>", '<a b="', "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>", "&amp;",
    "&#x110000;", "&#0;", "&#", "<!DOCTYPE a [", "]>", "<", ">", "/", "=", "'", '"', "\n", " x ",
])  # fmt: skip


@_quick
@given(st.lists(_XML_PIECES | st.text(max_size=5), max_size=60).map("".join))
def test_xml_is_an_element_or_its_error(text):
    with contextlib.suppress(xmlparse.XmlError):
        assert isinstance(xmlparse.parse(text), ET.Element)


_names = st.from_regex(r"[a-z][a-z0-9_-]{0,6}", fullmatch=True)
_values = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"))


def _grown(name, children):
    element = ET.Element(name)
    element.extend(children)
    return element


_trees = st.recursive(
    st.builds(ET.Element, _names, st.dictionaries(_names, _values, max_size=3)),
    lambda children: st.builds(_grown, _names, st.lists(children, max_size=4)),
    max_leaves=15,
)


@_quick
@given(_trees)
def test_well_formed_xml_means_what_it_means_elsewhere(tree):
    text = ET.tostring(tree, encoding="unicode")
    read = xmlparse.parse(text + "\n")
    expected = [(e.tag, {k: _spaces(v) for k, v in e.attrib.items()}) for e in tree.iter()]
    assert [(e.tag, e.attrib) for e in read.iter()] == expected


def _spaces(value):
    return "".join(" " if character.isspace() else character for character in value)


_SIP_PIECES = st.sampled_from([
    "INVITE sip:a@b SIP/2.0", "SIP/2.0 200 OK", "SIP/2.0 ²00 OK", "Via: SIP/2.0/UDP h;branch=z",
    "Via: ", "From: <sip:a@b>;tag=", "To: <sip:", "Call-ID: x", "CSeq: 1 INVITE", "CSeq: 9", ":",
    "Content-Length: ²", "Content-Length: 99999999999999999999", "Record-Route: <a>,\"b,", " fold",
    "Contact: <sip:a@b:99999>", "",
])  # fmt: skip


@_quick
@given(st.lists(_SIP_PIECES | st.text(max_size=12), max_size=14))
def test_datagram_is_a_message_or_its_error(lines):
    _reads(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace"))


@_quick
@given(st.binary(max_size=600))
def test_random_datagram_is_a_message_or_its_error(data):
    _reads(data)


def _reads(data):
    with contextlib.suppress(sip.SipError):
        message = sip.parse(data)
        assert message.build()
        assert sip.parse(message.build()).cseq == message.cseq
        if message.is_request:
            assert sip.respond(message, 200, "OK", to_tag="t").build()
            sip.reply_address(message, ("127.0.0.1", 1))
            sip.stamp_via(message, ("127.0.0.1", 1))
    with contextlib.suppress(sip.SipError):
        sip.Uri.parse(data.decode("utf-8", "replace"))


@_quick
@given(st.binary(max_size=600))
def test_stream_is_cut_or_refused(data):
    buffer = bytearray(data)
    with contextlib.suppress(sip.SipError):
        while (message := sip.cut(buffer)) is not None:
            assert message.endswith(b"\r\n\r\n") or b"\r\n\r\n" in message


@_quick
@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(1, 50))
def test_stream_is_cut_where_its_messages_end(bodies, size):
    request = sip.Message(method="INVITE", uri="sip:a@b", headers=[("Via", "x")])
    sent = []
    for body in bodies:
        request.body = body
        sent.append(request.build())
    whole, buffer, received = b"".join(sent), bytearray(), []
    for at in range(0, len(whole), size):
        buffer += whole[at : at + size]
        while (message := sip.cut(buffer)) is not None:
            received.append(message)
    assert received == sent


def test_stream_without_a_length_is_refused():
    for head in (b"INVITE a b", b"X\r\nContent-Length: -1", b"X\r\nContent-Length: 999999999"):
        with pytest.raises(sip.SipError):
            sip.cut(bytearray(head + b"\r\n\r\n"))


_SDP_PIECES = st.sampled_from([
    "m=audio 9 RTP/AVP 0 8", "m=audio 9 UDP/TLS/RTP/SAVPF 96", "m=audio", "m=audio x y z",
    "a=rtpmap:96 opus/48000/2", "a=rtpmap:0", "a=rtpmap:101 telephone-event/8000", "v=0", "",
])  # fmt: skip


@_quick
@given(st.lists(_SDP_PIECES | st.text(max_size=12), max_size=8), st.text(max_size=12))
def test_any_offer_is_answered_or_not(lines, preferences):
    offer = "\r\n".join(lines).encode("utf-8", "replace")
    stream = media.negotiated(offer, preferences)
    if stream:
        described = stream.described("127.0.0.1", 9, 1, TWIN)
        assert media.negotiated(described, "").payload == stream.payload


@pytest.mark.parametrize("text", ["<" * 200_000, "<a " * 50_000, "<a>" * 50_000, "&" * 200_000])
def test_large_nonsense_is_refused_quickly(text):
    started = time.monotonic()
    with pytest.raises(xmlparse.XmlError):
        xmlparse.parse(text)
    assert time.monotonic() - started < 5


def test_files_that_include_one_another_twice_over_end_in_an_error(tmp_path):
    """Each level doubles the work: without a limit thirty small files keep it busy for hours."""
    include = '<X-PRE-PROCESS cmd="include" data="{}.xml"/>\n'
    (tmp_path / "freeswitch.xml").write_text(include.format(0) * 2)
    for level in range(30):
        (tmp_path / f"{level}.xml").write_text(include.format(level + 1) * 2)
    with pytest.raises(xmltree.TreeError, match="more than 10000 includes"):
        xmltree.Tree(tmp_path, {})
