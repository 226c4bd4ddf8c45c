"""Order one certificate: prove its names, have a fresh key certified, take the chain."""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import josepy.errors
import requests
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from guardian.acme.account import reach, sign_in
from guardian.acme.bundle import AcmeError, Bundle, ends_at, tidy
from guardian.acme.challenges import Proof
from guardian.acme.config import Certificate, Config

# What the library makes of answers that are none, of a proxy's page for example.
_NO_ACME = (
    errors.Error,
    josepy.errors.Error,
    x509.ExtensionNotFound,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_LONGEST = 300  # characters of what a CA says, in a line of ours


class Issued(NamedTuple):
    """A new certificate, and what is worth a remark."""

    bundle: Bundle
    remark: str


def issue(config: Config, wanted: Certificate) -> Issued:
    """Return a new certificate; AcmeError, within the configured time, says why there is none."""
    deadline = time.monotonic() + config.timeout
    with _explained(config):
        ca = reach(config, deadline)
        sign_in(config, ca)
        key = _fresh(wanted.key)
        order = ca.new_order(_request(key, wanted.names), profile=wanted.profile or None)
        order = _proven(ca, wanted, order, deadline)
        order = ca.finalize_order(order, _until(deadline), bool(wanted.preferred_chain))
        chain, remark = _chosen(order, wanted.preferred_chain)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Issued(Bundle(private.decode(), tidy(chain)), remark)


def suggested_renewal(config: Config, bundle: Bundle) -> datetime.datetime | None:
    """Return when the CA itself would renew (ARI, RFC 9773); None when it does not say."""
    try:
        ca = reach(config, time.monotonic() + min(config.timeout, 30.0))
        when, _ = ca.renewal_time(bundle.chain.encode())
    except (AcmeError, requests.RequestException, *_NO_ACME):
        return None  # advice alone; the certificate's age decides without it
    return when


def _proven(
    ca: client.ClientV2, wanted: Certificate, order: messages.OrderResource, deadline: float
) -> messages.OrderResource:
    proofs = [
        _proof(ca, one.body, wanted)
        for one in order.authorizations
        # The CA may remember that it has seen a proof; then there is nothing to answer.
        if one.body.status != messages.STATUS_VALID
    ]
    if not proofs:
        return order
    with wanted.challenge.published(proofs, deadline):
        for proof in proofs:
            ca.answer_challenge(proof.body, proof.response)
        return ca.poll_authorizations(order, _until(deadline))


def _proof(ca: client.ClientV2, authorization: messages.Authorization, to: Certificate) -> Proof:
    domain = authorization.identifier.value
    for body in authorization.challenges:
        if body.chall.typ == to.challenge.kind:
            response, text = body.chall.response_and_validation(ca.net.key)
            return Proof(domain, body, response, text)
    offered = ", ".join(str(body.chall.typ) for body in authorization.challenges)
    raise AcmeError(f"the CA offers no {to.challenge.kind} for {domain}, only {offered}")


def _fresh(kind: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    family, _, size = kind.partition("-")
    if family == "rsa":
        return rsa.generate_private_key(65537, int(size))
    return ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1}[size]())


def _request(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, names: tuple[str, ...]) -> bytes:
    # No common name: it is long deprecated, and has room for 64 characters only.
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
    )
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _chosen(order: messages.OrderResource, preferred: str) -> tuple[str, str]:
    chains = [order.fullchain_pem, *(order.alternative_fullchains_pem or ())]
    if not preferred:
        return chains[0], ""
    for chain in chains:
        if ends_at(chain) == preferred:
            return chain, ""
    return chains[0], f"no chain ends at {preferred!r}; took the one of {ends_at(chains[0])!r}"


def _until(deadline: float) -> datetime.datetime:
    """Return a monotonic time as the library wants it: naive, local."""
    left = datetime.timedelta(seconds=deadline - time.monotonic())
    return datetime.datetime.now() + left


@contextmanager
def _explained(config: Config) -> Iterator[None]:
    try:
        yield
    except errors.ValidationError as err:
        raise AcmeError(_failed(err)) from None
    except errors.IssuanceError as err:
        raise AcmeError(f"the CA does not issue it: {_problem(err.error)}") from None
    except messages.Error as err:
        remedy = "; wait, or order less often" if err.code == "rateLimited" else ""
        raise AcmeError(f"the CA refuses: {_problem(err)}{remedy}") from None
    except errors.TimeoutError:
        raise AcmeError(f"the CA is not done after {config.timeout:g} s; try again") from None
    except requests.exceptions.SSLError:
        raise AcmeError(
            f"{config.directory}: is not who it says, by what ca (or the system) trusts"
        ) from None
    except requests.RequestException as err:
        raise AcmeError(
            f"{config.directory}: cannot be reached ({type(err).__name__}); is the CA up, and may"
            " this master call it?"
        ) from None
    except _NO_ACME as err:
        raise AcmeError(
            f"{config.directory}: answers what is no ACME ({type(err).__name__})"
        ) from None


def _failed(error: errors.ValidationError) -> str:
    told = [
        f"{one.body.identifier.value} by {challenge.chall.typ}: {_problem(challenge.error)}"
        for one in error.failed_authzrs
        for challenge in one.body.challenges
        if challenge.error is not None
    ]
    return f"not proven: {'; '.join(told)}"


def _problem(error: messages.Error) -> str:
    text = " ".join(str(error.detail or error.title or "no reason given").split())
    return f"{error.code or error.typ}: {text[:_LONGEST]}"
