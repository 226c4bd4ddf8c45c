"""Certificates of a lab's nodes, rotated as an operator would: in pillar, then `state.apply`."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab import network
from lab.calls import Calls
from lab.names import HUB_ADDRESS, REPOSITORY, WORKSPACE
from lab.region import Region
from tests.functional.certificates.authority import NAME, Authority, Bundle
from tests.functional.certificates.held_calls import Kind, holding
from tests.functional.freeswitch.fs_places import entered
from tests.lab.scenarios import failed_states

TLS_PORT, ECHO = 5061, "9196"
HELD, RATE = 20, 2.0


class Rotated(Region):
    """A lab whose pillar is a copy of the repository's, its proxy with a socket for TLS."""

    def __init__(self, name: str) -> None:
        # What every host sees read-only, and this process may write.
        super().__init__(name, {"pillar_roots": {"base": ["/srv/guardian-lab/pillar"]}})
        self._pillar = self.names.share / "pillar"
        self._workspace = self._pillar / "workspaces" / f"{WORKSPACE}.sls"

    def begin(self, bundle: Bundle) -> None:
        """Give it a pillar with this certificate, then bring it up."""
        shutil.rmtree(self._pillar, ignore_errors=True)
        shutil.copytree(REPOSITORY / "pillar", self._pillar)
        self._given = yaml.safe_load(self._workspace.read_text())
        self.give(bundle)
        self.up()

    def give(self, bundle: Bundle) -> None:
        """Have the dummies of its secrets be this certificate."""
        pillar = dict(self._given)
        pillar["certificates"] = {"default": {"dns_names": [NAME], "self_signed": False}}
        pillar["secrets"] = {
            "certificate-default-chain": {"dummy": bundle.chain},
            "certificate-default-key": {"dummy": bundle.key},
        }
        sockets = [{"proto": "udp", "port": 5060}, {"proto": "tls", "port": TLS_PORT}]
        served = {"sockets": sockets, "tls": {"inside": {"certificate": "default"}}}
        pillar["opensips"] = {**pillar.get("opensips", {}), **served}
        made = self._workspace.with_suffix(".new")
        made.write_text(yaml.safe_dump(pillar))
        made.replace(self._workspace)

    def shown(self) -> str:
        """The fingerprint that the proxy's TLS socket shows to who calls from the hub."""
        command = (
            f"openssl s_client -connect {self.proxy_address}:{TLS_PORT} -servername {NAME}"
            " </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        )
        done = subprocess.run(
            ["ip", "netns", "exec", self.names.hub, "sh", "-c", command],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return done.stdout.partition("=")[2].strip().replace(":", "").lower()

    @contextlib.contextmanager
    def hub(self) -> Iterator[None]:
        """Have this thread work in the hub's network."""
        handle = os.open(network.NAMESPACES / self.names.hub, os.O_RDONLY)
        try:
            with entered(handle):
                yield
        finally:
            os.close(handle)


@dataclass
class Figures:
    """What became of rotations and calls; lists are of lines, one for each thing gone wrong."""

    rotations: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    calls: dict[str, Any] = field(default_factory=dict)


def rotate(region: Rotated, authority: Authority, rotations: int) -> Figures:
    """Rotate the certificate on every node so many times, under calls over UDP and TLS."""
    got = Figures()
    server = (region.proxy_address, TLS_PORT)
    over_tls = Kind("tls", server, "TLS", ECHO, address=HUB_ADDRESS, inside=region.hub)
    calls = Calls(region.names, region.proxy_address, held=HELD, rate=RATE, number=ECHO)
    with calls, holding([over_tls], each=5) as held:
        for number in range(1, rotations + 1):
            when, bundle = f"rotation {number}", authority.bundle()
            region.give(bundle)
            began = time.monotonic()
            returned = region.salt("*", "state.apply", timeout=120)
            got.seconds.append(round(time.monotonic() - began, 1))
            for node, states in returned.items():
                failed = failed_states(states) if isinstance(states, dict) else {"pillar": states}
                got.failed += [f"{node}, {when}: {told}" for told in failed.values()]
            seen = {"served": region.shown()}
            for node, found in region.salt("*", "certificate.inspect", "default").items():
                seen[node] = (found or {}).get("fingerprint", "none")
            got.wrong += [
                f"{name}, {when}: {one[:16]}"
                for name, one in seen.items()
                if one != bundle.fingerprint
            ]
            held.prove(when)
            held.renew(bundle.fingerprint, when)
            got.rotations = number
        held.hang_up()
        got.lost += held.lost
        got.wrong += held.wrong
        made = held.made
    counts = calls.counts()
    got.calls = {
        "over_tls": made, "held": counts.held, "new": counts.new_calls,
        "dropped": counts.dropped, "failed": counts.failed,
    }  # fmt: skip
    return got
