"""Look after the OpenSIPS of this node without costing a call.

Salt owns who is in a dispatcher set; drain owns the states, over the management interface.
Nothing here makes a withdrawn destination active again. Changing functions hold the node's lock,
check what runs afterwards and return ``{"result", "action", "before", "after", "evidence"}``.

Minion options, all optional: ``opensips.conf_dir``, ``opensips.state_dir``, ``opensips.mi_socket``,
``opensips.pidfile``, ``opensips.user``, ``opensips.group``, ``opensips.binary``,
``opensips.system_root``, ``opensips.var_dir``.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

__virtualname__ = "opensips"

DEFAULTS = {
    "conf_dir": "/etc/opensips",
    "state_dir": "/var/lib/voice",
    "mi_socket": "/run/opensips/opensips_mi.sock",
    "pidfile": "/run/opensips/opensips.pid",
    "user": "root",
    "group": "opensips",
    "binary": "/usr/sbin/opensips",
    "system_root": "",
    "var_dir": "/var/lib/opensips",
}
LIBRARIES, MODULE_PATH = (
    "/usr/lib",
    "*-linux-gnu/opensips/modules",
)  # where Debian's packages have them
DEFAULTS_FILE = "/etc/default/opensips"
SYSTEM_FILES = ("/etc/systemd/system/opensips.service.d/guardian.conf", DEFAULTS_FILE)
START_SECONDS = 20.0
# reload_routes leaks private memory in every process: so many in one life, then a restart is due.
MOST_ROUTE_RELOADS = 50
# One leaks 65 to 119 KiB of 216 lines of routes, more of longer ones (3.4.18); bytes.
LEAST_FREE = 1 << 20
# Commands that change nothing, and the parameters with which they do; `dbt_dump` writes files.
READING = {
    **dict.fromkeys(
        ("address_dump", "clusterer_list", "clusterer_list_cap", "clusterer_list_shtags",
         "clusterer_list_topology", "dlg_list", "domain_dump", "dp_show_partition", "dp_translate",
         "dr_number_routing", "dr_reload_status", "ds_list", "get_statistics", "lb_list",
         "list_statistics", "list_tcp_conns", "profile_get_size", "profile_get_values", "ps",
         "reg_list", "rl_list", "rtpengine_show", "show_fraud_stats", "shv_get", "sr_get_status",
         "sr_list_identifiers", "sr_list_reports", "sr_list_status", "subnet_dump", "tls_list",
         "uptime", "version", "which"),
        "",
    ),
    "dr_carrier_status": "status",
    "dr_gw_status": "status",
    "lb_status": "new_status",
}  # fmt: skip
# What makes a table effective: its parameters, and the tables it reads.
RELOADS = {
    "address_reload": ({}, ("address",)),
    "clusterer_reload": ({}, ("clusterer",)),
    "domain_reload": ({}, ("domain",)),
    "dp_reload": ({}, ("dialplan",)),
    "dr_reload": ({}, ("dr_gateways", "dr_carriers", "dr_rules", "dr_groups")),
    "ds_reload": ({}, ("dispatcher",)),
    "fraud_reload": ({}, ("fraud_detection",)),
    "lb_reload": ({}, ("load_balancer",)),
    "reg_reload": ({}, ("registrant",)),
    # Without it every node is torn down, with the calls it relays.
    "rtpengine_reload": ({"type": "soft"}, ("rtpengine",)),
    "tcp_reload": ({}, ("tcp_mgm",)),
    "tls_reload": ({}, ("tls_mgm",)),
}
RELOAD_SECONDS = 30.0
HANDSHAKE_SECONDS = 5.0
TAG_SECONDS = 3.0
SETTLE_SECONDS, POLL_SECONDS = 10.0, 0.5
HEALTH_SOCKET = "opensips-health.socket"
STATES = {"a": "Active", "i": "Inactive", "p": "Probing"}
TLS_SIDES = {"client": 1, "server": 2}  # documentation of tls_mgm, column `type`
TLS_COLUMNS = ("match_ip_address", "match_sip_domain", "method", "verify_cert", "require_cert",
               "cipher_list", "ca_list", "ca_dir")  # fmt: skip


def __virtual__():  # noqa: N807
    return __virtualname__


def mi(command, **params):
    """
    Run one management command that only reads, and return its result.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.mi ds_list
        salt '*sip*' opensips.mi get_statistics statistics='["tm:"]'
    """
    params = {name: value for name, value in params.items() if not name.startswith("__")}
    if command not in READING or READING[command] in params:
        raise CommandExecutionError(f"{command} is not allowed here: it is not known to only read")
    return _mi(command, params)


def status():
    """
    Return what the daemon says of itself.

    ``running`` tells whether the process lives, ``responding`` whether its management interface
    answered; ``calls`` are dialogs (None when unknown), ``transactions`` requests in hand beyond
    its own pings, ``draining`` whether new calls are refused. Never raises.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.status
    """
    down = {
        "running": False,
        "responding": False,
        "draining": False,
        "calls": 0,
        "transactions": 0,
        "version": "",
        "pid": None,
        "error": "opensips is not running",
    }
    pid = _pid()
    if pid is None:
        return down
    try:
        # Asked for by bare name, answered with the module's name before it (measured on 3.4.18).
        counts = statistics("inuse_transactions", "active_dialogs", "early_dialogs")
        in_hand = int(counts["tm:inuse_transactions"]) - _pinged()
        return {
            "running": True,
            "responding": True,
            "draining": _draining(),
            "calls": int(counts["dialog:active_dialogs"]),
            # A call that rings is in hand whatever the pings of a large set hide.
            "transactions": max(0, in_hand, _util("opensips_mi.count", counts, "early_dialogs")),
            "version": str(_mi("version")["Server"]),
            "pid": pid,
            "error": "",
        }
    except (CommandExecutionError, KeyError, TypeError, ValueError) as err:
        told = str(err) if isinstance(err, CommandExecutionError) else "statistics not understood"
        return {**down, "running": True, "calls": None, "transactions": None, "pid": pid,
                "error": told}  # fmt: skip


def dialogs_count():
    """
    Return how many dialogs the proxy follows.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dialogs_count
    """
    return int(statistics("active_dialogs")["dialog:active_dialogs"])


def statistics(*names):
    """
    Return statistics by bare name; a name ending in a colon means a whole group.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.statistics tm: active_dialogs
    """
    return _mi("get_statistics", {"statistics": list(names) or ["all"]})


def dispatcher_list():
    """
    Return the running sets, ``{set id: [{"uri", "state", "node"}]}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dispatcher_list
    """
    return _util("opensips_mi.destinations", _mi("ds_list", timeout=RELOAD_SECONDS))


def dispatcher_set_state(set_id, uri, state):
    """
    Set a destination ``a`` (active) or ``i`` (inactive: no new calls, no pings) and check it.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dispatcher_set_state 1 sip:10.77.0.21:5060 i
    """
    if state not in ("a", "i"):
        raise CommandExecutionError("state must be a or i; p would be lifted by the next ping")
    with _lock("opensips.dispatcher_set_state"):
        before = _state_of(set_id, uri)
        if before != STATES[state]:
            group = int(set_id) if str(set_id).isdigit() else set_id
            _mi("ds_set_state", {"state": state, "group": group, "address": uri})
        after = _state_of(set_id, uri)
    if after != STATES[state]:
        raise CommandExecutionError(f"{uri} in set {set_id} is {after}, not {STATES[state]}")
    return {
        "result": True,
        "action": f"ds_set_state {state} {set_id} {uri}",
        "before": before,
        "after": after,
        "evidence": "ds_list",
    }


def dispatcher_reload():
    """
    Read the dispatcher table again; states stay as they are, withdrawn ones are checked.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dispatcher_reload
    """
    return _reload_table("ds_reload")


def dispatcher_withdraw(uri, by=""):
    """
    Give a destination no new calls, in every set, until ``dispatcher_restore``, restarts included.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dispatcher_withdraw sip:10.77.0.21:5060
    """
    return _moved(uri, "i", by)


def dispatcher_restore(uri):
    """
    Give a destination new calls again; refused while its whole node is withdrawn.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dispatcher_restore sip:10.77.0.21:5060
    """
    return _moved(uri, "a", "")


def address_reload():
    """
    Read the table of trusted addresses again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.address_reload
    """
    return _reload_table("address_reload")


def address_dump():
    """
    Return the addresses and networks that run, ``{group: ["address/length"]}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.address_dump
    """
    return _util("opensips_mi.addresses", _mi("address_dump"), _mi("subnet_dump"))


def address_test(address, group=1):
    """
    Tell whether a group of the address table, as it runs, holds an address.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.address_test 192.0.2.7
        salt '*sip*' opensips.address_test 192.0.2.7 3
    """
    try:
        address = ipaddress.ip_address(address)
    except ValueError:
        raise CommandExecutionError(f"{address!r} is no IP address") from None
    networks = address_dump().get(str(group), [])
    return any(address in ipaddress.ip_network(network) for network in networks)


def lb_list():
    """
    Return the load balancer's destinations, ``{id: {"uri", "group", "enabled", "resources"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.lb_list
    """
    return _util("opensips_mi.balanced", _mi("lb_list"))


def lb_status(destination, enabled=None):
    """
    Return whether a destination (its id) of the load balancer gets calls, or say so and check it.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.lb_status 1
        salt '*sip*' opensips.lb_status 1 enabled=False
    """
    destination = int(destination)

    def look():
        return str(_mi("lb_status", {"destination_id": destination}).get("enable")) == "yes"

    if enabled is None:
        return look()
    wanted = bool(enabled)
    params = {"destination_id": destination, "new_status": int(wanted)}
    return _changing("lb_status", params, look, wanted)


def lb_reload():
    """
    Read the table of the load balancer again; who was disabled stays so.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.lb_reload
    """
    return _reload_table("lb_reload")


def dr_reload():
    """
    Read gateways, carriers and rules again; gateways that were disabled stay so.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dr_reload
    """
    return _reload_table("dr_reload")


def dr_gateways():
    """
    Return the gateways of outbound routing that run, ``{name: {"address", "state"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dr_gateways
    """
    return _util("opensips_mi.gateways", _mi("dr_gw_status"))


def dr_gateway_status(gateway, state=None):
    """
    Return a gateway's state, or set it ``a`` (active) or ``i`` (no calls, no pings) and check it.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dr_gateway_status example-carrier
        salt '*sip*' opensips.dr_gateway_status example-carrier i
    """

    def look():
        return str(_mi("dr_gw_status", {"gw_id": str(gateway)}).get("State"))

    if state is None:
        return look()
    states = {"a": (1, "Active"), "i": (0, "Disabled MI")}
    if state not in states:
        raise CommandExecutionError("state must be a or i; p would be lifted by the next ping")
    number, wanted = states[state]
    return _changing("dr_gw_status", {"gw_id": str(gateway), "status": number}, look, wanted)


def dr_carrier_status(carrier, enabled=None):
    """
    Return whether a carrier gets calls, or say so and check it.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dr_carrier_status example
        salt '*sip*' opensips.dr_carrier_status example enabled=False
    """

    def look():
        return str(_mi("dr_carrier_status", {"carrier_id": str(carrier)}).get("Enabled")) == "yes"

    if enabled is None:
        return look()
    params = {"carrier_id": str(carrier), "status": int(bool(enabled))}
    return _changing("dr_carrier_status", params, look, bool(enabled))


def domain_reload():
    """
    Read the table of local domains again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.domain_reload
    """
    return _reload_table("domain_reload")


def dialplan_reload():
    """
    Read the table of number translations again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.dialplan_reload
    """
    return _reload_table("dp_reload")


def fraud_reload():
    """
    Read the thresholds of fraud detection again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.fraud_reload
    """
    return _reload_table("fraud_reload")


def registrant_reload():
    """
    Read again the table of registrations this proxy makes.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.registrant_reload
    """
    return _reload_table("reg_reload")


def tcp_reload():
    """
    Read the table of TCP settings again; connections that are up keep theirs.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.tcp_reload
    """
    return _reload_table("tcp_reload")


def tls_list():
    """
    Return the TLS domains in force, ``{name: {"side", "addresses", "names", "method"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.tls_list
    """
    return _util("opensips_mi.tls_domains", _mi("tls_list"))


def tls_reload():
    """
    Serve the certificates of the table on disk, proven by ``tls_list`` and a handshake each.

    OpenSIPS says OK also when it has dropped a domain, and serves nothing then. So every pair of
    certificate and key is verified before; if it comes out wrong all the same, the table that ran
    is put back and read again, and the error says why. Connections that are up go on. Refused from
    4.0 on, which serves the old certificate or dies of it (measured on 4.0.1): a restart takes it.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.tls_reload
    """
    if _release() >= [4, 0]:
        raise CommandExecutionError(
            "tls_reload refused: OpenSIPS 4.0 dies of it; drain, then opensips.ensure_running"
        )
    with _lock("opensips.tls_reload"):
        reconciler = _util("reconcile.of", _Daemon())
        run = reconciler.running()
        path = "dbtext/tls_mgm"
        ran = ((run or {}).get("files") or {}).get(path)
        try:
            return _reload_table("tls_reload")
        except CommandExecutionError as err:
            if ran is None or ran == _tree().get(path):
                raise
            _put(path, ran)
            back = "the table that ran is back"
            try:
                tree = _tree()
                _take_tables(tree, ("tls_mgm",))
                _mi("tls_reload", timeout=RELOAD_SECONDS)
                _verify_reload("tls_reload", tree)
            except CommandExecutionError as again:
                back = f"with the table that ran, {again}"
            raise CommandExecutionError(f"{err}; {back}") from None


def cert_served(address, port, server_name=None, timeout=HANDSHAKE_SECONDS):
    """
    Return the certificate a TLS socket serves to who asks for ``server_name``.

    The answer is ``{"fingerprint", "not_after", "subject", …}``, the fingerprint SHA-256 in
    hexadecimal. Nobody is trusted or refused: it tells what is served, be it expired.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.cert_served 10.77.0.11 5061 sip.example.org
    """
    served = _util("tls_probe.served", address, port, server_name, timeout)
    return __salt__["certificate.facts"](served)


def tls_domain(domain, certificate, side="server", test=False, **columns):
    """
    Have a TLS domain beside those of pillar serve a bundle of pillar ``certificates``.

    The key goes from pillar to the table; it is no argument and no part of the answer, which is
    that of ``edit``.

    domain
        Name of the domain.

    certificate
        Name of the bundle; its key must match, or nothing is touched.

    side
        ``server`` or ``client``.

    columns
        Other columns of ``tls_mgm``: ``match_ip_address``, ``match_sip_domain``, ``method``,
        ``verify_cert``, ``require_cert``, ``cipher_list``, ``ca_list``, ``ca_dir``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.tls_domain example default match_sip_domain=sip.example.org test=True
    """
    columns = {name: value for name, value in columns.items() if not name.startswith("__")}
    unknown = sorted(columns.keys() - set(TLS_COLUMNS))
    if unknown:
        raise CommandExecutionError(
            f"no argument {unknown[0]}; there are: {', '.join(TLS_COLUMNS)}"
        )
    if side not in TLS_SIDES:
        raise CommandExecutionError("side must be server or client")
    row = {
        "domain": str(domain),
        "type": TLS_SIDES[side],
        "match_ip_address": "*",
        "match_sip_domain": "*",
        "method": "TLSv1_2-",
        "verify_cert": 0,
        "require_cert": 0,
        **columns,
        **_bundle(certificate),
    }
    return _edit("tls_mgm", present=[row], test=test)


def rtpengine_show():
    """
    Return the RTP engines, ``{set: [{"url", "enabled", "by_hand"}]}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.rtpengine_show
    """
    return _util("opensips_mi.relays", _mi("rtpengine_show"))


def rtpengine_enable(url, enabled=True, set_id=None):
    """
    Give an RTP engine new calls, or none, and check it.

    One that is out is asked no more until it is enabled. Re-INVITEs of calls it relays go to
    another engine of its set from then on.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.rtpengine_enable udp:10.77.0.41:2223 enabled=False
    """

    def look():
        found = [
            row
            for number, rows in rtpengine_show().items()
            for row in rows
            if row["url"] == url and (set_id is None or number == str(set_id))
        ]
        if not found:
            raise CommandExecutionError(f"no RTP engine {url}; see opensips.rtpengine_show")
        return not any(row["by_hand"] for row in found)

    params = {"url": url, "enable": int(bool(enabled))}
    if set_id is not None:
        params["setid"] = int(set_id)
    return _changing("rtpengine_enable", params, look, bool(enabled))


def rtpengine_reload():
    """
    Read the table of RTP engines again; calls that are relayed go on, who is out stays out.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.rtpengine_reload
    """
    return _reload_table("rtpengine_reload")


def clusterer_reload():
    """
    Read the table of the cluster's nodes again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.clusterer_reload
    """
    return _reload_table("clusterer_reload")


def cluster_status():
    """
    Return peers, sharing tags and what is replicated, ``{"nodes", "tags", "capabilities"}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.cluster_status
    """
    return {
        "nodes": _util("opensips_mi.peers", _mi("clusterer_list")),
        "tags": shtag_list(),
        "capabilities": _util("opensips_mi.capabilities", _mi("clusterer_list_cap")),
    }


def shtag_list():
    """
    Return the sharing tags, ``{"tag/cluster": "active" or "backup"}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.shtag_list
    """
    return _util("opensips_mi.tags", _mi("clusterer_list_shtags"))


def shtag_activate(tag):
    """
    Make this proxy the active one of a sharing tag (``tag/cluster``); its peers become backup.

    Refused on a drained proxy, and for a tag it does not have, for which OpenSIPS would say OK.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.shtag_activate vip/1
    """
    if __salt__["voice.drained_mark"]():
        raise CommandExecutionError(f"{tag} stays: this proxy is drained; run voice.undrain first")

    def look():
        found = shtag_list()
        if tag not in found:
            known = ", ".join(sorted(found)) or "none"
            raise CommandExecutionError(f"no sharing tag {tag}; there are: {known}")
        return found[tag]

    return _changing("clusterer_shtag_set_active", {"tag": tag}, look, "active")


def reload_routes():
    """
    Take over the routes on disk; refused when anything but routes differs from what runs.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.reload_routes
    """
    with _lock("opensips.reload_routes"):
        daemon = _Daemon()
        reconciler = _util("reconcile.of", daemon)
        run = reconciler.running()
        if run is None:
            raise CommandExecutionError("opensips is not running; opensips.running starts it")
        pending = reconciler.owed(run, _tree())
        others = [one["do"] for one in pending["actions"] if one["do"] != "reload_routes"]
        if others:
            raise CommandExecutionError(
                "reload_routes refused, it would ignore: " + "; ".join(pending["why"])
            )
        done = _reload_routes(run["reloads"], daemon.workspace)
        reconciler.remember(run["life"], _tree(), run["system"], done)
    return {
        "result": True,
        "action": "reload_routes",
        "before": "",
        "after": "",
        "evidence": f"{done} of {MOST_ROUTE_RELOADS} reloads in this process's life",
    }


def set_draining(draining):
    """
    Refuse new calls and OPTIONS with 503, or take them again; calls that are up go on.

    Refusing also gives the sharing tags to a peer that is up, makes the load balancer's health
    socket fail, and lets the next start, by anybody, begin so. Tags are not taken back by itself.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.set_draining True
    """
    wanted = 1 if draining else 0
    with _lock("opensips.set_draining"):
        before = _draining()
        if before != bool(wanted):
            _mi("shv_set", {"name": "draining", "type": "int", "value": wanted})
        after = _draining()
        if after != bool(wanted):
            raise CommandExecutionError("shv_set draining had no effect")
        stand(bool(wanted))  # before the socket, whose unit looks there
        told = ["shv_get", *_turn_health(not wanted), *(_give_tags() if wanted else [])]
    return {
        "result": True,
        "action": f"shv_set draining {wanted}",
        "before": before,
        "after": after,
        "evidence": ", ".join(told),
    }


def drain(timeout=600, by=""):
    """
    Take the proxy out of service: refuse new calls, wait until no request is in hand.

    ``after`` is what ``drain_status`` says then; ``result`` tells whether it may be restarted.
    Dialogs that are up outlive that.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.drain timeout=60
    """
    before = drain_status(0)
    done = __salt__["voice.drain"](timeout=timeout, by=by or "opensips.drain")
    after = drain_status(0)
    told = f"{after['transactions']} requests in hand, {done['calls']} dialogs"
    if after["tags_held"]:
        told += f"; no peer is up to take {', '.join(after['tags_held'])}"
    return {
        "result": done["drained"],
        "action": "drain",
        "before": before,
        "after": after,
        "evidence": told,
    }


def undrain():
    """
    Take new calls again and remove the mark of the drain; sharing tags stay with the peer.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.undrain
    """
    return __salt__["voice.undrain"]()


def drain_status(interval=POLL_SECONDS):
    """
    Return how far a drain is; looks twice, ``interval`` seconds apart, to tell whether it is flat.

    ``{"state", "draining", "transactions", "dialogs", "flat", "tags_held", "health",
    "drained_mark"}``: states as in ``voice``, ``tags_held`` the sharing tags active here,
    ``health`` whether the load balancer is let in (None without such a socket).

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.drain_status
    """
    first = status()["calls"]
    time.sleep(float(interval))
    node, now = __salt__["voice.in_service"](), status()
    return {
        "state": node["state"],
        "draining": now["draining"],
        "transactions": now["transactions"],
        "dialogs": now["calls"],
        "flat": now["calls"] is not None and now["calls"] == first,
        "tags_held": _held_tags() if now["responding"] else [],
        "health": _health(),
        "drained_mark": node["drained_mark"],
    }


def stand(draining=None):
    """
    Write who is out of service into what a start reads, so that a start by anybody begins so.

    ``draining`` is whether this proxy is; without it, whether it bears the mark of a drain. Returns
    the files that changed.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.stand
    """
    if draining is None:
        draining = bool(__salt__["voice.drained_mark"]())
    return _stand(draining, _withdrawn_uris())


def withdrawn():
    """
    Return the peers taken out of service here, ``{minion id: {"uris", "since", "by"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.withdrawn
    """
    path = _withdrawn_path()
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandExecutionError(
            f"{path}: unreadable; mend or remove it, then check opensips.dispatcher_list"
        )
    return found


def reapply_withdrawn():
    """
    Make inactive what was withdrawn and is not inactive; return the URIs that were changed.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.reapply_withdrawn
    """
    astray = _astray()
    for set_id, uri in astray:
        dispatcher_set_state(set_id, uri, "i")
    return [uri for _, uri in astray]


def config_check(path=None, boot=True, memory=None):
    """
    Let OpenSIPS itself check a configuration: ``-C``, then a trial boot that reaches nobody.

    ``-C`` misses undefined routes, missing drivers and tables, addresses that are not ours, so a
    boot follows in a network of its own. ``memory`` is ``{"shared", "private"}`` in MiB; without
    it what /etc/default/opensips says. Returns ``{"result", "problems"}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.config_check
        salt '*sip*' opensips.config_check /etc/.opensips.previous
    """
    path = path or _opt("conf_dir")
    memory = memory or _memory()
    tree, roots = _tree(path), (path, _opt("conf_dir"))
    found = _util("opensips_lint.problems", tree)
    if found:
        return {"result": False, "problems": found}
    good, said = _util("opensips_trial.check", _opt("binary"), path, memory)
    if good and boot:
        good, said = _util(
            "opensips_trial.boot",
            _opt("binary"),
            path,
            memory,
            live=_opt("conf_dir"),
            run=str(Path(_opt("mi_socket")).parent),
            var=_opt("var_dir"),
            mi_socket=_opt("mi_socket"),
        )
        found = _util("opensips_lint.explain", said, tree, *roots, up=True) if good else []
    if not good:
        found = _util("opensips_lint.explain", said, tree, *roots)
    return {"result": not found, "problems": found}


def classify_change(old, new):
    """
    Return what it costs to go from the tree at ``old`` to that at ``new``, and the least action.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.classify_change /etc/.opensips.previous /etc/opensips
    """
    return _Daemon().classify(_tree(old), _tree(new))


def config_diff():
    """
    Compare what runs with what is on disk: the plan that leads from the one to the other.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.config_diff
    """
    reconciler = _util("reconcile.of", _Daemon())
    plan = reconciler.owed(reconciler.running(), _tree())
    return {key: plan[key] for key in ("disruption", "why", "actions")}


def render(source, context):
    """
    Render a configuration and return ``{path: SHA-256}``; contents may hold secrets.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.render salt://opensips/files '{node: …}'
    """
    rendered = _render(source, context)
    return _util("tree_render.digests", rendered)


def checks():
    """
    Return what a healthy node shows, a list of ``{"name", "ok", "detail"}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.checks
    """
    now = status()
    found = [_check("management interface answers", now["responding"], now["error"] or "yes")]
    if not now["responding"]:
        return found
    pending = config_diff()
    found.append(
        _check(
            "running configuration is the one on disk",
            pending["disruption"] == "none",
            "; ".join(pending["why"]),
        )
    )
    present, tree = _present(), _tree()
    same = present == _wanted(tree)
    found.append(_check("dispatcher holds the destinations on disk", same, len(present)))
    astray = [uri for _, uri in _astray()]
    found.append(_check("withdrawn destinations are inactive", not astray, ", ".join(astray)))
    for address, port in _util("opensips_cfg.sockets", tree):
        code = _util("sip.options", address, port, 2.0)
        good = code == 200 or (now["draining"] and code == 503)
        found.append(_check(f"{address}:{port} answers OPTIONS", good, str(code or "silence")))
    try:
        if _on_disk("tls_mgm"):
            _prove_tls(tree)
            found.append(_check("TLS sockets serve the certificates on disk", True, "yes"))
    except CommandExecutionError as err:
        found.append(_check("TLS sockets serve the certificates on disk", False, err))
    if _on_disk("clusterer"):
        capabilities = cluster_status()["capabilities"].values()
        behind = [name for states in capabilities for name, state in states.items()
                  if state.lower() != "ok"]  # fmt: skip
        found.append(_check("what the cluster replicates is synced", not behind, ", ".join(behind)))
    return found


def configure(source, context, name=None, test=False):
    """
    Bring the configuration to what ``source`` and ``context`` say, as far as calls allow.

    Renders, lets OpenSIPS check and boot it in private, exchanges the tree in one step, takes the
    least action, verifies, and goes back on failure. Returns ``{"result", "comment",
    "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.configure salt://opensips/files '{…}' test=True
    """
    rendered = _render(source, context)
    with _lock("opensips.configure", needed=not test):
        daemon = _Daemon(name, context.get("memory"))
        return _redacted(_util("reconcile.of", daemon).configure(rendered, test))


def rows(table):
    """
    Return the rows of a table as it is on disk; secrets of it are left out.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.rows dispatcher
    """
    content = _tree().get(f"dbtext/{table}")
    if content is None:
        raise CommandExecutionError(f"table {table} is not part of this configuration")
    secret = {"private_key", "password", "ha1", "ha1_sha256", "ha1_sha512t256"}
    return [
        {column: value for column, value in row.items() if column not in secret}
        for row in _util("opensips_tables.decode", table, content)
    ]


def edit(table, present=(), absent=(), only=None, test=False):
    """
    Have rows in a table beside those of pillar, or no longer, as far as calls allow.

    table
        ``address``, ``dispatcher``, ``dr_gateways``, ``load_balancer``, ``rtpengine`` or
        ``tls_mgm``; the configuration must have it.

    present
        Rows to have; columns that are not named get the table's defaults.

    absent
        Rows to have no more, told by the columns that name one (``setid`` and ``destination``).

    only
        Columns that all rows but those of ``present`` must not hold: ``{setid: 1}`` takes away
        every other row of set 1.

    What is added is noted, so that ``configure`` keeps it. A row of pillar's is never changed or
    taken away here: that is refused, naming the row. Check, exchange, reload, verification and
    answer are those of ``configure``. A private key is refused: arguments end up in the job cache;
    see ``tls_domain``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.edit dispatcher '[{setid: 2, destination: "sip:10.77.0.29:5060"}]'
    """
    if any("private_key" in row for row in present):
        raise CommandExecutionError("private_key is taken from pillar; use opensips.tls_domain")
    return _edit(table, present, absent, only, test)


def ensure_running(test=False):
    """
    Start the daemon if it is down, restart it if it must be and may be.

    Afterwards withdrawn destinations are inactive and a drained proxy refuses new calls, as
    before. Returns ``{"result", "comment", "changes"}`` as a state does.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local opensips.ensure_running test=True
    """
    with _lock("opensips.ensure_running", needed=not test):
        return _redacted(_util("reconcile.of", _Daemon()).ensure_running(test))


# -- what reconcile asks of an OpenSIPS ----------------------------------------------------------


class _Daemon:
    """This node's OpenSIPS, as ``_utils/reconcile.py`` wants it described."""

    name = "opensips"

    def __init__(self, conf_dir=None, memory=None):
        self.conf_dir = conf_dir or _opt("conf_dir")
        self.memory = memory
        self.state_dir = _opt("state_dir")
        self.system_root = _opt("system_root")
        self.owner = {"owner": _opt("user"), "group": _opt("group")}
        self.workspace = str(__opts__.get("id", "")).partition(".")[2]
        self.context = __context__
        self.util = _util

    def life(self):
        pid = _pid()
        return (f"{pid}:{_started(pid)}", _started_at(pid)) if pid else None

    def start_files(self):
        return [path for path in SYSTEM_FILES if Path(self.system_root + path).exists()]

    def problems(self, tree):
        """Let OpenSIPS look at the tree before anything of it is live; the copy goes again."""
        if not Path(_opt("binary")).exists():
            return [] if __opts__["test"] else [f"{_opt('binary')} is not installed"]
        try:
            _check_pairs(tree)
        except CommandExecutionError as err:
            return [str(err)]
        staged = _util("staged.stage", self.conf_dir, tree, **self.owner)
        try:
            return config_check(staged, memory=self.memory)["problems"]
        finally:
            _util("staged.discard", self.conf_dir)

    def rehearse(self, path, tree):
        """``problems`` has booted it already."""
        return []

    def classify(self, old, new):
        return _util("opensips_cfg.classify", old, new, _release())

    def safe_part(self, old, new):
        return _util("opensips_cfg.safe_part", old, new, _release())

    def act(self, plan, run):
        """Return how many route reloads this process has seen since."""
        reloads, tree = run["reloads"], _tree(self.conf_dir)
        for action in plan["actions"]:
            do = action["do"]
            if do == "reload_routes":
                reloads = _reload_routes(reloads, self.workspace)
            elif do in ("dbt_reload", "sync"):
                _take_tables(tree)
            else:
                _run_reload(do, tree)
        return reloads

    def verify(self, plan, tree):
        for action in plan["actions"]:
            if action["do"] in RELOADS:
                _verify_reload(action["do"], tree)

    def undo(self, plan, tree, run):
        try:
            self.act(plan, run)
        except CommandExecutionError:
            return

    def service(self, verb):
        """Start or restart it with everything in place that the start reads."""
        held = _withdrawn_uris()
        if verb == "restart" and status()["responding"]:
            _settle()
            # Whom a person took out by hand stays out, too.
            held |= {
                row["uri"]
                for rows in dispatcher_list().values()
                for row in rows
                if row["state"] == "Inactive"
            }
        _prepare(_tree(self.conf_dir))
        _stand(bool(__salt__["voice.drained_mark"]()), held, note=False)
        if not __salt__["service.enabled"]("opensips"):
            __salt__["service.enable"]("opensips")
        if not __salt__[f"service.{verb}"]("opensips"):
            raise CommandExecutionError(f"systemd could not {verb} opensips; see its journal")

    def units_changed(self):
        __salt__["service.systemctl_reload"]()

    def await_start(self, before):
        deadline = time.monotonic() + START_SECONDS
        now = status()
        while not _ready(now) or (self.life() or (before,))[0] == before:
            if time.monotonic() > deadline:
                raise CommandExecutionError(
                    f"opensips is not up {START_SECONDS:g} s after its start: {now['error']};"
                    " see `journalctl -u opensips`"
                )
            time.sleep(0.1)
            now = status()

    def node(self):
        return __salt__["voice.in_service"]()

    def kept_out(self):
        draining = ["draining"] if __salt__["voice.drained_mark"]() else []
        return draining + [f"ds_set_state i {uri}" for uri in sorted(_withdrawn_uris())]

    def strayed(self):
        if __salt__["voice.drained_mark"]():
            found = [] if _draining() else ["draining"]
            found += [f"stop {HEALTH_SOCKET}"] if _health() else []
            found += [f"give {tag} to node {peer}" for tag, peer in _takers().items() if peer]
        else:
            found = [f"start {HEALTH_SOCKET}"] if _health() is False else []
        return found + [f"ds_set_state i {uri}" for _, uri in _astray()]

    def keep_out(self):
        if __salt__["voice.drained_mark"]():
            set_draining(True)
        else:
            _turn_health(True)
        reapply_withdrawn()


# -- tables --------------------------------------------------------------------------------------


def _reload_table(command):
    """Take a table from disk and make it effective; what runs afterwards is what it holds."""
    with _lock(f"opensips.{command}"):
        tree = _tree()
        before = _looked(command)
        _take_tables(tree, RELOADS[command][1])
        _run_reload(command, tree)
        _verify_reload(command, tree)
        after = _looked(command)
        _note_tables(tree, RELOADS[command][1])
    taken = "sync" if _util("opensips_cfg.driver", tree) == "sqlite" else "dbt_reload"
    return {
        "result": True,
        "action": f"{taken} {command}",
        "before": before,
        "after": after,
        "evidence": LOOKS.get(command, command),
    }


def _take_tables(tree, tables=None):
    """Let the daemon's database hold what a tree has: all tables, or these.

    Without it ds_reload says OK and takes what was cached, or what sqlite had.
    """
    if _util("opensips_cfg.driver", tree) == "text":
        _mi("dbt_reload", timeout=RELOAD_SECONDS)
        return
    if tables is not None:
        tree = {
            path: content
            for path, content in tree.items()
            if path == "dbtext/version" or path.removeprefix("dbtext/") in tables
        }
    owner, group = _opt("user"), _opt("group")
    _util("opensips_db.sync", _database(), tree, owner=owner, group=group)


def _run_reload(command, tree):
    if command not in RELOADS:
        raise CommandExecutionError(f"no action {command!r} is known")
    if command == "tls_reload":
        _check_pairs(tree)
    _mi(command, RELOADS[command][0], timeout=RELOAD_SECONDS)
    if command == "ds_reload":
        reapply_withdrawn()


def _looked(command):
    """Return what the daemon holds of a table, None where it does not say."""
    match command:
        case "address_reload":
            return address_dump()
        case "clusterer_reload":
            return _util("opensips_mi.peers", _mi("clusterer_list"))
        case "domain_reload":
            return _util("opensips_mi.domains", _mi("domain_dump"))
        case "dr_reload":
            return dr_gateways()
        case "ds_reload":
            return dispatcher_list()
        case "lb_reload":
            return lb_list()
        case "reg_reload":
            return _util("opensips_mi.registrants", _mi("reg_list"))
        case "rtpengine_reload":
            return rtpengine_show()
        case "tls_reload":
            return tls_list()
    return None


LOOKS = {
    "address_reload": "address_dump subnet_dump",
    "clusterer_reload": "clusterer_list",
    "domain_reload": "domain_dump",
    "dr_reload": "dr_gw_status",
    "ds_reload": "ds_list",
    "lb_reload": "lb_list",
    "reg_reload": "reg_list",
    "rtpengine_reload": "rtpengine_show",
    "tls_reload": "tls_list, a handshake for each domain",
}


def _verify_reload(command, tree):
    """Compare what the daemon holds with a tree: all of these commands say OK of anything."""
    if command == "dp_reload":
        _verify_translations(tree)
    if command not in LOOKS:
        return
    table = RELOADS[command][1][0]
    if command == "ds_reload":  # may hold many rows
        right = _present() == _wanted(tree)
    else:
        right = _util("opensips_mi.same", command, _looked(command), _table(tree, table))
    if not right:
        remedy = "; its certificate or key cannot be used" if command == "tls_reload" else ""
        raise CommandExecutionError(
            f"{command} said OK but {LOOKS[command].partition(',')[0]} does not show what table"
            f" {table} holds on disk{remedy}"
        )
    if command == "tls_reload":
        _prove_tls(tree)


def _verify_translations(tree):
    """Ask for a translation by each set: one bad expression makes all of them vanish."""
    for number in sorted({row["dpid"] for row in _table(tree, "dialplan")}):
        try:
            _mi("dp_translate", {"dpid": str(number), "input": "0"})
        except CommandExecutionError as err:
            if "No information available" in str(err):
                raise CommandExecutionError(
                    f"dp_reload said OK but set {number} is gone; one of its expressions is none"
                ) from None


def _on_disk(table):
    return (Path(_opt("conf_dir")) / "dbtext" / table).exists()


def _table(tree, name):
    return _util("opensips_tables.decode", name, tree.get(f"dbtext/{name}", b""))


def _put(path, content):
    """Have a file of the live tree hold this, in one step."""
    _util("staged.write_file", f"{_opt('conf_dir')}/{path}", content, 0o640)


def _note_tables(tree, tables):
    """Remember that this life has read these tables; the rest is owed as before."""
    reconciler = _util("reconcile.of", _Daemon())
    run = reconciler.running()
    if run is None or run["files"] is None:
        return
    paths = [f"dbtext/{table}" for table in tables]
    files = {path: content for path, content in run["files"].items() if path not in paths}
    files.update({path: tree[path] for path in paths if path in tree})
    reconciler.remember(run["life"], files, run["system"], run["reloads"])


def _check_pairs(tree):
    """Verify every certificate with its key before OpenSIPS drops the domain without a word."""
    _util("opensips_tls.check_ciphers", _table(tree, "tls_mgm"))
    for row in _util("opensips_tls.pairs", _table(tree, "tls_mgm")):
        # A domain may be named sip.example.org, which no certificate is.
        name = re.sub(r"[^a-z0-9-]", "-", f"domain-{row['domain'].lower()}")
        __salt__["certificate.verify"](name, row["certificate"], row["private_key"])


def _bundle(certificate):
    """Verify a bundle of pillar ``certificates`` and return it as columns of a TLS domain."""
    where = f"certificates:{certificate}"
    found = _resolved(__salt__["pillar.get"](where, {}, unmask=True), where)
    if not isinstance(found, dict) or not {"chain", "key"} <= set(found):
        raise CommandExecutionError(f"pillar {where} must hold chain and key")
    made = {"certificate": str(found["chain"]), "private_key": str(found["key"])}
    __salt__["certificate.verify"](certificate, made["certificate"], made["private_key"])
    return made


def _prove_tls(tree):
    """Shake hands with every TLS socket, for every domain that stands behind it."""
    sockets = _util("opensips_cfg.sockets", tree, "tls", "wss")
    for one in _util("opensips_tls.expected", _table(tree, "tls_mgm"), sockets):
        asked = __salt__["certificate.facts"](one["certificate"])
        served = cert_served(one["address"], one["port"], one["server_name"])
        if served["fingerprint"] != asked["fingerprint"]:
            raise CommandExecutionError(
                f"{one['address']}:{one['port']} serves another certificate than that of TLS"
                f" domain {one['domain']}; it ends {served['not_after']}"
            )


# -- rows that states added ----------------------------------------------------------------------


def _edit(table, present=(), absent=(), only=None, test=False):
    """Have rows beside those of pillar, or no longer, and note them for ``configure``."""
    with _lock("opensips.edit", needed=not test):
        tree, extra = _tree(), _extra()
        path = f"dbtext/{table}"
        if table not in _extra_tables() or path not in tree:
            raise CommandExecutionError(
                f"table {table} is not part of this configuration; pillar opensips asks for it"
            )
        whole, ours = _util(
            "opensips_extra.changed",
            table,
            _util("opensips_tables.decode", table, tree[path]),
            extra.get(table, []),
            present=_completed(table, present),
            absent=absent,
            only=only,
        )
        content = _util("opensips_tables.encode", table, whole)
        rendered = {"tree": {**tree, path: content}, "system": []}
        reconciler = _util("reconcile.of", _Daemon())
        if test:
            return _redacted(reconciler.configure(rendered, True))
        # Noted first: what a crash leaves undone, the next `configure` does.
        _note_extra({**extra, table: ours})
        done = {"result": False}
        try:
            done = reconciler.configure(rendered, False)
        finally:
            if done["result"] is False:
                _note_extra(extra)
        return _redacted(done)


def _extra_path():
    return Path(_opt("state_dir")) / "opensips.rows.json"


def _extra():
    """Return table -> rows that ``edit`` added beside those of pillar."""
    try:
        found = json.loads(_extra_path().read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandExecutionError(
            f"{_extra_path()}: unreadable; remove it, then apply the states that add rows"
        )
    return found


def _note_extra(extra):
    path = _extra_path()
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    kept = {table: found for table, found in sorted(extra.items()) if found}
    _util("staged.put_file", str(path), json.dumps(kept).encode() if kept else None, 0o600)


def _with_extra(tree):
    """Return a tree of pillar's with the rows that ``edit`` added."""
    made = dict(tree)
    for table, extra in _extra().items():
        path = f"dbtext/{table}"
        if path not in tree or table not in _extra_tables():
            continue
        whole = _util("opensips_extra.joined", table, _table(tree, table), _stated(table, extra))
        made[path] = _util("opensips_tables.encode", table, whole)
    return made


def _extra_tables():
    return _util("opensips_extra.tables")


def _completed(table, rows):
    """Return rows with the table's defaults, as they would be read from its file."""
    content = _util("opensips_tables.encode", table, [dict(row) for row in rows])
    return _stated(table, _util("opensips_tables.decode", table, content))


def _stated(table, rows):
    """Have a destination that is withdrawn begin inactive, also when its row comes back."""
    if table != "dispatcher":
        return rows
    out = _withdrawn_uris()
    return [{**row, "state": int(row["destination"] in out)} for row in rows]


# -- drain ---------------------------------------------------------------------------------------


def _stand(draining, uris, note=True):
    if note:
        reconciler = _util("reconcile.of", _Daemon())
        reconciler.note(reconciler.running())  # what runs, before a file changes
    tree, out = _tree(), sorted(uris)
    changed = _util("opensips_standing.changes", tree, draining=bool(draining), withdrawn=out)
    for path, content in changed.items():
        _put(path, content)
    if _util("opensips_cfg.driver", tree) == "text":
        return list(changed)
    turned = _util("opensips_db.withdraw", _database(), out)
    return [*changed, *([_database()] if turned else [])]


def _prepare(tree):
    """Have the databases that a start needs: Salt's tables, and those that calls write."""
    owner = {"owner": _opt("user"), "group": _opt("group")}
    if _util("opensips_cfg.driver", tree) == "sqlite":
        _util("opensips_db.sync", _database(), tree, **owner)
    else:
        _util("opensips_db.seed", str(Path(_opt("var_dir")) / "dbtext"), tree, **owner)


def _settle():
    """Wait a little for a moment without a request in hand, dialogs neither more nor fewer."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before = None
    while time.monotonic() < deadline:
        now = status()
        if now["transactions"] == 0 and now["calls"] == before:
            return
        before = now["calls"]
        time.sleep(POLL_SECONDS)


def _has_health_socket():
    return Path(f"{_opt('system_root')}/etc/systemd/system/{HEALTH_SOCKET}").exists()


def _health():
    """Tell whether the load balancer finds its port open, None where there is none."""
    return bool(__salt__["service.status"](HEALTH_SOCKET)) if _has_health_socket() else None


def _turn_health(takes_calls):
    """Open or close the port by which a load balancer knows us; return what was done."""
    now = _health()
    if now is None or now == takes_calls:
        return []
    verb = "start" if takes_calls else "stop"
    if not __salt__[f"service.{verb}"](HEALTH_SOCKET):
        raise CommandExecutionError(f"systemd could not {verb} {HEALTH_SOCKET}; see its journal")
    return [f"{HEALTH_SOCKET} {'open' if takes_calls else 'closed'}"]


def _held_tags():
    """Return the sharing tags that are active here."""
    if not _on_disk("clusterer"):
        return []
    return sorted(tag for tag, state in shtag_list().items() if state == "active")


def _takers():
    """Return the sharing tags that are active here -> the peer that may take each, or None."""
    held = _held_tags()
    peers = _util("opensips_mi.peers", _mi("clusterer_list")) if held else {}
    found = {}
    for tag in held:
        nodes = peers.get(tag.rpartition("/")[2], [])
        found[tag] = min((node["id"] for node in nodes if node["up"] and node["enabled"]),
                         default=None)  # fmt: skip
    return found


def _give_tags():
    """Have a peer take each sharing tag that is active here; return what was done.

    A tag is given by being taken: the peer is told to, over the cluster's own link, by the old name
    of the command, which every release knows. Without a peer that is up, tags stay.
    """
    told = []
    for tag, peer in _takers().items():
        if peer is None:
            told.append(f"{tag} stays: no peer is up")
            continue
        params = {
            "cluster_id": int(tag.rpartition("/")[2]),
            "destination": peer,
            "cmd_name": "clusterer_shtag_set_active",
            "cmd_params": [tag],
        }
        _mi("cluster_send_mi", params)
        deadline = time.monotonic() + TAG_SECONDS
        while tag in _held_tags():
            if time.monotonic() >= deadline:
                raise CommandExecutionError(
                    f"node {peer} did not take {tag} within {TAG_SECONDS:g} s;"
                    " run opensips.shtag_activate there"
                )
            time.sleep(0.05)
        told.append(f"{tag} given to node {peer}")
    return told


def _moved(uri, state, by):
    """Withdraw or restore one destination, in every set, and note it."""
    with _lock("opensips.dispatcher_withdraw" if state == "i" else "opensips.dispatcher_restore"):
        sets = [number for number, rows in dispatcher_list().items()
                if uri in {row["uri"] for row in rows}]  # fmt: skip
        if not sets:
            raise CommandExecutionError(f"{uri} is in no set; see opensips.dispatcher_list")
        noted = withdrawn()
        whose = [peer for peer, note in noted.items() if peer != uri and uri in note["uris"]]
        if state == "a" and whose:
            raise CommandExecutionError(f"{uri} stays out: {whose[0]} is; voice.restore it")
        if state == "a":
            noted.pop(uri, None)
        elif not whose:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            noted.setdefault(uri, {"uris": [uri], "since": since, "by": by or "a person"})
        _note_withdrawn(noted)
        done = [dispatcher_set_state(number, uri, state) for number in sets]
        stand()
    return {
        "result": True,
        "action": f"{'withdraw' if state == 'i' else 'restore'} {uri}",
        "before": [step["before"] for step in done],
        "after": [step["after"] for step in done],
        "evidence": [step["action"] for step in done],
    }


def _note_withdrawn(noted):
    path = _withdrawn_path()
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    _util("staged.write_file", str(path), json.dumps(noted).encode(), 0o640)


def _changing(command, params, look, wanted):
    """Run one command unless it is so already, and check it by looking again."""
    with _lock(f"opensips.{command}"):
        before = look()
        if before != wanted:
            _mi(command, params)
        after = look()
    told = " ".join([command, *map(str, params.values())])
    if after != wanted:
        raise CommandExecutionError(f"{told} had no effect: it is {after}")
    return {"result": True, "action": told, "before": before, "after": after, "evidence": command}


def _reload_routes(reloads, workspace):
    if reloads >= MOST_ROUTE_RELOADS:
        raise CommandExecutionError(
            f"reload_routes refused: {MOST_ROUTE_RELOADS} in this process's life leak its memory;"
            f" run `guardian deploy {workspace}` for a restart"
        )
    if _free_memory() < LEAST_FREE:
        raise CommandExecutionError(
            "reload_routes refused: it leaks memory, and a process has less than"
            f" {LEAST_FREE >> 20} MiB left; run `guardian deploy {workspace}` for a restart"
        )
    _mi("reload_routes", timeout=15.0)
    return reloads + 1


def _free_memory():
    """Return the private memory, in bytes, of the process that has least; much where none tells."""
    told = statistics("pkmem:")
    free = (int(value) for name, value in told.items() if name.endswith("-free_size"))
    return min((size for size in free if size), default=LEAST_FREE)  # 0: it has not begun yet


# -- what runs -----------------------------------------------------------------------------------


def _ready(now):
    """Tell whether it serves: MI answers before every table is read."""
    if not now["responding"]:
        return False
    try:
        return int(_mi("sr_get_status", {"group": "core"})["Status"]) > 0
    except (CommandExecutionError, KeyError, TypeError, ValueError):
        return True  # no status report to ask


def _present():
    """Return set id -> URIs that the daemon holds."""
    return {number: {row["uri"] for row in rows} for number, rows in dispatcher_list().items()}


def _wanted(tree):
    """Return set id -> URIs of the table in a tree."""
    return _util("opensips_cfg.destinations", tree)


def _withdrawn_uris():
    return {uri for peer in withdrawn().values() for uri in peer.get("uris", [])}


def _astray():
    """Return (set id, URI) of what is withdrawn and yet not inactive."""
    uris = _withdrawn_uris()
    return [
        (set_id, row["uri"])
        for set_id, rows in (dispatcher_list().items() if uris else ())
        for row in rows
        if row["uri"] in uris and row["state"] != "Inactive"
    ]


def _withdrawn_path():
    return Path(_opt("state_dir")) / "withdrawn.json"


def _draining():
    return str(_mi("shv_get", {"name": "draining"})["VAR"]["value"]) == "1"


def _memory():
    """Return the memory that a start gives the daemon, as /etc/default/opensips has it."""
    try:
        text = Path(_opt("system_root") + DEFAULTS_FILE).read_text()
    except OSError:
        return {}
    found = dict(re.findall(r"^([SP])_MEMORY=(\d+)$", text, re.MULTILINE))
    names = {"S": "shared", "P": "private"}
    return {names[key]: int(size) for key, size in found.items()}


def _pinged():
    """How many transactions the proxy's own pings may hold at a time.

    One lingers for five seconds after its answer, tm's wt_timer, and a silent one waits before
    that: three destinations pinged every second hold up to 21 (measured on 3.4.18).
    """
    destinations = sum(
        row["state"] != "Inactive" for rows in dispatcher_list().values() for row in rows
    )
    try:
        gateways = (Path(_opt("conf_dir")) / "dbtext/dr_gateways").read_bytes().count(b"\n") - 1
    except OSError:
        gateways = 0
    conf = _util("staged.read", f"{_opt('conf_dir')}/conf.d")  # asked at every poll: no tables
    said = b"".join(content or b"" for content in conf.values())

    def told(pattern, otherwise):
        found = re.search(pattern, said)
        return int(found[1]) if found else otherwise

    lingers = told(rb'"tm", *"fr_timeout", *(\d+)', 5) + told(rb'"tm", *"wt_timer", *(\d+)', 5)
    every = max(1, told(rb'"dispatcher", *"ds_ping_interval", *(\d+)', lingers))
    return (destinations + gateways) * math.ceil(lingers / every)


def _state_of(set_id, uri):
    for destination in dispatcher_list().get(str(set_id), []):
        if destination["uri"] == uri:
            return destination["state"]
    raise CommandExecutionError(f"{uri} is not in set {set_id}; see opensips.dispatcher_list")


def _pid():
    try:
        pid = int(Path(_opt("pidfile")).read_text().strip())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid if _started(pid) else None


def _started(pid):
    """Return the process's start in clock ticks since boot, None if it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _started_at(pid):
    """Return the process's start as seconds of the epoch, rather too early than too late."""
    ticks = (_started(pid) or 0) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks


# -- small things --------------------------------------------------------------------------------


def _check(name, good, detail):
    return {"name": name, "ok": bool(good), "detail": str(detail)}


def _opt(name):
    return __opts__.get(f"opensips.{name}") or DEFAULTS[name]


def _mi(command, params=None, timeout=5.0):
    return _util("mi.call", command, params, socket=_opt("mi_socket"), timeout=timeout)


def _util(name, *arguments, **keywords):
    """Call one of our utils; what it raises is one finished line."""
    try:
        return __utils__[name](*arguments, **keywords)
    except (OSError, ValueError) as err:
        raise CommandExecutionError(_redacted(str(err))) from None


def _redacted(told):
    """Return what a check, a template or the daemon says, without a secret that it may quote."""
    given = __salt__["pillar.get"]("secret_values", {}, unmask=True)
    return __utils__["secret_seal.redacted"](told, given)


def _lock(who, needed=True):
    path = str(Path(_opt("state_dir")) / "lock")
    return __utils__["nodelock.hold"](who, path=path, needed=needed)


def _database():
    return str(Path(_opt("var_dir")) / "opensips.sqlite")


def _render(source, context):
    directory = _util("tree_render.fetch", source, __salt__["cp.cache_dir"])
    cache = str(Path(__opts__["cachedir"]) / "guardian-templates")
    context = {
        **_resolved(context, "opensips"),
        "release": _release(),
        "local_driver": _local_driver(context),
        "draining": bool(__salt__["voice.drained_mark"]()),
        "withdrawn": sorted(_withdrawn_uris()),
    }
    return _util("tree_render.render", directory, context, cache, "opensips", _tables(context))


def _resolved(value, where):
    """Return what states hand over with the secrets it refers to, which only files may hold."""
    given = __salt__["pillar.get"]("secret_values", {}, unmask=True)
    secrets = _util("secret_seal.opened", given)
    return _util("secret_refs.resolve", value, secrets, where)


def _release():
    """Return the release that is installed, ``[3, 4, 18]``; the oldest we know if none is."""
    binary = Path(_opt("binary"))
    try:
        found = binary.stat()
    except OSError:
        return [3, 4, 0]
    key = f"opensips.release:{binary}:{found.st_ino}:{found.st_mtime_ns}"
    if key not in __context__:
        told = __salt__["cmd.run_stdout"]([str(binary), "-V"], python_shell=False)
        match = re.search(r"opensips (\d{1,4})\.(\d{1,4})\.(\d{1,4})", told)
        __context__[key] = [int(number) for number in match.groups()] if match else [3, 4, 0]
    return __context__[key]


def _local_driver(context):
    """Return where Salt's tables are to be read from: sqlite where its module is, or as told."""
    wanted = (context.get("database") or {}).get("local", "auto")
    if wanted != "auto":
        return wanted
    told = context.get("module_path")
    places = [Path(told)] if told else Path(LIBRARIES).glob(MODULE_PATH)
    return "sqlite" if any((place / "db_sqlite.so").exists() for place in places) else "text"


def _tables(context):
    """Return the files of the tree that are tables."""
    planned = _planned_certificates(context)
    # No function of this module: called by a util, it would have no utils itself.
    rows = _util(
        "opensips_rows.rows", context, lambda path: planned.get(path) or Path(path).read_bytes()
    )
    release = context.get("release", (3, 4))
    elsewhere = _util("opensips_rows.filled_elsewhere", context)
    driver = context.get("local_driver")
    made = _util("opensips_tables.files", rows, release, elsewhere, driver=driver)
    return _with_extra(made)


def _planned_certificates(context):
    """Return {path: content} of certificates not deployed yet, as test mode finds them."""
    known = __salt__["pillar.get"]("certificates", {}, unmask=True)
    return {
        f"{directory}/{file}": bundle[column].encode()
        for name, directory in (context.get("certificates") or {}).items()
        if name in known and not Path(directory).exists()
        for bundle in [_bundle(name)]
        for file, column in (("chain.pem", "certificate"), ("key.pem", "private_key"))
    }


def _tree(path=None):
    found = _util("staged.read", path or _opt("conf_dir"))
    return {name: content or b"" for name, content in found.items()}
