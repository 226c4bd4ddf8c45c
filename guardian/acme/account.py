"""Our account at a CA: a key that is made once, and a connection that signs with it."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import josepy.jwa
import josepy.jwk
import requests
import tenacity
from acme import client, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guardian.acme.bundle import AcmeError
from guardian.acme.config import Config
from guardian.acme.stores import read_private, write_private

_ANSWER = 20  # seconds for one answer of the CA
_TEMPORARY = ("badNonce", "serverInternal")


def reach(config: Config, deadline: float) -> client.ClientV2:
    """Return a client of the CA; until ``deadline`` (monotonic) it tries again."""
    # The library logs what it signs and what it is answered at debug.
    logging.getLogger("acme").setLevel(logging.INFO)
    net = _Network(josepy.jwk.JWKEC(key=_key(config)), config.ca, deadline)
    return client.ClientV2(client.ClientV2.get_directory(config.directory, net), net)


def sign_in(config: Config, ca: client.ClientV2) -> None:
    """Have the CA know our key; AcmeError when it wants more than the configuration has."""
    wanted: dict[str, Any] = {"terms_of_service_agreed": True, "contact": config.contact}
    if config.binding:
        wanted["external_account_binding"] = messages.ExternalAccountBinding.from_data(
            josepy.jwk.JWKEC(key=_key(config)).public_key(),
            config.binding.kid,
            _hmac(config.binding.hmac),
            ca.directory,
        )
    elif ca.external_account_required():
        raise AcmeError("the CA wants an account of its own that ours belongs to: set binding")
    try:
        ca.new_account(messages.NewRegistration.from_data(**wanted))
    except errors.ConflictError as known:
        # It is ours already, by its key: nothing but the key need be kept.
        ca.net.account = messages.RegistrationResource(
            uri=known.location, body=messages.Registration()
        )


def key_path(config: Config) -> Path:
    """Return where the key of the account at this CA is kept."""
    return config.state / "accounts" / f"{urlsplit(config.directory).netloc}.pem"


class _Network(client.ClientNetwork):
    """The library's, with patience: it tries a rejected nonce once, a busy CA never."""

    def __init__(self, key: josepy.jwk.JWK, ca: str, deadline: float) -> None:
        super().__init__(key, alg=josepy.jwa.ES256, user_agent="guardian", timeout=_ANSWER)
        self._deadline = deadline
        if ca:
            self.session.verify = ca
            self.verify_ssl = ca  # type: ignore[assignment]  # the library hands it to requests

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """POST, again with another nonce while the CA says that it may work in a moment."""
        return self._patient(_is_temporary, 30)(super().post, *args, **kwargs)

    def _send_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        # One that was carried out before its connection broke is refused: its nonce is used up.
        return self._patient(_is_broken, 4)(super()._send_request, *args, **kwargs)

    def _patient(self, reason: Callable[[BaseException], bool], attempts: int) -> tenacity.Retrying:
        left = max(0.0, self._deadline - time.monotonic())
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(reason),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_after_delay(left) | tenacity.stop_after_attempt(attempts),
            reraise=True,
        )


def _is_broken(error: BaseException) -> bool:
    return isinstance(error, requests.ConnectionError) and not isinstance(
        error, requests.exceptions.SSLError
    )


def _is_temporary(error: BaseException) -> bool:
    return isinstance(error, messages.Error) and error.code in _TEMPORARY


def _key(config: Config) -> ec.EllipticCurvePrivateKey:
    path = key_path(config)
    text = read_private(path)
    if text is None:
        return _made(path)
    try:
        found = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        # Made anew it would be another account, whose limits and orders are others.
        raise AcmeError(f"{path}: is not the key of an account; put it back, or move it away")
    return found


def _made(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    write_private(path, text)
    return key


def _hmac(path: Path) -> str:
    text = read_private(path)
    if text is None:
        raise AcmeError(f"{path}: the key that binds our account is not there")
    return text.strip()
