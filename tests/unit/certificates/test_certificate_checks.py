"""What may be served, and that whatever is thrown at the checks is either that or one line."""

import ipaddress
import string
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bundles import CA, GOOD, KEYS, LEAF, ROOT, authority, issue, leaf, pem
from tests.support.loading import load
from tests.unit.certificates.bad_bundles import BAD, DER_KEY, der, limited, wrapped

bundle = load("_utils/certificate_bundle.py")
LONG = rsa.generate_private_key(65537, 2048)
EDWARDS = ed25519.Ed25519PrivateKey.generate()
SELF = issue("self", KEYS["leaf"], "self", KEYS["leaf"], names=["a.example.org"])
ROOTS = pem(ROOT)


def meant_for(*purposes):
    return leaf(more=[(x509.ExtendedKeyUsage(purposes), False)])


def with_extension(value):
    return leaf(more=[(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), value), False)])


@pytest.mark.parametrize(
    ("chain", "key", "asked"),
    [
        (pem(LEAF, CA), KEYS["leaf"], {"authority": ROOTS}),
        (pem(LEAF), KEYS["leaf"], {"authority": ROOTS + pem(CA)}),
        (pem(LEAF), KEYS["leaf"], {"partial": True}),
        (pem(LEAF, authority(path_length=0)), KEYS["leaf"], {}),
        (pem(SELF), KEYS["leaf"], {"self_signed": True}),
        (pem(leaf(key=LONG), CA), LONG, {"dns_names": ["a.voice.example.org"]}),
        (pem(leaf(key=EDWARDS), CA), EDWARDS, {}),
        (pem(leaf(addresses=["10.0.0.1", "::1"]), CA), KEYS["leaf"], {"addresses": ["::1"]}),
        (pem(leaf(addresses=["10.0.0.1"]), CA), KEYS["leaf"], {"dns_names": ["10.0.0.1"]}),
        (pem(LEAF, CA).rstrip("\n"), KEYS["leaf"], {"minimum_days": 29}),
        (pem(with_extension(b"\x05\x00"), CA), KEYS["leaf"], {}),
        (pem(meant_for(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), CA), KEYS["leaf"],
         {"usage": "both"}),
        (pem(meant_for(ExtendedKeyUsageOID.CLIENT_AUTH), CA), KEYS["leaf"], {"usage": "client"}),
        (pem(meant_for(ExtendedKeyUsageOID.EMAIL_PROTECTION), CA), KEYS["leaf"], {"usage": "any"}),
    ],
)  # fmt: skip
def test_good_bundle_passes(chain, key, asked):
    facts = bundle.verify(chain, pem(key), **asked)
    assert facts == bundle.facts(chain)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("sip.example.org", "SIP.example.org", True),
        ("sip.example.org", "sip.example.org.", True),
        ("*.example.org", "sip.example.org", True),
        ("*.example.org", "*.example.org", True),
        ("*.example.org", "a.sip.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
    ],
)
def test_names_a_pattern_covers(pattern, name, covered):
    assert bundle._covers(pattern, name) is covered


NETWORK = x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("trees", "address", "allowed"),
    [
        ({"permitted_subtrees": [x509.DNSName(".example.org"), NETWORK]}, "10.0.0.1", True),
        ({"permitted_subtrees": [x509.DNSName("")]}, "10.0.0.1", True),
        ({"excluded_subtrees": [x509.DNSName("example.net")]}, "10.0.0.1", True),
        ({"permitted_subtrees": [NETWORK]}, "192.0.2.1", False),
        ({"excluded_subtrees": [NETWORK]}, "10.0.0.1", False),
    ],
)
def test_name_constraints(trees, address, allowed):
    chain = pem(leaf(addresses=[address]), limited(**trees))
    if allowed:
        assert bundle.verify(chain, GOOD["key"])
    else:
        with pytest.raises(ValueError, match=f"constraints of CN=ca do not allow {address}"):
            bundle.verify(chain, GOOD["key"])


def test_system_without_roots_says_so(monkeypatch):
    monkeypatch.setattr(bundle, "SYSTEM_ROOTS", "/nonexistent")
    with pytest.raises(ValueError, match="/nonexistent is missing; install ca-certificates"):
        bundle.verify(**GOOD, authority="system")


def test_facts_are_of_the_first_and_of_nothing_else():
    facts = bundle.facts(GOOD["chain"])
    assert facts["subject"] == "CN=sip"
    assert facts["issuer"] == "CN=ca"
    assert facts["names"] == ["sip.example.org", "*.voice.example.org"]
    assert facts["not_before"] < facts["not_after"]
    assert bundle.parts(GOOD["chain"]) == [pem(LEAF), pem(CA)]
    for fault in ("nonsense", "extension twice", "no such version", "X.400 name"):
        with pytest.raises(ValueError, match="that is no certificate in PEM"):
            bundle.facts(BAD[fault].chain)


