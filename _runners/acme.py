"""Certificates from an ACME server, such as Let's Encrypt, stored where pillar reads them.

What is wanted is data: ``acme`` of the master's configuration; docs/certificates.md has all of it.
Keys are made here and stored; no answer, error, event or job holds one. A run that fails leaves
what is stored as it was.
"""

from __future__ import annotations

try:
    from guardian import rotation
    from guardian.acme import config, service
    from guardian.errors import GuardianError
    from guardian.fleet import pillar
    from guardian.secrets import broker

    HAS_ACME = True
except ImportError:
    HAS_ACME = False


def __virtual__():  # noqa: N807
    if HAS_ACME:
        return True
    return False, "acme or boto3 is missing from the master's Python"


def issue(name):
    """
    Order a certificate now, even if it is not due: for a key that may be known to others.

    CLI Example:

    .. code-block:: bash

        salt-run acme.issue default
    """

    def ordered(wanted):
        return {name: service.issue(wanted, name, _verify)}

    return _answer(ordered)


def renew(*names):
    """
    Order the certificates that are due, of these or of all: with less than a third of their life
    left, or when the CA suggests it, or with other names than are wanted. Run it twice a day.

    CLI Example:

    .. code-block:: bash

        salt-run acme.renew
        salt-run acme.renew default
    """
    return _answer(lambda wanted: service.renew(wanted, names, _verify))


def status():
    """
    Return what is stored of each certificate, until when it lasts, and why it is due if it is.

    CLI Example:

    .. code-block:: bash

        salt-run acme.status
    """
    return _answer(lambda wanted: service.status(wanted, _verify))


def _verify(chain, key, names, authority):
    return __utils__["certificate_bundle.verify"](chain, key, names, authority=authority)


def _answer(work):
    """Return what every function does: each certificate's result, and an exit code for cron."""
    try:
        outcomes = work(config.parse(__opts__.get("acme")))
    except GuardianError as err:
        return _coded({"comment": str(err)}, failed=True)
    told = {
        name: {"result": one.ok, "comment": f"acme {name}: {one.comment}", **one.facts}
        for name, one in outcomes.items()
    }
    failed = not all(one.ok for one in outcomes.values())
    try:
        _made_known({source for one in outcomes.values() for source in one.changed})
    except (GuardianError, OSError, ValueError) as err:
        told["comment"] = f"acme: stored, but nodes do not know yet: {err}"
        failed = True
    return _coded(told, failed)


def _made_known(sources):
    """Have those who use what was stored compile their pillar; a file would tell nobody itself."""
    values = broker.from_opts(__opts__) if sources else None
    minions = rotation.forgotten(values, sources) if values else set()
    if minions:
        pillar.refresh(__opts__, sorted(minions))


def _coded(told, failed):
    if failed:
        __context__["retcode"] = 1  # the job's success
        told["retcode"] = 1  # the command's exit code
    return told
