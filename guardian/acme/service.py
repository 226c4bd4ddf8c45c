"""What is asked of ACME: issue one now, renew what is due, say how things stand."""

import datetime
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from guardian.acme import order
from guardian.acme.bundle import AcmeError, Bundle
from guardian.acme.config import Certificate, Config
from guardian.acme.stores import File
from guardian.errors import GuardianError
from guardian.locks import local

# Checks a bundle: (chain, key, names, PEM roots or "system" or None) -> facts; ValueError.
Verify = Callable[[str, str, Iterable[str], str | None], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How one certificate fared; ``changed`` are the sources that hold something new."""

    ok: bool
    comment: str
    facts: dict[str, Any]
    changed: tuple[str, ...] = ()


def issue(config: Config, name: str, verify: Verify) -> Outcome:
    """Order a certificate now, due or not; AcmeError when another run is under way."""
    wanted = config.certificate(name)
    with _alone(config, f"issue {name}"):
        return _outcome(partial(_ordered, config, wanted, verify))


def renew(config: Config, names: Iterable[str], verify: Verify) -> dict[str, Outcome]:
    """Order what is due of these (of all, when none is named); one that fails stops no other."""
    chosen = [config.certificate(name) for name in names] or list(config.certificates.values())
    with _alone(config, "renew"):
        return {one.name: _outcome(partial(_renewed, config, one, verify)) for one in chosen}


def status(config: Config, verify: Verify) -> dict[str, Outcome]:
    """Say of each what is stored and why it is due, if it is; changes nothing, asks no CA."""
    return {
        name: _outcome(partial(_told, config, wanted, verify))
        for name, wanted in config.certificates.items()
    }


def due(
    config: Config,
    wanted: Certificate,
    stored: Bundle | None,
    verify: Verify,
    *,
    ask: bool = True,
    now: datetime.datetime | None = None,
) -> str:
    """Return why a certificate should be ordered anew, nothing when it should not.

    It is due when there is none that may be served, when it has other names than are wanted, when
    less than a third of its life is left, or (``ask``) when the CA itself suggests it.
    """
    if stored is None:
        return "none is stored"
    try:
        _checked(config, wanted, stored, verify)
    except AcmeError as err:
        return str(err)
    leaf = stored.leaf()
    now = now or datetime.datetime.now(datetime.UTC)
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    left = leaf.not_valid_after_utc - now
    if left < life / 3:
        return f"{max(left.days, 0)} days are left of {life.days}"
    if ask:
        suggested = order.suggested_renewal(config, stored)
        if suggested is not None and suggested <= now:
            return "the CA suggests to"
    return ""


def _told(config: Config, wanted: Certificate, verify: Verify) -> Outcome:
    stored = wanted.store.read()
    why = due(config, wanted, stored, verify, ask=False)
    facts = _facts(config, wanted, stored, verify)
    return Outcome(True, f"due: {why}" if why else "in order", facts)


def _renewed(config: Config, wanted: Certificate, verify: Verify) -> Outcome:
    stored = wanted.store.read()
    why = due(config, wanted, stored, verify)
    if why:
        return _ordered(config, wanted, verify, why)
    return Outcome(True, "in order", _facts(config, wanted, stored, verify))


def _ordered(config: Config, wanted: Certificate, verify: Verify, why: str = "") -> Outcome:
    """Order, check, store: what could not be stored is kept for the next run, not ordered again.

    A store that refuses every night would else use up what a CA gives in a week.
    """
    stored = wanted.store.read()  # so that a store that is not there is told before the order
    kept = File(config.state / "unstored" / f"{wanted.name}.json")
    bundle, remark = kept.read(), "stored what an earlier run could not"
    fresh = bundle in (None, stored) or bool(due(config, wanted, bundle, verify, ask=False))
    if bundle is None or fresh:
        bundle, remark = order.issue(config, wanted)
    facts = _checked(config, wanted, bundle, verify)
    if fresh:
        kept.write(bundle)
    wanted.store.write(bundle)
    kept.path.unlink(missing_ok=True)
    comment = "; ".join(part for part in ("issued and stored", why, remark) if part)
    return Outcome(True, comment, facts, tuple(wanted.store.sources()))


def _checked(config: Config, wanted: Certificate, bundle: Bundle, verify: Verify) -> dict[str, Any]:
    try:
        facts = verify(bundle.chain, bundle.key, wanted.names, config.authority or None)
    except ValueError as err:
        raise AcmeError(str(err)) from None
    spare = set(facts["names"]) - set(wanted.names)
    if spare:
        raise AcmeError(f"it holds {sorted(spare)[0]}, which is not wanted any more")
    return facts


def _facts(
    config: Config, wanted: Certificate, stored: Bundle | None, verify: Verify
) -> dict[str, Any]:
    try:
        return _checked(config, wanted, stored, verify) if stored else {}
    except AcmeError:
        return {}


def _outcome(work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except GuardianError as err:
        return Outcome(False, str(err), {})


@contextmanager
def _alone(config: Config, what: str) -> Iterator[None]:
    try:
        held = ExitStack()
        held.enter_context(local.held(config.state, "acme", what, remedy="wait until it is done"))
    except OSError as err:
        raise AcmeError(f"acme:state: {config.state}: {err.strerror}") from None
    with held:
        yield
