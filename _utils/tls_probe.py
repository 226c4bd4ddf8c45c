"""Ask a TLS socket which certificate it serves."""

from __future__ import annotations

import concurrent.futures
import socket
import ssl


def served(host: str, port: int, server_name: str | None = None, timeout: float = 5.0) -> str:
    """Return the certificate (PEM) that a TLS socket serves to who asks for ``server_name``.

    Nobody is trusted or refused. Raises ``OSError`` with one line if no handshake succeeds.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, int(port)), float(timeout)) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as link,
        ):
            found = link.getpeercert(binary_form=True)
    except (OSError, ValueError, OverflowError) as err:
        reason = getattr(err, "reason", None) or getattr(err, "strerror", None) or "no handshake"
        raise OSError(f"{host}:{port} serves no certificate: {reason}") from None
    return ssl.DER_cert_to_PEM_cert(found or b"")


def all_served(sockets: list[dict], timeout: float = 5.0) -> list[dict]:
    """Look at many sockets at once; return ``{"pem"}`` or ``{"problem"}`` of each, in their order.

    A socket is ``{"address", "port", "server_name"}``, which a problem does not repeat.
    """

    def looked_at(one: dict) -> dict:
        try:
            return {"pem": served(one["address"], one["port"], one["server_name"], timeout)}
        except OSError as err:
            return {"problem": str(err).removeprefix(f"{one['address']}:{one['port']} ")}

    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(looked_at, sockets))
