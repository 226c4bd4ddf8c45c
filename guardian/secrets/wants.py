"""What is asked for, and what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from guardian.secrets.declarations import Source
from guardian.secrets.failures import SecretError


@dataclass(frozen=True)
class Want:
    """A source, where and as whom it is asked for, and the path that its grant opens."""

    source: Source
    region: str
    assume: str = ""
    prefix: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What its answer is kept under: of one identity alone."""
        source = self.source
        return json.dumps(
            [source.kind, source.name, source.version, source.context, self.region, self.assume]
        )

    @classmethod
    def named(cls, name: str) -> Want:
        """Return the want that an answer is kept under."""
        kind, source, version, context, region, assume = json.loads(name)
        pairs = tuple((key, value) for key, value in context)
        return cls(Source(kind, source, version, pairs), region, assume)


class Parameter(NamedTuple):
    """A parameter that is no secret."""

    name: str
    value: str
    version: int
    type: str


Answer = str | SecretError
