"""Certificates on disk, and what a socket shows of them."""

import hashlib
import re
import ssl
import subprocess
from pathlib import Path

from tests.support.phone import TlsPhone

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _self_signed(work: Path) -> tuple[str, str]:
    _openssl("req", "-x509", *_EC, "-days", "2", "-subj", "/CN=127.0.0.1",
             "-keyout", work / "key", "-out", work / "certificate")  # fmt: skip
    return (work / "certificate").read_text(), (work / "key").read_text()


def write(file: Path, *, mismatched: bool = False) -> str:
    """Put a new certificate with its key (or another's) in place; return its fingerprint."""
    file.parent.mkdir(exist_ok=True)
    work = file.parent.parent
    text, key = _self_signed(work)
    if mismatched:
        _, key = _self_signed(work)
    file.write_text(text + key)
    return fingerprint(text)


def chain(work: Path) -> tuple[str, str, str]:
    """A leaf, its key, and the intermediate between it and a root."""
    for name, signer, extension in (
        ("root", "", "basicConstraints=critical,CA:TRUE"),
        ("between", "root", "basicConstraints=critical,CA:TRUE"),
        ("leaf", "between", "basicConstraints=CA:FALSE"),
    ):
        key, request, out = (work / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        _openssl("req", *_EC, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        (work / "extension").write_text(extension)
        signing = ("-CA", work / f"{signer}.crt", "-CAkey", work / f"{signer}.key",
                   "-CAcreateserial") if signer else ("-signkey", key)  # fmt: skip
        _openssl("x509", "-req", "-in", request, *signing, "-days", "2",
                 "-extfile", work / "extension", "-out", out)  # fmt: skip
    leaf, key, between = ((work / n).read_text() for n in ("leaf.crt", "leaf.key", "between.crt"))
    return leaf, key, between


def fingerprint(pem: str) -> str:
    """SHA-256 of the first certificate, as SDP writes it."""
    first = re.search(r"-----BEGIN CERT.+?-----END CERTIFICATE-----\n", pem, re.DOTALL)
    return _digest(ssl.PEM_cert_to_DER_cert(first[0]))


def _digest(der: bytes) -> str:
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, 64, 2))


def served(port: int) -> str | None:
    """The fingerprint that a new connection is shown, None when the handshake fails."""
    try:
        with TlsPhone(("127.0.0.1", port)) as phone:
            return _digest(phone.peer)
    except ssl.SSLError as err:
        assert "handshake failure" in str(err)  # not that we asked for what it cannot speak
        return None


def names_served(port: int) -> list[str]:
    """The subjects of the chain that is sent."""
    ran = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts"],
        input=b"", capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    return re.findall(r" s:.*CN = (\w+)", ran.stdout.decode())
