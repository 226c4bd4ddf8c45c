"""Bundles that must not be served, each with what is told of it."""

import base64
import datetime
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from tests.support.bundles import (
    CA,
    DAY,
    GOOD,
    KEYS,
    LEAF,
    NOW,
    ROOT,
    authority,
    issue,
    leaf,
    pem,
    private,
)

CHAIN, KEY = GOOD["chain"], GOOD["key"]


class Bad(NamedTuple):
    told: str
    chain: Any = CHAIN
    key: Any = KEY
    asked: Mapping[str, Any] = MappingProxyType({})  # what pillar asks besides


def wrapped(der: bytes, kind: str = "CERTIFICATE") -> str:
    text = base64.encodebytes(der).decode().replace("\n", "")
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def patched(certificate: x509.Certificate, old: bytes, new: bytes) -> str:
    """Change bytes of a certificate, whose signature is then wrong."""
    assert old in der(certificate)
    return wrapped(der(certificate).replace(old, new, 1))


def framed_anew() -> str:
    """A certificate whose signature claims an unused bit, which nothing that is signed tells."""
    while (found := leaf()).signature[-1] % 2:
        pass
    return patched(found, b"\0" + found.signature, b"\1" + found.signature)


def utc(moment: datetime.datetime) -> bytes:
    """A moment as certificates hold it."""
    return b"\x17\x0d" + f"{moment:%y%m%d%H%M%SZ}".encode()


def flipped(text: str) -> str:
    """Damage the body of the first block, so that it is still PEM."""
    lines = text.splitlines()
    lines[2] = "".join("B" if char == "A" else "A" for char in lines[2])
    return "\n".join(lines) + "\n"


