"""What pillar says of an OpenSIPS, as rows of its tables. Nothing here touches the system."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

# Groups of the address table.
TRUSTED, FLEET, BANNED = 1, 2, 3
# Standby destinations of set n are set n + STANDBY: a set of OpenSIPS has no spare.
STANDBY = 1000
# Documentation of tls_mgm, column `type`; and of `method`: from this version on.
CLIENT, SERVER = 1, 2
CA_DIR = "/etc/ssl/certs"
_HOST = re.compile(r"sips?:(?:[^@;]*@)?(\[[0-9A-Fa-f:]+\]|[^:;?]+)")


def rows(context: dict, read: Callable[[str], bytes] | None = None) -> dict[str, list[dict]]:
    """Return {table: rows} of the tables that ``context`` asks for, in a stable order.

    ``read`` returns a file's content, for the certificates of TLS domains. Raises ``ValueError``
    naming the pillar key; never a value.
    """
    try:
        return _all(context, read or _read)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            "pillar opensips has not the form of pillar/schema/opensips.json"
        ) from None


def _all(context: dict, read: Callable[[str], bytes]) -> dict[str, list[dict]]:
    _check_names(context)
    found = {"dispatcher": _dispatcher(context), "address": _address(context)}
    if context.get("gateways") or context.get("fraud"):  # fraud_detection wants drouting
        found["dr_gateways"] = _gateways(context)
        found["dr_carriers"] = _carriers(context)
        found["dr_rules"] = _rules(context)
        found["dr_groups"] = []
    servers = [one for one in (context.get("tls") or {}).values() if _is_server(one)]
    if not servers and {one["proto"] for one in context.get("sockets") or ()} & {"tls", "wss"}:
        raise ValueError("pillar opensips:sockets: tls and wss need a domain of opensips:tls")
    if context.get("tls"):
        found["tls_mgm"] = _tls(context, read)
    if context.get("rtpengine"):
        found["rtpengine"] = [
            {"socket": socket, "set_id": int(number)}
            for number, sockets in _by_number(context["rtpengine"])
            for socket in sockets
        ]
    if (context.get("cluster") or {}).get("nodes"):
        if context["node"]["name"] not in context["cluster"]["nodes"]:
            raise ValueError("pillar opensips:cluster:nodes lacks this node")
        found["clusterer"] = _cluster(context["cluster"])
        found["clusterer_bridge"] = []
    if context.get("fraud"):
        found["fraud_detection"] = _fraud(context["fraud"])
    registrar = context.get("registrar") or {}
    if registrar.get("domains"):
        found["domain"] = [{"domain": name} for name in sorted(set(registrar["domains"]))]
    if registrar.get("users"):
        found["subscriber"] = [
            {"username": str(user), "domain": domain, "ha1": settings["ha1"]}
            for domain, users in sorted(registrar["users"].items())
            for user, settings in sorted(users.items(), key=lambda item: str(item[0]))
        ]
    return found


def _check_names(context: dict) -> None:
    """Refuse what names something that is not there, or names something twice."""
    sets = context.get("dispatcher") or {}
    for number, destinations in sets.items():
        uris = [one["uri"] for one in destinations]
        if len(set(uris)) < len(uris):
            raise ValueError(f"pillar opensips:dispatcher:{number} holds a destination twice")
    for at, entry in enumerate(context.get("numbers") or ()):
        if str(entry["set"]) not in {str(number) for number in sets}:
            raise ValueError(f"pillar opensips:numbers:{at}: there is no such dispatcher set")
        wrong = _unreadable(entry["expression"])
        if wrong:
            raise ValueError(f"pillar opensips:numbers:{at}:expression {wrong}")
    cluster = context.get("cluster") or {}
    nodes = cluster.get("nodes") or {}
    if len({node["id"] for node in nodes.values()}) < len(nodes):
        raise ValueError("pillar opensips:cluster:nodes: two nodes have one id")
    for tag, active in (cluster.get("tags") or {}).items():
        if active is not None and active not in nodes:
            raise ValueError(f"pillar opensips:cluster:tags:{tag}: no such node in the cluster")
    registrar = context.get("registrar") or {}
    remote = (context.get("database") or {}).get("remote")
    if registrar.get("domains") and not (registrar.get("users") or remote):
        raise ValueError(
            "pillar opensips:registrar: nobody can log in; give users or a database:remote"
        )
    for domain in registrar.get("users") or {}:
        if domain not in (registrar.get("domains") or ()):
            raise ValueError(f"pillar opensips:registrar:users:{domain}: not in registrar:domains")


def _unreadable(expression: str) -> str:
    """Return what is wrong with a regular expression; OpenSIPS reads POSIX's extended ones."""
    try:
        re.compile(expression)
    except re.error:
        return "does not compile"
    if re.search(r"\s", expression):
        return "holds a blank, which no number does"
    if re.search(r"\\[dD]|\(\?", re.sub(r"\\[^dD]", "", expression)):
        return "is Perl's: write [0-9] for a digit, and no (?"  # \d matches no digit here, unsaid
    return ""


