"""Certificate files: PEM with a key behind it, as FreeSWITCH keeps them."""

import contextlib
import hashlib
import re
import ssl
import subprocess
from pathlib import Path

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----\n", re.DOTALL)


def make(path: Path) -> None:
    """Write a self-signed certificate where there is no file yet; OSError when that fails."""
    if not path.exists():
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
                 "-subj", "/C=US/CN=FreeSWITCH", "-keyout", path, "-out", path],
                check=True, capture_output=True,
            )  # fmt: skip
        if not path.exists():
            raise FileNotFoundError(f"cannot write {path}")


def leaf(path: Path) -> str:
    """The first certificate of a file, empty when it has none or is not there."""
    try:
        found = _CERTIFICATE.search(path.read_text(errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def leaf_and_key(path: Path) -> str:
    """A file without the certificates behind its first."""
    key = _KEY.search(path.read_text(errors="replace"))
    return leaf(path) + (key[0] if key else "")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's certificate as SDP writes it; empty when there is none."""
    with contextlib.suppress(ValueError):
        if text := leaf(path):
            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest().upper()
            return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
    return ""