def openssl(*arguments: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        key = Path(directory) / "key.pem"
        key.write_text(KEY)
        command = ["openssl", *arguments]
        words = [str(key) if word == "KEY" else word for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=directory)
        return done.stdout


def version_1() -> str:
    request = openssl("req", "-new", "-key", "KEY", "-subj", "/CN=old")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "request.pem"
        path.write_text(request)
        return openssl("x509", "-req", "-in", str(path), "-signkey", "KEY", "-days", "9")


def usage(**true: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        " key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: true.get(name, False) for name in every.split()})


def purposes(*oids: ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(oids)


def huge() -> rsa.RSAPublicKey:
    """More bits than a handshake should carry; the product of two Mersenne primes."""
    return rsa.RSAPublicNumbers(65537, (2**4423 - 1) * (2**4253 - 1)).public_key()


def limited(**limits: Any) -> x509.Certificate:
    trees = {"permitted_subtrees": None, "excluded_subtrees": None, **limits}
    return authority(more=[(x509.NameConstraints(**trees), True)])


def signed_with(algorithm: int, name: str, key: str, issuer: str) -> str:
    """A certificate that says it is signed with an algorithm of PKCS #1: 4 is MD5, 5 is SHA-1."""
    rsa_with = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01"
    sha256 = der(issue(name, KEYS[key], issuer, LONG, ca=name == "ca"))
    assert sha256.count(rsa_with + b"\x0b") == 2
    return wrapped(sha256.replace(rsa_with + b"\x0b", rsa_with + bytes([algorithm])))


def below(*between: x509.Certificate) -> str:
    return pem(LEAF, *between)


SMALL, THREE, LONG = (
    rsa.generate_private_key(exponent, bits)
    for exponent, bits in ((65537, 1024), (3, 2048), (65537, 2048))
)
DSA = dsa.generate_private_key(2048)
OTHER_CURVE = ec.generate_private_key(ec.SECP256K1())
ED448 = ed448.Ed448PrivateKey.generate()
SELF = issue("self", KEYS["leaf"], "self", KEYS["leaf"], names=["sip.example.org"])
MIDDLE = issue("middle", KEYS["other"], "ca", KEYS["ca"], ca=True)
STRANGER = issue("stranger", KEYS["other"], "root", KEYS["root"], ca=True)
PRIVATE_OID = ObjectIdentifier("1.3.6.1.4.1.99999.1")
SECOND_OID = ObjectIdentifier("1.3.6.1.4.1.99999.2")
TWO = leaf(more=[(x509.UnrecognizedExtension(oid, b"\x05\x00"), False)
                 for oid in (PRIVATE_OID, SECOND_OID)])  # fmt: skip
KEY_ID = x509.SubjectKeyIdentifier(b"k" * 20)
OTHER_KEY_ID = x509.AuthorityKeyIdentifier(b"o" * 20, None, None)
OPENSSH = private(KEYS["leaf"], serialization.PrivateFormat.OpenSSH)
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PUBLIC = (
    KEYS["leaf"]
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
REQUEST = openssl("req", "-new", "-key", "KEY", "-subj", "/CN=sip")
CONTAINER = pkcs12.serialize_key_and_certificates(
    b"x", KEYS["leaf"], LEAF, [CA], serialization.NoEncryption()
)
DER_KEY = KEYS["leaf"].private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
P256, UNKNOWN_CURVE = (b"\x2a\x86\x48\xce\x3d\x03\x01" + bytes([last]) for last in (7, 99))
BODY = "".join(pem(LEAF).splitlines()[1:-1])
WRONG_END = CHAIN.replace("-----END CERTIFICATE-----", "-----END TRUSTED CERTIFICATE-----", 1)
FOUR = pem(*(issue(f"ca{n}", KEYS["ca"], "root", KEYS["root"], ca=True) for n in range(10)))

TEXT = {
    "nothing": Bad("chain is empty", ""),
    "blanks": Bad("chain is nothing but blanks", " \n\n"),
    "no key": Bad("key is empty", key=""),
    "masked pillar": Bad("chain holds a placeholder", "**********"),
    "failed secret": Bad("key holds a placeholder", key="False"),
    "number": Bad("chain is not a text but int", 42),
    "list": Bad("key is not a text but list", key=[KEY]),
    "bytes": Bad("chain is bytes", CHAIN.encode()),
    "nonsense": Bad("chain is not PEM", "nonsense"),
    "too long": Bad("chain has 65", CHAIN + "\n" * (65_536 - len(CHAIN) + 1)),
    "key too long": Bad("key has 16", key=KEY + "\n" * (16_384 - len(KEY) + 1)),
    "NUL": Bad("chain has NUL bytes", CHAIN + "\0"),
    "UTF-16": Bad("key has NUL bytes", key=KEY.encode("utf-16-le").decode("latin-1")),
    "byte order mark": Bad("chain starts with a byte order mark", "\ufeff" + CHAIN),
    "byte order mark of key": Bad("key starts with a byte order mark", key="\ufeff" + KEY),
    "typographic dashes": Bad("key has characters that are not ASCII", key=KEY + "– –"),
    "CRLF": Bad("chain has CRLF", CHAIN.replace("\n", "\r\n")),
    "CRLF in key": Bad("key has CRLF", key=KEY.replace("\n", "\r\n")),
    "escaped line ends": Bad("chain has \\n written out", CHAIN.replace("\n", "\\n")),
    "JSON": Bad("key is PEM inside JSON", key='{"key": "' + KEY + '"}'),
    "JSON without PEM": Bad("key is not PEM but JSON", key='{"key": "none"}'),
    "no proper beginning": Bad("chain has no line -----BEGIN …-----", "-----BEGINNING-----\nx\n"),
    "path": Bad("chain is not PEM but where it would be found", "/etc/ssl/chain.pem"),
    "PuTTY": Bad("key is not PEM but a PuTTY key", key="PuTTY-User-Key-File-3: x\n"),
    "DER": Bad("chain is not PEM but DER", str(der(LEAF))),
    "DER key": Bad("key is not PEM but DER", key=DER_KEY.replace(b"\0", b"").decode("latin-1")),
    "base64 alone": Bad("chain is not PEM but its base64 alone", BODY),
    "base64 of nothing known": Bad("key is not PEM", key="c29tZXRoaW5n"),
    "PKCS #12": Bad("chain is not PEM but PKCS #12", base64.b64encode(CONTAINER).decode()),
    "PKCS #7": Bad(
        "chain is not PEM but PKCS #7",
        base64.b64encode(
            pkcs7.serialize_certificates([LEAF, CA], serialization.Encoding.DER)
        ).decode(),
    ),
    "PKCS #7 in PEM": Bad(
        "chain holds a pkcs7 block",
        pkcs7.serialize_certificates([LEAF, CA], serialization.Encoding.PEM).decode(),
    ),
    "beginning lost": Bad("its first lines are missing", CHAIN.partition("\n")[2].partition(
        "-----BEGIN")[0]),
    "end lost": Bad("chain has a block without its END line", CHAIN[:-40]),
    "key cut off": Bad("key has a block without its END line", key=KEY[:-40]),
    "wrong end": Bad("chain has a block whose END line is that of another", WRONG_END),
    "indented": Bad("chain has indented lines", CHAIN.replace("\n", "\n  ")),
    "empty line inside": Bad("key has an empty line inside", key=KEY.replace("\n", "\n\n", 2)),
    "blanks at line ends": Bad("key has blanks at line ends", key=KEY.replace("\n", " \n", 2)),
    "not base64": Bad("chain has a block with characters that", CHAIN.replace("MII", "M*I", 1)),
    "text around": Bad("chain has text outside", "Bag Attributes\n" + CHAIN),
    "text behind the key": Bad("key has text outside", key=KEY + "# mine\n"),
    "whole bytes": Bad(
        "certificate 1 of the chain is not base64 of whole bytes",
        CHAIN.replace(pem(LEAF).splitlines()[1], pem(LEAF).splitlines()[1][:-1]),
    ),
    "stray bits": Bad("key has stray bits", key=wrapped(b"0\x01x", "PRIVATE KEY").replace(
        "MAF4", "MAF=")),
}  # fmt: skip

BLOCKS = {
    "swapped": Bad("chain holds a private key", KEY, CHAIN),
    "chain twice": Bad("key holds a certificate", key=CHAIN),
    "key in the chain": Bad("chain has a private key behind", CHAIN + KEY),
    "two keys": Bad("key holds 2 private keys", key=KEY + pem(KEYS["other"])),
    "certificate behind the key": Bad("key has a certificate behind it", key=KEY + CHAIN),
    "parameters of the curve": Bad(
        "key has a block EC PARAMETERS beside it",
        key=openssl("ecparam", "-name", "prime256v1")
        + private(KEYS["leaf"], TRADITIONAL),
    ),
    "parameters of DH": Bad(
        "key has a block DH PARAMETERS beside it", key=KEY + wrapped(b"0\x03\x02\x01\x05",
                                                                    "DH PARAMETERS")),
    "parameters in the chain": Bad("chain holds a dh parameters block", CHAIN + wrapped(
        b"0\x03\x02\x01\x05", "DH PARAMETERS")),
    "request as chain": Bad("chain holds a certificate request block", REQUEST),
    "request as key": Bad("key holds a certificate request block", key=REQUEST),
    "public key": Bad("key holds a public key block", key=PUBLIC),
    "OpenSSH": Bad("key is an OpenSSH key", key=OPENSSH),
    "encrypted key": Bad("key is encrypted; store it", key=private(KEYS["leaf"], password=b"x")),
    "encrypted key of old": Bad(
        "key is encrypted (Proc-Type)", key=private(KEYS["leaf"], TRADITIONAL, b"x")
    ),
    "header lines": Bad("key has header lines inside", key=KEY.replace(
        "KEY-----\n", "KEY-----\nProc-Type: 4,CLEAR\n\n", 1)),
    "trusted certificate": Bad("chain holds a trusted certificate block", CHAIN.replace(
        " CERTIFICATE", " TRUSTED CERTIFICATE")),
    "damaged certificate": Bad("certificate 1 of the chain is", flipped(CHAIN)),
    "damaged key": Bad("key is damaged", key=wrapped(DER_KEY[:40] + b"\0" * 9 + DER_KEY[49:],
                                                     "PRIVATE KEY")),
    "frame of the signature": Bad("certificate 1 of the chain is damaged around its signature",
                                  framed_anew() + pem(CA)),
    "bytes behind the end": Bad("certificate 1 of the chain has 3 bytes behind", wrapped(
        der(LEAF) + b"xyz") + pem(CA)),
    "bytes missing": Bad("certificate 2 of the chain is cut off, 5 bytes", pem(LEAF) + wrapped(
        der(CA)[:-5])),
    "same twice": Bad("certificate 2 of the chain is certificate 1 again", pem(LEAF, LEAF, CA)),
    "too many": Bad("chain has 11 certificates, 10 are the most", pem(LEAF) + FOUR),
    "version 1": Bad("certificate 1 of the chain is of version 1", version_1()),
    "no such version": Bad("is of a version that does not exist", patched(
        LEAF, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07") + pem(CA)),
    "extension twice": Bad("has an extension twice", patched(
        TWO, b"\x86\x8d\x1f\x02", b"\x86\x8d\x1f\x01") + pem(CA)),
    "X.400 name": Bad("certificate 1 of the chain has a name that is neither", patched(
        LEAF, b"\x82\x0fsip.example.org", b"\xa3\x0fsip.example.org") + pem(CA)),
    "negative serial": Bad("certificate 1 of the chain has a serial number", patched(
        leaf(serial=0x55), b"\xa0\x03\x02\x01\x02\x02\x01\x55", b"\xa0\x03\x02\x01\x02\x02\x01\xd5",
        ) + pem(CA)),
}  # fmt: skip

KEYS_AND_SIGNATURES = {
    "key of another": Bad("key does not match leaf CN=sip", key=pem(KEYS["other"])),
    "RSA key for an EC leaf": Bad("key is RSA, that of leaf CN=sip is ECDSA", key=pem(LONG)),
    "short RSA": Bad("RSA key of CN=sip has 1024 bits", pem(leaf(key=SMALL), CA), pem(SMALL)),
    "short RSA above": Bad("RSA key of CN=ca has 1024 bits", below(authority(key=SMALL))),
    "long RSA": Bad("RSA key of CN=ca has 8676 bits, 8192 are the most", below(
        authority(key=huge()))),
    "exponent": Bad("RSA key of CN=sip has the exponent 3", pem(leaf(key=THREE), CA), pem(THREE)),
    "exponent above": Bad("RSA key of CN=ca has the exponent 3", below(authority(key=THREE))),
    "DSA": Bad("key is DSA, not RSA", pem(leaf(key=DSA), CA), pem(DSA)),
    "Ed448": Bad("key is Ed448, not RSA", pem(leaf(key=ED448), CA), pem(ED448)),
    "unknown kind": Bad("key is of a kind or curve that is not supported", key=wrapped(
        DER_KEY.replace(P256, UNKNOWN_CURVE), "PRIVATE KEY")),
    "unknown kind above": Bad("certificate 2 of the chain has a key of a kind or curve", pem(LEAF)
        + patched(CA, P256, UNKNOWN_CURVE)),
    "DSA above": Bad("key of CN=ca is DSA, not", below(authority(key=DSA))),
    "curve": Bad(
        "curve secp256k1 of CN=sip is none of", pem(leaf(key=OTHER_CURVE), CA), pem(OTHER_CURVE)
    ),
    "curve above": Bad("curve secp256k1 of CN=ca is none of", below(authority(key=OTHER_CURVE))),
    "SHA-1": Bad("CN=sip is signed with sha1", signed_with(5, "sip", "leaf", "ca") + pem(CA)),
    "SHA-1 above": Bad("CN=ca is signed with sha1", pem(LEAF) + signed_with(5, "ca", "ca", "root")),
    "MD5": Bad("CN=sip is signed with md5", signed_with(4, "sip", "leaf", "ca") + pem(CA)),
    "unknown signature": Bad("CN=sip is signed in a way", signed_with(99, "sip", "leaf", "ca")),
}  # fmt: skip

LEAVES = {
    "expired": Bad("CN=sip expired 20", pem(leaf(begins=NOW - 9 * DAY, ends=NOW - DAY), CA)),
    "ends before it begins": Bad("CN=sip ends before it begins", patched(
        LEAF, utc(LEAF.not_valid_before_utc) + utc(LEAF.not_valid_after_utc),
        utc(LEAF.not_valid_after_utc) + utc(LEAF.not_valid_before_utc)) + pem(CA)),
    "not yet valid": Bad("CN=sip is not valid before", pem(leaf(begins=NOW + DAY), CA)),
    "ends soon": Bad("in less than the 90 days", asked={"minimum_days": 90}),
    "CA first": Bad("CN=ca comes first but is a CA", pem(CA), pem(KEYS["ca"])),
    "precertificate": Bad("CN=sip is a precertificate", pem(
        leaf(more=[(x509.PrecertPoison(), True)]), CA)),
    "key usage": Bad("lacks key usage digitalSignature", pem(
        leaf(more=[(usage(key_encipherment=True), True)]), CA)),
    "for mail": Bad("lacks extended key usage serverAuth", pem(
        leaf(more=[(purposes(ExtendedKeyUsageOID.EMAIL_PROTECTION), False)]), CA)),
    "not for clients": Bad("lacks extended key usage clientAuth", pem(
        leaf(more=[(purposes(ExtendedKeyUsageOID.SERVER_AUTH), False)]), CA),
        asked={"usage": "both"}),
    "no such usage": Bad("usage is none of server", asked={"usage": "phone"}),
    "name missing": Bad("does not hold the name sip.example.net", asked={
        "dns_names": ["sip.example.org", "sip.example.net"]}),
    "wildcard too deep": Bad("a.b.voice.example.org (a wildcard stands for one label)", asked={
        "dns_names": ["a.b.voice.example.org"]}),
    "wildcard of itself": Bad("does not hold the name voice.example.org (a", asked={
        "dns_names": ["voice.example.org"]}),
    "no names at all": Bad("has no subject alternative names", pem(leaf(names=None), CA), asked={
        "dns_names": ["sip.example.org"]}),
    "address missing": Bad("does not hold the address 10.0.0.2", pem(
        leaf(addresses=["10.0.0.1"]), CA), asked={"addresses": ["10.0.0.1", "10.0.0.2"]}),
    "address among names": Bad("does not hold the address 10.0.0.3", asked={
        "dns_names": ["10.0.0.3"]}),
    "no address": Bad("sip.example.org is to be among the addresses but is none", asked={
        "addresses": ["sip.example.org"]}),
    "address as a name": Bad("does not hold the address 10.0.0.4", pem(
        leaf(names=["10.0.0.4"]), CA), asked={"addresses": ["10.0.0.4"]}),
    "star inside": Bad("has the wildcard 's*.example.org'", pem(
        leaf(names=["s*.example.org"]), CA)),
    "star deep": Bad("has the wildcard '*.*.example.org'", pem(
        leaf(names=["*.*.example.org"]), CA)),
    "star of a top level": Bad("has the wildcard '*.org'", pem(leaf(names=["*.org"]), CA)),
    "star alone": Bad("has the wildcard '*'", pem(leaf(names=["*"]), CA)),
    "address with a port": Bad("has 'sip.example.org:5061' among its names", pem(
        leaf(names=["sip.example.org:5061"]), CA)),
    "unknown critical extension": Bad("CN=sip has the critical extension 1.3.6.1.4.1.99999.1", pem(
        leaf(more=[(x509.UnrecognizedExtension(PRIVATE_OID, b"\x05\x00"), True)]), CA)),
    "name of two lines": Bad("does not match leaf CN=two\\nlines", pem(
        issue("two\nlines", KEYS["other"], "ca", KEYS["ca"], names=["a.example.org"]), CA)),
    "very long name": Bad("x…", pem(
        issue("x" * 4000, KEYS["other"], "ca", KEYS["ca"], names=["a.example.org"]), CA)),
}  # fmt: skip

CHAINS = {
    "leaf alone": Bad("chain is the leaf alone: CN=ca that issued it is missing", pem(LEAF)),
    "self-signed": Bad("CN=self is self-signed; where that is meant", pem(SELF)),
    "self-signed by another": Bad("CN=sip names itself as its issuer but did not", pem(
        issue("sip", KEYS["leaf"], "sip", KEYS["other"])), asked={"self_signed": True}),
    "self-signed with more": Bad("CN=self is a self-signed leaf, but more follows", pem(SELF, CA)),
    "root inside": Bad("CN=root is a self-signed root, but more follows", pem(LEAF, CA, ROOT,
                                                                            STRANGER)),
    "order": Bad("out of order: CN=sip was issued by certificate 3", pem(LEAF, ROOT, CA)),
    "reversed": Bad("CN=root comes first but is a CA", pem(ROOT, CA, LEAF), pem(KEYS["root"])),
    "one between missing": Bad("CN=root follows CN=sip but did not issue it; CN=ca is", pem(
        LEAF, ROOT)),
    "impostor": Bad("CN=sip was not signed by CN=ca that follows it", pem(
        LEAF, authority(key=KEYS["other"]))),
    "key identifiers": Bad("CN=sip names another key identifier than CN=ca", pem(
        leaf(more=[(OTHER_KEY_ID, False)]), authority(more=[(KEY_ID, False)]))),
    "issuer is no CA": Bad("CN=ca is no CA but stands as an issuer", below(authority(ca=False))),
    "issuer may not sign": Bad("CN=ca lacks key usage keyCertSign", below(
        authority(more=[(usage(digital_signature=True), True)]))),
    "issuer for mail": Bad("CN=ca may issue for other purposes than TLS", below(
        authority(more=[(purposes(ExtendedKeyUsageOID.EMAIL_PROTECTION), False)]))),
    "issuer expired": Bad("intermediate CN=ca has expired", below(
        authority(begins=NOW - 9 * DAY, ends=NOW - DAY))),
    "issuer not yet valid": Bad("intermediate CN=ca is not valid before", below(
        authority(begins=NOW + DAY))),
    "issuer's unknown extension": Bad("CN=ca has the critical extension", below(
        authority(more=[(x509.UnrecognizedExtension(PRIVATE_OID, b"\x05\x00"), True)]))),
    "root at the end": Bad("the chain ends in a root", pem(LEAF, CA, ROOT)),
    "too deep": Bad("CN=ca allows 0 intermediates below it, the chain has 1", pem(
        issue("sip", KEYS["leaf"], "middle", KEYS["other"]), MIDDLE, authority(path_length=0))),
    "names not permitted": Bad("name constraints of CN=ca do not allow sip.example.org", below(
        limited(permitted_subtrees=[x509.DNSName("example.net")]))),
    "names excluded": Bad("name constraints of CN=ca do not allow *.voice.example.org", below(
        limited(excluded_subtrees=[x509.DNSName("voice.example.org")]))),
    "not of the authority": Bad("CN=root that issued CN=ca is neither in the chain nor", asked={
        "authority": pem(issue("root", KEYS["other"], "root", KEYS["other"], ca=True))}),
    "leaf alone, not of the authority": Bad("CN=ca that issued CN=sip is neither in", pem(LEAF),
                                            asked={"authority": pem(ROOT)}),
    "not of the system": Bad("is neither in the chain nor among this system", asked={
        "authority": "system"}),
    "authority is none": Bad("authority holds no certificates in PEM", asked={
        "authority": "example"}),
}  # fmt: skip

BAD = {**TEXT, **BLOCKS, **KEYS_AND_SIGNATURES, **LEAVES, **CHAINS}
