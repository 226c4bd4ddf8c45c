"""What OpenSIPS's management commands answer, as plain data, the same for 3.4, 3.6 and 4.0.

Every function takes the answers as they came; what it cannot read is a ``ValueError`` naming the
command. Shapes were measured on 3.4.18, 3.6.8 and 4.0.1.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Any

# `recheck_ticks` of a node that rtpengine_enable took out: it is never asked again.
BY_HAND = 2**32 - 1
SERVER_SIDE = "TLS_DOMAIN_SRV"


def _reads(command: str) -> Callable:
    """Make what an answer of another shape raises one line."""

    def decorated(function: Callable) -> Callable:
        @functools.wraps(function)
        def reading(*answers: Any) -> Any:
            try:
                return function(*answers)
            except (KeyError, TypeError, AttributeError, ValueError, IndexError):
                raise ValueError(f"{command}: answer not understood; is this OpenSIPS?") from None

        return reading

    return decorated


@_reads("ds_list")
def destinations(answer: Any) -> dict[str, list[dict]]:
    """Return set id -> ``[{"uri", "state", "node"}]``, with ``weight`` of a full list."""
    found: dict[str, list[dict]] = {}
    for partition in answer["PARTITIONS"]:
        for one in partition["SETS"]:
            rows = [
                {"uri": row["URI"], "state": row["state"], "node": _node(row.get("attr", ""))}
                | ({"weight": row["weight"]} if "weight" in row else {})
                for row in one.get("Destinations", [])
            ]
            found.setdefault(str(one["id"]), []).extend(rows)
    return found


def _node(attributes: str) -> str:
    """Return whose destination it is; limits may follow: ``pbx-01;calls=30``."""
    return attributes.partition(";")[0]


@_reads("address_dump")
def addresses(*answers: Any) -> dict[str, list[str]]:
    """Return group -> networks, of what ``address_dump`` and ``subnet_dump`` answered."""
    found: dict[str, set[str]] = {}
    for answer in answers:
        for partition in answer.get("Partitions", []):
            for row in partition.get("Destinations", []):
                network = ipaddress.ip_network(f"{row['ip']}/{row['mask']}", strict=False)
                found.setdefault(str(row["grp"]), set()).add(str(network))
    return {group: sorted(networks) for group, networks in found.items()}


@_reads("lb_list")
def balanced(answer: Any) -> dict[int, dict]:
    """Return destination id -> ``{"uri", "group", "enabled", "resources": {name: {…}}}``."""
    return {
        int(row["id"]): {
            "uri": row["uri"],
            "group": int(row["group"]),
            "enabled": row["enabled"] == "yes",
            "resources": {
                one["name"]: {"max": one["max"], "load": one["load"]}
                for one in row.get("Resources", [])
            },
        }
        for row in answer["Destinations"]
    }


@_reads("dr_gw_status")
def gateways(answer: Any) -> dict[str, dict]:
    """Return gateway -> ``{"address", "state"}``."""
    return {
        str(row["ID"]): {"address": row["IP"], "state": row["State"]} for row in answer["Gateways"]
    }


@_reads("rtpengine_show")
def relays(answer: Any) -> dict[str, list[dict]]:
    """Return set id -> ``[{"url", "enabled", "by_hand"}]``: who is out, and whether we said so."""
    found: dict[str, list[dict]] = {}
    for one in answer:
        for row in one.get("Nodes", []):
            found.setdefault(str(one["Set"]), []).append(
                {
                    "url": row["url"],
                    "enabled": int(row["disabled"]) == 0,
                    "by_hand": int(row.get("recheck_ticks", 0)) == BY_HAND,
                }
            )
    return found


@_reads("clusterer_list_shtags")
def tags(answer: Any) -> dict[str, str]:
    """Return ``tag/cluster`` -> active or backup."""
    return {f"{row['Tag']}/{row['Cluster']}": row["State"] for row in answer}


@_reads("clusterer_list")
def peers(answer: Any) -> dict[str, list[dict]]:
    """Return cluster id -> its other nodes, ``[{"id", "url", "up", "enabled"}]``."""
    return {
        str(cluster["cluster_id"]): [
            {
                "id": int(node["node_id"]),
                "url": node["url"],
                "up": node["link_state"] == "Up",
                "enabled": node.get("state", "enabled") == "enabled",
            }
            for node in cluster.get("Nodes", [])
        ]
        for cluster in answer["Clusters"]
    }


@_reads("clusterer_list_cap")
def capabilities(answer: Any) -> dict[str, dict[str, str]]:
    """Return cluster id -> capability -> its state, which ends as Ok when it is synced."""
    return {
        str(cluster["cluster_id"]): {
            str(one["name"]): str(one["state"]) for one in cluster.get("Capabilities", [])
        }
        for cluster in answer["Clusters"]
    }


@_reads("tls_list")
def tls_domains(answer: Any) -> dict[str, dict]:
    """Return domain -> ``{"side", "addresses", "names", "method"}`` of the domains in force."""
    return {
        str(row["name"]): {
            "side": "server" if row["type"] == SERVER_SIDE else "client",
            "addresses": sorted(row.get("IP ADDRESS FILTERS", [])),
            "names": sorted(row.get("SIP DOMAIN FILTERS", [])),
            "method": str(row.get("METHOD", "")),
        }
        for row in answer["Domains"]
    }


@_reads("reg_list")
def registrants(answer: Any) -> dict[str, dict]:
    """Return address of record -> ``{"registrar", "state", "enabled"}``."""
    return {
        str(row["AOR"]): {
            "registrar": row["registrar"],
            "state": row["state"],
            "enabled": row.get("enabled", "yes") == "yes",
        }
        for row in answer["Records"]
    }


@_reads("domain_dump")
def domains(answer: Any) -> list[str]:
    """Return the domains that are local."""
    return sorted(str(row["name"]) for row in answer["Domains"])


@_reads("get_statistics")
def count(answer: Any, name: str) -> int:
    """Return one statistic by its bare name, 0 when nobody has it.

    It is asked for by bare name and answered with its module before it (measured on 3.4.18).
    """
    values = [value for key, value in answer.items() if key.rpartition(":")[2] == name]
    return int(values[0]) if values else 0


def same(command: str, held: Any, rows: list[dict]) -> bool:
    """Tell whether what the daemon holds after a reload is what the rows of its table say."""
    match command:
        case "address_reload":
            there = {(group, one) for group, networks in held.items() for one in networks}
            asked = {(str(row["grp"]), _network(row)) for row in rows}
        case "clusterer_reload":
            there = {(number, row["id"]) for number, found in held.items() for row in found}
            asked = {(str(row["cluster_id"]), row["node_id"]) for row in rows}
            # It does not list itself.
            clusters = {number for number, _ in asked}
            return there <= asked and len(asked - there) == len(clusters)
        case "domain_reload":
            there, asked = set(held), {row["domain"] for row in rows}
        case "dr_reload":
            there, asked = set(held), {row["gwid"] for row in rows}
        case "lb_reload":
            there = {(row["group"], row["uri"]) for row in held.values()}
            asked = {(row["group_id"], row["dst_uri"]) for row in rows}
        case "reg_reload":
            there, asked = set(held), {row["aor"] for row in rows}
        case "rtpengine_reload":
            there = {(number, row["url"]) for number, found in held.items() for row in found}
            asked = {(str(row["set_id"]), _url(row["socket"])) for row in rows}
        case "tls_reload":
            there, asked = set(held), {row["domain"] for row in rows}
        case _:
            return True
    return there == asked


def _network(row: dict) -> str:
    return str(ipaddress.ip_network(f"{row['ip']}/{row['mask']}", strict=False))


def _url(socket: str) -> str:
    """Return a node's URL; its weight may follow."""
    return socket.partition("=")[0]
