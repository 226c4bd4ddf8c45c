"""One place that asks AWS, whatever number of processes want something."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from guardian.secrets.declarations import PARAMETER, Source
from guardian.secrets.failures import NOT_FOUND, UNFIT, SecretError


@dataclass(frozen=True)
class Want:
    """A source, as whom and where it is asked for, and the path that the grant opens."""

    source: Source
    region: str
    assume: str = ""
    prefix: str = ""


class Broker:
    """Answers wants from a sealed cache, or from AWS in as few calls as there can be."""

    def __init__(
        self,
        cache: str = "/run/guardian/secrets",
        region: str = "",
        ttl: float = 300,
        stale: float = 900,
        rate: float = 30,
    ) -> None:
        self._cache, self._region = cache, region
        self._ttl, self._stale, self._rate = ttl, stale, rate

    def get(
        self, minion_id: str, wants: Sequence[Want], optional: Collection[Want] = ()
    ) -> dict[Want, str | SecretError]:
        """Return a value or an error of each want, and remember that the minion has them."""
        import boto3

        found: dict[Want, str | SecretError] = {}
        for want in wants:
            if want.source.kind != PARAMETER:
                found[want] = SecretError(UNFIT, "is of a kind not read yet")
                continue
            client = boto3.client("ssm", region_name=want.region)
            answer = client.get_parameters(Names=[want.source.name], WithDecryption=True)
            for parameter in answer["Parameters"]:
                found[want] = parameter["Value"]
            found.setdefault(want, SecretError(NOT_FOUND, f"not found in {want.region}"))
        return found
