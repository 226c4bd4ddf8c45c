"""Who asks for secrets: what a minion id says, and nothing that a minion says of itself."""

import re
from dataclasses import dataclass

from guardian import workspace
from guardian.errors import UsageError

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Node:
    """A minion id, taken apart."""

    id: str
    host: str
    role: str
    account: str
    region: str
    workspace: str

    @property
    def aws_region(self) -> str:
        """AWS's name of the node's region."""
        return workspace.REGIONS[self.region]

    def fill(self, template: str) -> str:
        """Put what the id says in place of ``{role}`` and so on; ValueError for other names."""

        def put(match: re.Match[str]) -> str:
            name = match[1]
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise ValueError(f"placeholder {{{name}}} is unknown; there are {known}")
            return str(getattr(self, name))

        return _PLACEHOLDER.sub(put, template)


PLACEHOLDERS = ("account", "region", "workspace", "role", "host")


def parse(minion_id: str) -> Node:
    """Take a minion id apart; ValueError when it is not ``<role>-<nn>.<account>-<region>``."""
    host, _, name = minion_id.partition(".")
    try:
        where = workspace.parse(name)
        role = workspace.role_of(minion_id)
    except UsageError as problem:
        raise ValueError(str(problem)) from None
    return Node(minion_id, host, role, where.account, where.region, name)
