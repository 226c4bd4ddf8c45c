"""A real ACME server on loopback, Debian's Pebble, and the names it looks up."""

from __future__ import annotations

import contextlib
import copy
import datetime
import ipaddress
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import salt.config
import salt.loader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.loading import REPOSITORY
from tests.support.ports import free_ports
from tests.support.region import until

_A, _TXT, _IN = 1, 16, 1
_DAY = datetime.timedelta(days=1)


class Names:
    """A DNS server for which every name is this host, with the TXT records somebody gives."""

    def __init__(self, texts: Callable[[str], Iterable[str]]) -> None:
        self._texts = texts
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, client = self._socket.recvfrom(4096)
                self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind, _ = struct.unpack_from("!HH", query, at + 1)
        values: list[bytes] = []
        if kind == _A:
            values = [socket.inet_aton("127.0.0.1")]
        elif kind == _TXT:
            texts = self._texts(".".join(labels))
            values = [bytes([len(text)]) + text.encode() for text in texts]
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, _IN, 0, len(value)) + value for value in values
        )
        header = query[:2] + struct.pack("!HHHHH", 0x8580, 1, len(values), 0, 0)
        return header + query[12 : at + 5] + records


class Pebble:
    """The server: `url` of its directory, `ca` that proves it, `port` where it asks for proofs."""

    def __init__(self, root: Path, names: Names, **flags: object) -> None:
        self.root = root
        self._names, self._flags = names, flags
        self._listens = free_ports(3)
        self.port = self._listens + 2
        self.url = f"https://127.0.0.1:{self._listens}/dir"
        self.ca = root / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None
        _self_signed(root)

    def start(self) -> None:
        listen = f"127.0.0.1:{self._listens}"
        config = {
            "listenAddress": listen,
            "managementListenAddress": f"127.0.0.1:{self._listens + 1}",
            "certificate": str(self.ca),
            "privateKey": str(self.root / "ca.key"),
            "httpPort": self.port,
            "tlsPort": self.port,
            "externalAccountBindingRequired": False,
            "domainBlocklist": ["blocked.example"],
        }
        if binding := self._flags.get("binding"):
            config |= {"externalAccountBindingRequired": True, "externalAccountMACKeys": binding}
        (self.root / "pebble.json").write_text(json.dumps({"pebble": config}))
        quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        flags = {f"PEBBLE_{key}": str(value) for key, value in self._flags.items() if key.isupper()}
        with (self.root / "pebble.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["pebble", "-config", self.root / "pebble.json", "-dnsserver", self._names.address],
                stdout=log,
                stderr=log,
                env={**os.environ, **quick, **flags},
            )
        until(lambda: self._get(self.url), "Pebble", seconds=10)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.root / "pebble.log").read_text()

    def authority(self, number: int = 0) -> str:
        """The root that a chain ends with, in PEM; it is another after each start."""
        return self._get(f"https://127.0.0.1:{self._listens + 1}/roots/{number}").decode()

    def _get(self, url: str) -> bytes:
        trusted = ssl.create_default_context(cafile=str(self.ca))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        try:
            with opener.open(url, timeout=5) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.URLError:
            return b""


@contextmanager
def pebble(
    root: Path, texts: Callable[[str], Iterable[str]] = lambda name: (), **flags: object
) -> Iterator[Pebble]:
    """A started server; flags in capitals are Pebble's own, without its prefix."""
    root.mkdir(parents=True, exist_ok=True)
    names = Names(texts)
    server = Pebble(root, names, **flags)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        names.close()


class Master:
    """A master whose configuration wants one certificate, `default`, and its runner."""

    def __init__(self, root: Path, ca: Pebble) -> None:
        self.root = root
        self.options: dict[str, Any] = {}  # more of its configuration
        self.file = root / "stored" / "default.json"
        self.wanted: dict[str, Any] = {
            "names": ["pbx.example.net"],
            "challenge": {"standalone": {"address": "127.0.0.1", "port": ca.port}},
            "store": {"file": str(self.file)},
            "key": "ec-p256",
        }
        self.acme: dict[str, Any] = {
            "directory": ca.url,
            "terms_agreed": True,
            "contact": ["voice@example.net"],
            "state": str(root / "acme"),
            "ca": str(ca.ca),
            "timeout": 20,
            "certificates": {"default": self.wanted},
        }

    def run(self, function: str, *arguments: str) -> dict[str, Any]:
        """What `salt-run acme.<function>` returns."""
        opts = copy.deepcopy(dict(salt.config.DEFAULT_MASTER_OPTS))
        opts.update(
            root_dir=str(self.root),
            sock_dir=str(self.root),
            cachedir=str(self.root / "cache"),
            extension_modules=str(self.root / "extmods"),
            runner_dirs=[str(REPOSITORY / "_runners")],
            utils_dirs=[str(REPOSITORY / "_utils")],
            acme=copy.deepcopy(self.acme),
            **self.options,
        )
        self.context: dict[str, Any] = {}
        runners = salt.loader.runner(opts, utils=salt.loader.utils(opts), context=self.context)
        told: dict[str, Any] = runners[f"acme.{function}"](*arguments)
        return told

    def stored(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.file.read_text())
        return found


def _self_signed(root: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    pem = serialization.Encoding.PEM
    (root / "ca.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (root / "ca.key").write_bytes(private)
