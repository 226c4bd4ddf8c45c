"""Which sockets of a node serve which certificate, told from its pillar alone."""

from __future__ import annotations

import datetime
import re

DIRECTORY, SOFIA_DIRECTORY = "/etc/voice/tls", "/etc/voice/sofia"
HERE = "127.0.0.1"
SERVER = 2  # of opensips_tls
_KEYS = {"address", "port", "server_name", "certificate"}
_SOCKET = re.compile(r"(?P<address>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")


def parse(given: str | dict, certificate: str | None = None, directory: str | None = None) -> dict:
    """Return a socket and what it should serve.

    ``{"address", "port", "server_name", "certificate", "directory", "place"}``; ``place`` is for
    people. It is given as ``address:port`` or as a mapping, of which only ``port`` must be there.
    Raises ``ValueError`` with one line.
    """
    if isinstance(given, str):
        match = _SOCKET.fullmatch(given)
        if match is None:
            raise ValueError(f"served {given!r} is not address:port, as in 127.0.0.1:443")
        given = {"address": match["address"].strip("[]"), "port": int(match["port"])}
    if not isinstance(given, dict) or set(given) - _KEYS:
        raise ValueError(f"served must be address:port, or a mapping of {', '.join(sorted(_KEYS))}")
    port = given.get("port")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError("served needs a port between 1 and 65535")
    address, name = given.get("address") or HERE, given.get("server_name")
    return {
        "address": address,
        "port": port,
        "server_name": name,
        "certificate": certificate or given.get("certificate"),
        "directory": directory,
        "place": f"{address}:{port}" + (f" ({name})" if name else ""),
    }


def named(pillar: dict) -> list[dict]:
    """Return the sockets that pillar ``certificates`` names for each; ``ValueError``."""
    return [
        parse(one, name, bundle.get("directory") or DIRECTORY)
        for name, bundle in (pillar.get("certificates") or {}).items()
        for one in bundle.get("served") or ()
    ]


def freeswitch(pillar: dict) -> list[dict]:
    """Return the TLS and WSS sockets of FreeSWITCH's profiles."""
    daemon = pillar.get("freeswitch") or {}
    directory = daemon.get("tls_directory") or SOFIA_DIRECTORY
    return [
        parse(
            {"address": _own(pillar), "port": profile[kind]["port"]},
            profile.get("certificate"),
            directory,
        )
        for profile in (daemon.get("profiles") or {}).values()
        for kind in ("tls", "wss")
        if profile.get(kind)
    ]


def opensips(pillar: dict) -> tuple[list[dict], list[tuple[str, int]]]:
    """Return OpenSIPS's TLS domains and sockets, as ``opensips_tls.expected`` takes them."""
    daemon = pillar.get("opensips") or {}
    rows = [
        {
            "domain": name,
            "type": SERVER,
            "match_ip_address": ",".join(domain.get("addresses") or ["*"]),
            "match_sip_domain": ",".join(domain.get("names") or ["*"]),
            "certificate": domain["certificate"],
        }
        for name, domain in sorted((daemon.get("tls") or {}).items())
        if domain.get("side", "server") == "server"
    ]
    listening = [
        (one.get("address") or _own(pillar), one["port"])
        for one in daemon.get("sockets") or ()
        if one["proto"] in ("tls", "wss")
    ]
    return rows, listening


def worth_telling(found: list[dict], days: int, now: datetime.datetime) -> list[dict]:
    """Return those that have a ``problem`` or end within ``days``, with ``days_left``."""
    told = []
    for one in found:
        kept = ("name", "where", "place", "problem", "not_after", "serial")
        event = {key: one[key] for key in kept if key in one}
        if "not_after" in one:
            event["days_left"] = (datetime.datetime.fromisoformat(one["not_after"]) - now).days
        if "problem" in event or event["days_left"] < days:
            told.append(event)
    return told


def _own(pillar: dict) -> str:
    """Return the node's address; a pillar that failed to compile has none."""
    return (pillar.get("node") or {}).get("address") or HERE
