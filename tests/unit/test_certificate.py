"""No bundle that a server or a caller would stumble over reaches the disk; a failure costs none."""

import datetime
import errno
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID
from salt.exceptions import CommandExecutionError

from tests.support.loading import load

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
certificate = load("_modules/certificate.py", __salt__={})


def subject(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def issue(name, key, issuer, signer, **settings):
    """One certificate; ``settings`` may hold ca, names, begins, ends, digest."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(settings.get("begins", NOW - DAY))
        .not_valid_after(settings.get("ends", NOW + 30 * DAY))
        .add_extension(x509.BasicConstraints(settings.get("ca", False), None), critical=True)
    )
    if names := settings.get("names"):
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(signer, settings.get("digest", hashes.SHA256()))


def pem(*things):
    return "".join(_pem(thing) for thing in things)


def _pem(thing):
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return _private(thing, serialization.NoEncryption())


def _private(key, encryption):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("leaf", "ca", "root", "other")}
NAMES = ["sip.example.org", "*.voice.example.org"]


def leaf_of(**settings):
    key = settings.pop("key", KEYS["leaf"])
    return issue("sip", key, "ca", KEYS["ca"], **{"names": NAMES, **settings})


CA = issue("ca", KEYS["ca"], "root", KEYS["root"], ca=True)
ROOT = issue("root", KEYS["root"], "root", KEYS["root"], ca=True)
LEAF = leaf_of()
GOOD = {"chain": pem(LEAF, CA), "key": pem(KEYS["leaf"])}
small = rsa.generate_private_key(65537, 1024)
odd = dsa.generate_private_key(2048)
long = rsa.generate_private_key(65537, 2048)


@pytest.fixture
def shelf(tmp_path):
    """A directory for certificates and a `deploy` whose pillar holds a given bundle."""

    class Shelf:
        directory = tmp_path / "tls"
        home = directory / "default"

        def deploy(self, bundle, **keywords):
            certificate.__salt__ = {"pillar.get": lambda key, default, unmask: bundle}
            return certificate.deploy("default", directory=str(self.directory), **keywords)

        def tree(self):
            return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    return Shelf()


def flipped(text):
    """Damage the body of the first block, so that it is still PEM."""
    lines = text.splitlines()
    lines[2] = "".join("B" if char == "A" else "A" for char in lines[2])
    return "\n".join(lines) + "\n"


BAD = {
    "nothing": ("", pem(KEYS["leaf"]), "chain is empty"),
    "placeholder of a masked pillar": ("**********", pem(KEYS["leaf"]), "placeholder"),
    "failed secret": (GOOD["chain"], "False", "key holds a placeholder"),
    "no PEM": ("nonsense", pem(KEYS["leaf"]), "chain is not PEM"),
    "DER": (str(LEAF.public_bytes(serialization.Encoding.DER)), GOOD["key"], "is not PEM"),
    "CRLF": (GOOD["chain"].replace("\n", "\r\n"), GOOD["key"], "CRLF"),
    "text around": ("Bag Attributes\n" + GOOD["chain"], GOOD["key"], "bytes outside"),
    "swapped": (GOOD["key"], GOOD["chain"], "chain holds a private key"),
    "chain twice": (GOOD["chain"], GOOD["chain"], "key holds a certificate"),
    "two keys": (GOOD["chain"], GOOD["key"] * 2, "not one private key"),
    "request as key": (
        GOOD["chain"],
        GOOD["key"].replace("PRIVATE KEY", "CERTIFICATE REQUEST"),
        "not one private key",
    ),
    "encrypted key": (
        GOOD["chain"],
        _private(KEYS["leaf"], serialization.BestAvailableEncryption(b"x")),
        "key is encrypted",
    ),
    "damaged certificate": (flipped(pem(LEAF)) + pem(CA), GOOD["key"], "1 of the chain is damaged"),
    "damaged key": (GOOD["chain"], flipped(GOOD["key"]), "key"),
    "key of another": (GOOD["chain"], pem(KEYS["other"]), "key does not match leaf CN=sip"),
    "short RSA": (pem(leaf_of(key=small)), pem(small), "1024 bits"),
    "DSA": (pem(leaf_of(key=odd)), pem(odd), "neither RSA"),
    "expired": (
        pem(leaf_of(begins=NOW - 9 * DAY, ends=NOW - DAY), CA), GOOD["key"], "CN=sip expired"
    ),
    "not yet valid": (pem(leaf_of(begins=NOW + DAY), CA), GOOD["key"], "not valid before"),
    "CA first": (pem(CA, LEAF), pem(KEYS["ca"]), "put the leaf first"),
    "wrong order": (pem(LEAF, ROOT, CA), GOOD["key"], "did not issue it"),
    "impostor": (
        pem(LEAF, issue("ca", KEYS["other"], "root", KEYS["root"], ca=True)),
        GOOD["key"],
        "was not signed by CN=ca",
    ),
    "issuer is no CA": (
        pem(LEAF, issue("ca", KEYS["ca"], "root", KEYS["root"])), GOOD["key"], "is no CA"
    ),
    "intermediate expired": (
        pem(LEAF, issue("ca", KEYS["ca"], "root", KEYS["root"], ca=True,
                        begins=NOW - 9 * DAY, ends=NOW - DAY)),
        GOOD["key"],
        "intermediate CN=ca has expired",
    ),
    "with root": (pem(LEAF, CA, ROOT), GOOD["key"], "ends in a root"),
    "name missing": (pem(leaf_of(names=["other.example.org"]), CA), GOOD["key"], "does not hold"),
    "no names at all": (pem(leaf_of(names=None), CA), GOOD["key"], "does not hold the name"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_bundle_is_one_line_without_a_secret_and_writes_nothing(shelf, fault):
    chain, key, told = BAD[fault]
    with pytest.raises(CommandExecutionError) as caught:
        shelf.deploy({"chain": chain, "key": key}, dns_names=["sip.example.org"])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    body = [line for line in key.splitlines() if line and not line.startswith("-----")]
    assert not any(len(line) > 20 and line in str(caught.value) for line in body)
    assert shelf.tree() == []


@pytest.mark.parametrize("bundle", [None, {}, {"chain": "x"}, "text", []])
def test_pillar_without_a_bundle(shelf, bundle):
    with pytest.raises(CommandExecutionError, match="certificates:default must hold chain and key"):
        shelf.deploy(bundle)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".hidden", "x y", "-x"])
def test_name_stays_below_the_directory(name):
    with pytest.raises(CommandExecutionError, match="may hold only"):
        certificate.inspect(name)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("sip.example.org", "SIP.example.org", True),
        ("*.example.org", "sip.example.org", True),
        ("*.example.org", "a.sip.example.org", False),
        ("*.example.org", "example.org", False),
    ],
)
def test_names_a_pattern_covers(pattern, name, covered):
    assert certificate._covers(pattern, name) is covered


def test_life_of_a_bundle(shelf):
    predicted = shelf.deploy(GOOD, test=True)
    assert predicted["result"] is None
    assert shelf.tree() == []
    done = shelf.deploy(GOOD)
    assert done["result"] is True
    assert done["changes"] == predicted["changes"]
    live = shelf.home / "current"
    assert (live / "key.pem").read_text() == GOOD["key"]
    assert (live / "key.pem").stat().st_mode & 0o777 == 0o600
    assert GOOD["key"].splitlines()[1] not in str(done)
    assert shelf.deploy(GOOD) == {**done, "changes": {}, "comment": shelf.deploy(GOOD)["comment"]}
    assert shelf.deploy(GOOD, test=True)["result"] is True
    renewed = shelf.deploy({"chain": pem(leaf_of(), CA), "key": GOOD["key"]})
    assert renewed["changes"]["certificate"]["old"] == done["changes"]["certificate"]["new"]


def test_rsa_and_a_leaf_alone_are_fine(shelf):
    bundle = {"chain": pem(leaf_of(key=long)), "key": pem(long)}
    assert shelf.deploy(bundle, dns_names=["a.voice.example.org"])["result"] is True


def test_error_names_what_is_still_served(shelf):
    serial = shelf.deploy(GOOD)["changes"]["certificate"]["new"]["serial"]
    with pytest.raises(CommandExecutionError, match=f"kept serial {serial}"):
        shelf.deploy({"chain": GOOD["chain"], "key": pem(KEYS["other"])})


def test_damaged_live_copy_is_replaced_by_a_flip(shelf):
    shelf.deploy(GOOD)
    before = (shelf.home / "current").resolve()
    (before / "key.pem").write_text("damaged")
    shelf.deploy(GOOD)
    assert (shelf.home / "current" / "key.pem").read_text() == GOOD["key"]
    assert (shelf.home / "current").resolve() != before
    assert before.exists(), "whoever has it open keeps it until it is pruned"


def test_few_versions_are_kept_and_the_live_one_always(shelf):
    for _ in range(6):
        shelf.deploy({"chain": pem(leaf_of(), CA), "key": GOOD["key"]})
    versions = [path for path in shelf.home.iterdir() if not path.is_symlink()]
    assert len(versions) == certificate.KEPT
    assert (shelf.home / "current").resolve() in versions


@pytest.mark.parametrize(
    ("owner", "call"),
    [(os, "open"), (os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "symlink_to"),
     (Path, "replace")],
)  # fmt: skip
def test_full_disk_at_any_step_keeps_the_old_one_and_leaves_no_trace(
    shelf, monkeypatch, owner, call
):
    shelf.deploy(GOOD)
    before = shelf.tree()

    really = getattr(owner, call)
    faults = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def full_once(*arguments, **keywords):
        if faults:
            raise faults.pop()
        return really(*arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(owner, call, full_once)
        with pytest.raises(CommandExecutionError, match="No space left on device; the old one is"):
            shelf.deploy({"chain": pem(leaf_of(), CA), "key": GOOD["key"]})
    assert shelf.tree() == before
    assert (shelf.home / "current" / "key.pem").read_text() == GOOD["key"]


def test_what_a_crash_left_is_no_obstacle(shelf):
    shelf.deploy(GOOD)
    (shelf.home / ".current.unfinished").symlink_to("nowhere")
    fresh = leaf_of()
    version = fresh.fingerprint(hashes.SHA256()).hex()[:16]
    (shelf.home / f".{version}.unfinished").mkdir()
    shelf.deploy({"chain": pem(fresh, CA), "key": GOOD["key"]})
    assert certificate.inspect("default", str(shelf.directory))["version"] == version
    assert not list(shelf.home.glob(".*"))


def test_inspect_tells_absent_from_damaged(shelf):
    assert certificate.inspect("default", str(shelf.directory)) is None
    shelf.deploy(GOOD)
    (shelf.home / "current" / "chain.pem").write_text("damaged")
    with pytest.raises(CommandExecutionError, match=r"is no certificate; apply the state again"):
        certificate.inspect("default", str(shelf.directory))


def test_layout_of_freeswitch(shelf):
    """It sends the leaf from agent.pem and the intermediates from cafile.pem."""
    answer = shelf.deploy(GOOD, layout="sofia")
    live = shelf.home / "current"
    leaf, issuer, key = pem(LEAF), pem(CA), pem(KEYS["leaf"])
    assert (live / "agent.pem").read_text() == leaf + key
    assert (live / "cafile.pem").read_text() == issuer
    assert (live / "wss.pem").read_text() == leaf + issuer + key
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in live.resolve().iterdir())
    assert "PRIVATE" not in str(answer)
    assert shelf.deploy(GOOD, layout="sofia")["changes"] == {}


def test_without_intermediates_the_leaf_stands_in(shelf):
    """With no cafile.pem FreeSWITCH makes up a certificate of its own and serves that."""
    alone = {"chain": pem(LEAF), "key": GOOD["key"]}
    shelf.deploy(alone, layout="sofia")
    assert (shelf.home / "current/cafile.pem").read_text() == pem(LEAF)


def test_unknown_layout_and_owner_change_nothing(shelf):
    bad = (({"layout": "x"}, "plain or sofia"), ({"owner": "nobody-here"}, "no user"))
    for keywords, told in bad:
        with pytest.raises(CommandExecutionError, match=told):
            shelf.deploy(GOOD, **keywords)
    assert not (shelf.home / "current").exists()


def test_directory_tells_the_certificate_before_and_after_it_is_there(shelf):
    def directories(bundle):
        found = {"certificates": {"default": bundle}, "certificates:default": bundle}
        certificate.__salt__ = {"pillar.get": lambda key, default=None, unmask=False: found[key]}
        return certificate.directories(str(shelf.directory))

    before = directories(GOOD)
    shelf.deploy(GOOD)
    assert directories(GOOD) == before == {"default": str((shelf.home / "current").resolve())}
    renewed = {"chain": pem(leaf_of(), CA), "key": GOOD["key"]}
    assert directories(renewed) != before
    assert directories({"chain": "junk", "key": "junk"}) == before, "what is live stays"
