"""Which certificate each TLS socket of an OpenSIPS must serve, told from its table of domains."""

from __future__ import annotations

import ssl

CLIENT, SERVER = 1, 2  # documentation of tls_mgm, column `type`
ANY = ("*", "")
PROBE = "probe"  # stands for the star of a name like *.example.org


def pairs(rows: list[dict]) -> list[dict]:
    """Return ``{"domain", "certificate", "private_key"}`` of the domains that have one."""
    return [
        {name: str(row.get(name) or "") for name in ("domain", "certificate", "private_key")}
        for row in rows
        if row.get("certificate") or row["type"] == SERVER
    ]


def check_ciphers(rows: list[dict]) -> None:
    """Raise ``ValueError`` for a list of ciphers that names none OpenSSL has."""
    for row in rows:
        if row.get("cipher_list"):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(str(row["cipher_list"]))
            except (ssl.SSLError, ValueError):
                raise ValueError(
                    f"pillar opensips:tls:{row['domain']}:ciphers names none that OpenSSL has"
                ) from None


def expected(rows: list[dict], sockets: list[tuple[str, int]]) -> list[dict]:
    """Return what each handshake must bring, for every server domain and TLS socket it stands for.

    ``{"domain", "address", "port", "server_name", "certificate"}``; ``server_name`` is None where
    the domain takes who names nobody.
    """
    return [
        {
            "domain": row["domain"],
            "address": address,
            "port": port,
            "server_name": _name(row.get("match_sip_domain")),
            "certificate": row.get("certificate") or "",
        }
        for row in rows
        if row["type"] == SERVER
        for address, port in sockets
        if _covers(row.get("match_ip_address"), address, port)
    ]


def _covers(filters: str | None, address: str, port: int) -> bool:
    found = [one.strip() for one in str(filters or "*").split(",")]
    return "*" in found or f"{address}:{port}" in found or address in found


def _name(filters: str | None) -> str | None:
    names = [one.strip() for one in str(filters or "*").split(",")]
    named = [name for name in names if name not in ANY]
    if len(named) < len(names):
        return None
    return named[0].replace("*", PROBE, 1)