def filled_elsewhere(context: dict) -> list[str]:
    """Return the tables that somebody else fills, beside those that calls do."""
    registrar = context.get("registrar") or {}
    return ["subscriber"] if registrar.get("domains") and not registrar.get("users") else []


def _dispatcher(context: dict) -> list[dict]:
    withdrawn = set(context.get("withdrawn") or ())
    return [
        {
            "setid": int(number) + (STANDBY if destination.get("standby") else 0),
            "destination": destination["uri"],
            # No content: who is withdrawn, so that a start by anybody begins with it.
            "state": int(destination["uri"] in withdrawn),
            "probe_mode": 1,
            "weight": str(destination.get("weight", 1)),
            "attrs": _attributes(destination["node"], calls=destination.get("calls")),
            "description": destination["node"],
        }
        for number, destinations in _by_number(context.get("dispatcher"))
        for destination in destinations
    ]


def _address(context: dict) -> list[dict]:
    made: dict[tuple, dict] = {}

    def add(group: int, where: str, why: str | None, key: str) -> None:
        try:
            network = ipaddress.ip_network(where, strict=False)
        except ValueError:
            raise ValueError(f"pillar opensips:{key} holds what is no address") from None
        found = (group, str(network.network_address), network.prefixlen)
        made.setdefault(
            found,
            {"grp": group, "ip": found[1], "mask": found[2], "proto": "any", "context_info": why},
        )

    for name, gateway in sorted((context.get("gateways") or {}).items()):
        add(TRUSTED, gateway["address"], name, f"gateways:{name}:address")
        for source in gateway.get("sources") or ():
            add(TRUSTED, source, name, f"gateways:{name}:sources")
    for source in context.get("trusted") or ():
        add(TRUSTED, source, None, "trusted")
    for number, destinations in _by_number(context.get("dispatcher")):
        for destination in destinations:
            match = _HOST.match(destination["uri"])
            where = match[1].strip("[]") if match else ""
            add(FLEET, where, destination["node"], f"dispatcher:{number}")
    for source in context.get("banned") or ():
        add(BANNED, source, None, "banned")
    return sorted(made.values(), key=lambda row: row["grp"])


def _gateways(context: dict) -> list[dict]:
    withdrawn = set(context.get("withdrawn") or ())
    made = []
    for name, gateway in sorted((context.get("gateways") or {}).items()):
        uri = gateway_uri(gateway)
        hide = int(bool(gateway.get("hide_topology")))
        made.append(
            {
                "gwid": name,
                "address": uri,
                "strip": gateway.get("strip", 0),
                "pri_prefix": gateway.get("prefix") or None,
                "attrs": _attributes(calls=gateway.get("calls"), hide=hide),
                "probe_mode": 2 if gateway.get("ping", True) else 0,
                "state": int(uri in withdrawn),
                "description": name,
            }
        )
    return made


def gateway_uri(gateway: dict) -> str:
    """Return the SIP URI of a gateway."""
    address = str(gateway["address"])
    host = f"[{address}]" if ":" in address else address
    proto = gateway.get("proto", "udp")
    transport = "" if proto == "udp" else f";transport={proto}"
    return f"sip:{host}:{gateway.get('port', 5061 if proto == 'tls' else 5060)}{transport}"


