"""What AWS says has changed, and which nodes must therefore be given their pillar anew."""

import json
import re
from collections.abc import Iterable
from typing import Any, Protocol

_ARN = re.compile(r"arn:[a-z-]+:(?P<service>[a-z]+):(?P<region>[a-z0-9-]+):(?P<account>\d{12}):.+")
_SECRET_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}")
_NAME = re.compile(r"[A-Za-z0-9/_+=.@:-]{1,2048}")
_CHANGES = {  # calls of Secrets Manager after which a secret's value may be another
    "CreateSecret",
    "DeleteSecret",
    "PutSecretValue",
    "RestoreSecret",
    "UpdateSecret",
    "UpdateSecretVersionStage",
}


class Broker(Protocol):
    """What knows who uses which secret, and keeps values for a while."""

    def sources(self) -> set[str]:
        """Return every source that a minion has a use for."""

    def users(self, source: str) -> set[str]:
        """Return the minions that have a use for one."""

    def forget(self, sources: Iterable[str]) -> None:
        """Ask AWS anew for these."""


def changed(body: str, account: str, region: str) -> set[str] | None:
    """Return the sources, ``kind:name``, that an EventBridge event says have changed.

    Empty for an event of ours that changes no value. None for one that is malformed, of another
    kind, or of another account or region than the queue is there for.
    """
    try:
        event = json.loads(body)
        if (event["account"], event["region"]) != (account, region):
            return None
        kind, read = _KINDS[event["source"], event["detail-type"]]
        names = read(event, event["detail"])
        good = all(_ours(kind, name, account, region) for name in names)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return {f"{kind}:{name}" for name in names} if good else None


def forgotten(broker: Broker, sources: set[str]) -> set[str]:
    """Have the broker forget sources that have changed; return the minions that use them."""
    known = {one for one in broker.sources() if any(_same(one, source) for source in sources)}
    broker.forget(sorted(known | sources))
    return {minion for source in known for minion in broker.users(source)}


def _parameter(event: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    return [detail["name"]]


def _label(event: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    (arn,) = event["resources"]
    return [arn, detail["name"]]


def _call(event: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    if detail["eventSource"] != "secretsmanager.amazonaws.com":
        raise ValueError
    if detail["eventName"] not in _CHANGES or "errorCode" in detail:
        return []
    asked = detail["requestParameters"]
    return [asked["secretId"] if "secretId" in asked else asked["name"]]


def _rotation(event: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    if detail["eventSource"] != "secretsmanager.amazonaws.com":
        raise ValueError
    if detail["eventName"] != "RotationSucceeded":
        return []
    return [detail["additionalEventData"]["SecretId"]]


def _certificate(event: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    (arn,) = event["resources"]
    return [arn]


_KINDS = {
    ("aws.ssm", "Parameter Store Change"): ("parameter", _parameter),
    ("aws.secretsmanager", "Secret Label Updated"): ("secretsmanager", _label),
    ("aws.secretsmanager", "AWS API Call via CloudTrail"): ("secretsmanager", _call),
    ("aws.secretsmanager", "AWS Service Event via CloudTrail"): ("secretsmanager", _rotation),
    ("aws.acm", "ACM Certificate Available"): ("acm", _certificate),
}


def _ours(kind: str, name: str, account: str, region: str) -> bool:
    """Whether a name is one, and none of another service, account or region."""
    if not _NAME.fullmatch(name):
        return False
    arn = _ARN.fullmatch(name)
    if arn is None:
        return kind != "acm"
    return (arn["service"], arn["account"], arn["region"]) == (kind, account, region)


def _same(known: str, told: str) -> bool:
    """Whether two ways of naming a source may mean the same: too many is no harm, too few is."""
    if known == told:
        return True
    kind = "secretsmanager:"
    if not (known.startswith(kind) and told.startswith(kind)):
        return False
    return bool(_names(known.removeprefix(kind)) & _names(told.removeprefix(kind)))


def _names(secret: str) -> set[str]:
    """Return what a secret may be called by: an ARN ends with its name and six letters more."""
    if not _ARN.fullmatch(secret):
        return {secret}
    name = secret.split(":", 6)[-1]
    short = name[:-7] if _SECRET_SUFFIX.fullmatch(name[-7:]) else name
    return {name, short}
