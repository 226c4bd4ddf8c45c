"""Give nodes their pillar anew when a secret of theirs has changed in AWS.

EventBridge sends what changes in Parameter Store, Secrets Manager and ACM to an SQS queue. This
engine reads it, has the broker of ``aws_secrets`` forget the values, and asks the minions that use
them, and no others, to refresh their pillar: over the master's own connection, for an event on the
bus could be any minion's. Nothing of a message is used but the names of what changed, so a forged
one costs a pillar compilation. docs/certificates.md has the rule for EventBridge.

.. code-block:: yaml

    engines:
      - secret_rotation:
          queue_url: https://sqs.eu-west-2.amazonaws.com/123456789012/voice-rotation
          region: eu-west-2
          account: "123456789012"
"""

from __future__ import annotations

import logging
from functools import partial

try:
    from guardian import rotation, sqs
    from guardian.errors import GuardianError
    from guardian.fleet import pillar
    from guardian.secrets import broker

    HAS_BOTO = True
except ImportError:
    HAS_BOTO = False

log = logging.getLogger(__name__)


def __virtual__():  # noqa: N807
    if HAS_BOTO:
        return True
    return False, "boto3 is missing from the master's Python"


def start(queue_url, region, account):
    """Read the queue for ever; what fails is logged in one line and tried again."""
    values = broker.from_opts(__opts__)
    if values is None:
        raise ValueError(
            "secret_rotation: ext_pillar has no aws_secrets; there is nothing to renew"
        )
    refresh = partial(pillar.refresh, __opts__)
    work = partial(rotated, values, refresh, account=str(account), region=region)
    sqs.read_forever("secret_rotation", queue_url, region, work)


def rotated(values, refresh, messages, account, region):
    """Have all messages' effect at once; return the ids of those that are ours."""
    told = {name: rotation.changed(body, account, region) for name, body in messages.items()}
    ours = {name: sources for name, sources in told.items() if sources is not None}
    sources = set().union(*ours.values())
    if sources:
        try:
            minions = sorted(rotation.forgotten(values, sources))
        except (OSError, ValueError) as err:
            raise GuardianError(f"the broker does not forget: {err}") from None
        if minions:
            refresh(minions)
        log.info("secret_rotation: %s changed; refreshed %s", _some(sources), _some(minions))
    return list(ours)


def _some(names):
    shown = ", ".join(sorted(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "nobody"