def _carriers(context: dict) -> list[dict]:
    made = []
    for name, carrier in sorted((context.get("carriers") or {}).items()):
        gateways = carrier["gateways"]
        unknown = [one for one in gateways if one not in (context.get("gateways") or {})]
        if unknown:
            raise ValueError(f"pillar opensips:carriers:{name}: {unknown[0]} is in no gateways")
        by_weight = carrier.get("by", "weight" if isinstance(gateways, dict) else "order")
        if isinstance(gateways, dict):
            listed = [f"{one}={weight}" for one, weight in sorted(gateways.items())]
        else:
            listed = list(gateways)
        made.append(
            {
                "carrierid": name,
                "gwlist": ",".join(listed),
                "sort_alg": "W" if by_weight == "weight" else "N",
                "description": name,
            }
        )
    return made


def _rules(context: dict) -> list[dict]:
    made = []
    for number, rule in enumerate(context.get("outbound") or ()):
        unknown = [one for one in rule["carriers"] if one not in (context.get("carriers") or {})]
        if unknown:
            raise ValueError(f"pillar opensips:outbound:{number}: {unknown[0]} is in no carriers")
        made.append(
            {
                "groupid": "0",
                "prefix": rule.get("prefix") or None,
                "priority": rule.get("priority", 0),
                "gwlist": ",".join(f"#{one}" for one in rule["carriers"]),
            }
        )
    return made


def _tls(context: dict, read: Callable[[str], bytes]) -> list[dict]:
    certificates = context.get("certificates") or {}
    made = []
    for name, domain in sorted(context["tls"].items()):
        if domain["certificate"] not in certificates:
            raise ValueError(
                f"pillar opensips:tls:{name}:certificate is none of pillar certificates"
            )
        directory = certificates[domain["certificate"]]
        server = _is_server(domain)
        verify = domain.get("verify", not server)
        made.append(
            {
                "domain": name,
                "match_ip_address": ",".join(domain.get("addresses") or ["*"]),
                "match_sip_domain": ",".join(domain.get("names") or ["*"]),
                "type": SERVER if server else CLIENT,
                "method": f"{domain.get('least_version', 'TLSv1.2').replace('.', '_')}-",
                "verify_cert": int(verify),
                "require_cert": int(domain.get("require", False)),
                "certificate": _pem(read, f"{directory}/chain.pem", name),
                "private_key": _pem(read, f"{directory}/key.pem", name),
                "ca_dir": CA_DIR if verify and not domain.get("ca") else None,
                "ca_list": _pem(read, domain["ca"], name) if domain.get("ca") else None,
                "cipher_list": domain.get("ciphers") or None,
            }
        )
    return made


def _is_server(domain: dict) -> bool:
    return domain.get("side", "server") == "server"


def _pem(read: Callable[[str], bytes], path: str, domain: str) -> str:
    try:
        return read(path).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"pillar opensips:tls:{domain}: {path} is not there or not PEM") from None


def _cluster(cluster: dict) -> list[dict]:
    # Where all begin at once, one must be complete without having been told by another.
    seed = min(node["id"] for node in cluster["nodes"].values())
    return [
        {
            "cluster_id": cluster.get("id", 1),
            "node_id": node["id"],
            "url": f"bin:{node['address']}:{node.get('port', 5555)}",
            "flags": "seed" if node["id"] == seed else None,
            "description": name,
        }
        for name, node in sorted(cluster["nodes"].items(), key=lambda item: item[1]["id"])
    ]


def _fraud(fraud: dict) -> list[dict]:
    measures = {
        "calls_per_minute": "cpm",
        "call_seconds": "call_duration",
        "calls": "total_calls",
        "concurrent_calls": "concurrent_calls",
        "sequential_calls": "sequential_calls",
    }
    made = []
    for number, rules in _by_number(fraud):
        for rule in rules:
            row = {
                "profileid": int(number),
                "prefix": rule.get("prefix", ""),
                "start_hour": rule.get("from", "00:00"),
                "end_hour": rule.get("to", "23:59"),
                "daysoftheweek": rule.get("days", "Mon-Sun"),
            }
            for key, column in measures.items():
                for level, threshold in (rule.get(key) or {}).items():
                    row[f"{column}_{level}"] = threshold
            made.append(row)
    return made


def _attributes(*words: str, **values: int | None) -> str | None:
    """Return what the routes read of a row: ``pbx-01;calls=30``."""
    return ";".join([*words, *(f"{key}={value}" for key, value in values.items() if value)]) or None


def _by_number(mapping: dict | None) -> list[tuple[str, list]]:
    items = (mapping or {}).items()
    if not all(str(number).isdecimal() for number, _ in items):
        raise TypeError
    return sorted(items, key=lambda item: int(item[0]))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
