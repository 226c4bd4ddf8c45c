"""Prove to an ACME server that a name is ours, by HTTP or by DNS."""

import time
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from acme import challenges, messages, standalone

from guardian.acme.bundle import AcmeError
from guardian.acme.cloud import Cloud, CloudError

_PATIENCE = 5  # seconds that a client of the responder may take to ask
_POLL = 2.0


@dataclass(frozen=True)
class Proof:
    """One name's challenge, and what must be found there by whoever looks."""

    domain: str
    body: messages.ChallengeBody
    response: challenges.KeyAuthorizationChallengeResponse
    text: str


class Solver(Protocol):
    """A way of proving."""

    @property
    def kind(self) -> str:
        """Return the name of the challenge that it meets."""

    def published(self, proofs: list[Proof], deadline: float) -> Any:
        """Return a context in which every proof can be found; AcmeError when it cannot be."""


@dataclass(frozen=True)
class Standalone:
    """http-01, answered by ourselves for as long as it takes."""

    address: str = ""
    port: int = 80
    kind: str = "http-01"

    @contextmanager
    def published(self, proofs: list[Proof], deadline: float) -> Iterator[None]:
        resources = {
            standalone.HTTP01RequestHandler.HTTP01Resource(one.body.chall, one.response, one.text)
            for one in proofs
        }
        try:
            servers = standalone.HTTP01DualNetworkedServers(
                (self.address, self.port), resources, timeout=_PATIENCE
            )
        except OSError as err:
            raise AcmeError(
                f"cannot listen on {self.address or '*'}:{self.port} for http-01: {err.strerror};"
                " free it, name another address and port, or use webroot or dns-01"
            ) from None
        servers.serve_forever()
        try:
            yield
        finally:
            servers.shutdown_and_server_close()


@dataclass(frozen=True)
class Webroot:
    """http-01, answered by a web server that serves this directory."""

    directory: Path
    kind: str = "http-01"

    @contextmanager
    def published(self, proofs: list[Proof], deadline: float) -> Iterator[None]:
        place = self.directory / ".well-known" / "acme-challenge"
        with ExitStack() as written:
            try:
                place.mkdir(parents=True, exist_ok=True)
                for one in proofs:
                    # The token goes through the library's decoding: it can hold no slash.
                    path = place / one.body.chall.encode("token")
                    written.callback(path.unlink, missing_ok=True)
                    path.write_text(one.text)
                    path.chmod(0o644)
            except OSError as err:
                raise AcmeError(f"webroot {place}: {err.strerror}") from None
            yield


@dataclass(frozen=True)
class Route53:
    """dns-01, by TXT records of a hosted zone: of the longest public one when none is named."""

    zone: str = ""
    role: str = ""
    kind: str = "dns-01"

    @contextmanager
    def published(self, proofs: list[Proof], deadline: float) -> Iterator[None]:
        wanted: dict[str, set[str]] = defaultdict(set)
        for one in proofs:
            # example.net and *.example.net are proven by two values of one record.
            wanted[f"_acme-challenge.{one.domain}."].add(f'"{one.text}"')
        call = Cloud("route53", "us-east-1", "Route 53", self.role)
        zones = self._zones(call)
        with ExitStack() as added:
            changes = []
            for name, values in sorted(wanted.items()):
                zone = _longest(zones, name)
                added.callback(_removed, call, zone, name, values)
                changes.append(_changed(call, zone, name, add=values))
            for change in changes:
                _wait(call, change, deadline)
            yield

    def _zones(self, call: Cloud) -> dict[str, str]:
        if self.zone:
            zone = call("get_hosted_zone", Id=self.zone)["HostedZone"]
            return {zone["Name"]: self.zone}
        found: dict[str, str] = {}
        page: dict[str, Any] = {"IsTruncated": True}
        while page["IsTruncated"]:
            after = {"Marker": page["NextMarker"]} if "NextMarker" in page else {}
            page = call("list_hosted_zones", **after)
            for zone in page["HostedZones"]:
                if not zone.get("Config", {}).get("PrivateZone"):
                    found[zone["Name"]] = zone["Id"]
        return found


def _longest(zones: dict[str, str], record: str) -> str:
    holding = [name for name in zones if f".{record}".endswith(f".{name}")]
    if not holding:
        raise AcmeError(f"Route 53 has no public zone that holds {record.rstrip('.')}")
    return zones[max(holding, key=len)]


def _changed(
    call: Cloud, zone: str, name: str, add: Set[str] = frozenset(), remove: Set[str] = frozenset()
) -> str:
    """Add or take away values of a record that others change too; return the change's id.

    Route 53 refuses to delete a record that is not exactly as said, and a batch is carried out
    whole: deleting what was read and creating the sum is a compare-and-swap.
    """
    for _ in range(10):
        found = _record(call, zone, name)
        values = {one["Value"] for one in (found or {}).get("ResourceRecords", [])}
        after = (values | add) - remove
        if after == values:
            return ""
        batch = [{"Action": "DELETE", "ResourceRecordSet": found}] if found else []
        if after:
            records = [{"Value": value} for value in sorted(after)]
            fresh = {"Name": name, "Type": "TXT", "TTL": 60, "ResourceRecords": records}
            batch.append({"Action": "CREATE", "ResourceRecordSet": fresh})
        try:
            answer = call(
                "change_resource_record_sets", HostedZoneId=zone, ChangeBatch={"Changes": batch}
            )
            return str(answer["ChangeInfo"]["Id"])
        except CloudError as err:
            if err.reason not in ("InvalidChangeBatch", "PriorRequestNotComplete"):
                raise
        time.sleep(0.2)
    raise AcmeError(
        f"Route 53 takes no TXT record {name.rstrip('.')}: there is a CNAME, or somebody else"
        " changes it all the time"
    )


def _record(call: Cloud, zone: str, name: str) -> dict[str, Any] | None:
    answer = call(
        "list_resource_record_sets",
        HostedZoneId=zone,
        StartRecordName=name,
        StartRecordType="TXT",
        MaxItems="1",
    )
    for record in answer["ResourceRecordSets"]:
        if record["Name"] == name and record["Type"] == "TXT":
            found: dict[str, Any] = record
            return found
    return None


def _removed(call: Cloud, zone: str, name: str, values: set[str]) -> None:
    # What stays behind is a used token; it is not worth losing the certificate for.
    with suppress(AcmeError):
        _changed(call, zone, name, remove=values)


def _wait(call: Cloud, change: str, deadline: float) -> None:
    """Wait until every server of the zone has a change."""
    while change:
        if call("get_change", Id=change)["ChangeInfo"]["Status"] == "INSYNC":
            return
        if time.monotonic() + _POLL > deadline:
            raise AcmeError("Route 53 did not carry the TXT records to its servers in time")
        time.sleep(_POLL)
