"""Workspaces (`prod-euw2` = account and region) and the minion ids that belong to one."""

import re
from dataclasses import dataclass

from guardian.errors import UsageError

REGIONS = {
    "use1": "us-east-1",
    "use2": "us-east-2",
    "usw2": "us-west-2",
    "euw2": "eu-west-2",
    "euc1": "eu-central-1",
    "apse1": "ap-southeast-1",
    "apse2": "ap-southeast-2",
    "local": "local",
}

_NAME = re.compile(r"(?P<account>[a-z][a-z0-9]{1,15})-(?P<region>[a-z0-9]{2,8})")
# Stricter than Salt's own rule, which lets globs, newlines and braces through.
_MINION = re.compile(r"(?P<role>[a-z][a-z0-9]{1,15})-(?P<instance>[a-z0-9]{1,20})")


@dataclass(frozen=True)
class WorkspaceName:
    """An account and the short name of a region."""

    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.account}-{self.region}"


def parse(name: str) -> WorkspaceName:
    """Split `ACCOUNT-REGIONSHORT`; UsageError when it is not one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"workspace {name[:40]!r}: not ACCOUNT-REGIONSHORT, such as prod-euw2")
    if match["region"] not in REGIONS:
        raise UsageError(
            f"workspace {name!r}: region {match['region']!r} unknown, one of {', '.join(REGIONS)}"
        )
    return WorkspaceName(match["account"], match["region"])


def belongs(minion: str, workspace: str) -> bool:
    """Whether a minion id is `<role>-<instance>.<workspace>`, and nothing else."""
    host, dot, suffix = minion.partition(".")
    return bool(dot) and suffix == workspace and _MINION.fullmatch(host) is not None


def role_of(minion: str) -> str:
    """The role a minion id states; UsageError when the id states none."""
    match = _MINION.fullmatch(minion.partition(".")[0])
    if match is None:
        raise UsageError(f"minion id {minion[:60]!r}: not <role>-<instance>.<workspace>")
    return match["role"]