@pytest.mark.parametrize("text", ["nonsense", "no base64 either!", "c29tZXRoaW5n"])
def test_text_of_nothing_known_is_no_pem(text):
    with pytest.raises(ValueError, match=r"^chain is not PEM$"):
        bundle.verify(text, GOOD["key"])


@pytest.mark.parametrize("raw", [b"0\x03\x02\x01\x05", b"0", b"0\x85abcde", b"\x02\x01\x05"])
def test_block_of_something_else_is_no_certificate(raw):
    with pytest.raises(ValueError, match="certificate 1 of the chain is damaged"):
        bundle.verify(wrapped(raw), GOOD["key"])


def test_certificate_without_a_subject_is_told_by_its_serial():
    nameless = x509.CertificateBuilder(
        subject_name=x509.Name([]), issuer_name=LEAF.issuer, public_key=LEAF.public_key(),
        serial_number=0xABC, not_valid_before=LEAF.not_valid_before_utc,
        not_valid_after=LEAF.not_valid_after_utc,
    ).sign(KEYS["ca"], LEAF.signature_hash_algorithm)  # fmt: skip
    assert bundle.facts(pem(nameless))["subject"] == "serial abc"


def test_minions_without_cryptography_are_told(monkeypatch):
    assert bundle.__virtual__() is True
    monkeypatch.setitem(sys.modules, "cryptography", None)
    without = load("_utils/certificate_bundle.py").__virtual__()
    assert without == (False, "python3-cryptography is missing from this Python")


# -- whatever comes ------------------------------------------------------------------------------

TEXTS = st.sampled_from([bad.chain for bad in BAD.values()] + [bad.key for bad in BAD.values()])
PERMISSIVE = {"self_signed": True, "partial": True, "usage": "any"}
LINES = GOOD["chain"].splitlines(keepends=True), GOOD["key"].splitlines(keepends=True)


def verdict(chain, key):
    """The facts, or None; anything else than one finished line is a failure."""
    try:
        return bundle.verify(chain, key, **PERMISSIVE)
    except ValueError as err:
        told = str(err)
        assert told.isprintable()
        assert len(told) < 400
        return None


def mutated(text, draw):
    """Cut, repeat, swap or overwrite somewhere."""
    at, to = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    piece = draw(st.sampled_from(["", "\n", "A", "=", "\0", "é", "-----", text[at:to][::-1]]))
    return text[:at] + piece + text[to if draw(st.booleans()) else at :]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_text_never_crashes_and_never_passes_as_another(data):
    chain = mutated(GOOD["chain"], data.draw)
    key = data.draw(st.sampled_from([GOOD["key"], mutated(GOOD["key"], data.draw)]))
    facts = verdict(chain, key)
    assert facts is None or facts == bundle.facts(GOOD["chain"])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from(["leaf", "ca", "key"]))
def test_a_changed_byte_is_never_accepted(at, change, where):
    """Whatever is signed or must match is noticed; nothing of it crashes."""
    raw = bytearray({"leaf": der(LEAF), "ca": der(CA), "key": DER_KEY}[where])
    raw[at % len(raw)] ^= change
    if where == "key":
        facts = verdict(GOOD["chain"], wrapped(bytes(raw), "PRIVATE KEY"))
        assert facts is None or facts == bundle.facts(GOOD["chain"])
        return
    parts = [pem(LEAF), pem(CA)]
    parts[where == "ca"] = wrapped(bytes(raw))
    facts = verdict("".join(parts), GOOD["key"])
    # The signature of the last one is its root's, which is not there.
    assert facts is None or (where == "ca" and facts == bundle.facts(GOOD["chain"]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([LEAF, CA, ROOT, SELF, leaf(key=LONG)]), min_size=1, max_size=5),
    st.sampled_from([KEYS["leaf"], KEYS["ca"], KEYS["other"], LONG]),
)
def test_certificates_in_any_order_pass_only_with_their_key(certificates, key):
    facts = verdict(pem(*certificates), pem(key))
    if facts:
        first = certificates[0]
        assert key.public_key() == first.public_key()
        assert first in (LEAF, SELF) or key is LONG
        assert certificates[1:] in ([], [CA])


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_bad_texts_in_any_pair_are_one_line(chain, key):
    verdict(chain, key)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=string.printable + "é\0\ufeff"), st.text())
def test_any_text_is_refused_in_one_line(chain, key):
    assert verdict(chain, key) is None
    assert verdict(GOOD["chain"], key) is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_in_a_block_are_refused_in_one_line(raw):
    assert verdict(wrapped(raw), GOOD["key"]) is None
    assert verdict(GOOD["chain"], wrapped(raw, "PRIVATE KEY")) is None
