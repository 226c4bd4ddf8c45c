"""Keep OpenSIPS installed, configured and running, without costing a call.

On a node in service nothing above a reload ever happens: the state fails and says what it would
take. ``changes`` holds ``disruption`` (none, reload, restart), ``why`` and ``actions``.
"""

from __future__ import annotations

import ipaddress
import json

from salt.exceptions import CommandExecutionError

__virtualname__ = "opensips"


def __virtual__():  # noqa: N807
    if "opensips.configure" in __salt__:
        return __virtualname__
    return False, "the opensips execution module is not synced; run saltutil.sync_all"


def installed(name, version=None, hold=True, modules=None):
    """
    Have the package installed and held, and packages of modules of the same version.

    name
        The package.

    version
        The exact version to have; without it any installed version is left alone. Another version
        than the one installed needs a node that is out of service.

    hold
        Hold the packages, so that no routine upgrade restarts the daemon.

    modules
        Packages of modules to have besides: ``[opensips-sqlite-module]``.

    .. code-block:: yaml

        OpenSIPS is installed:
          opensips.installed:
            - name: opensips
            - modules: [opensips-sqlite-module, opensips-tls-openssl-module]
    """
    ret = _state(
        name, "voice.install_package", name, service="opensips", version=version, hold=hold
    )
    for module in modules or []:
        if ret["result"] is False:
            return ret
        # A module of another version would not load: it comes with that of the daemon.
        same = version or __salt__["pkg.version"](name) or None
        more = _state(
            name, "voice.install_package", module, service="opensips", version=same, hold=hold
        )
        ret = _joined(ret, more, module)
    return ret


def configured(name="/etc/opensips", source="salt://opensips/files", context=None):
    """
    Have the whole configuration as ``source`` and ``context`` make it.

    name
        The directory OpenSIPS reads.

    source
        A directory of templates with its ``manifest.yaml``.

    context
        All the templates may use; they read no pillar. A mapping, or the same as JSON text: Salt
        looks for slots in every value of a mapping, 0.3 s of CPU with 10,000 destinations. Secrets
        in it are references, which are resolved where files are written.

    OpenSIPS itself checks the tree and boots it in a network of its own before it is exchanged in
    one step and applied by the least action. On a node in service, files that need a restart stay
    as they are and the state fails with the plan.

    .. code-block:: yaml

        OpenSIPS is configured:
          opensips.configured:
            - name: /etc/opensips
            - source: salt://opensips/files
            - context: {node: {address: 10.77.0.11}, dispatcher: {1: []}}
    """
    try:
        context = json.loads(context) if isinstance(context, str) else context or {}
    except ValueError:
        return _failed(name, "context is neither a mapping nor JSON; see opensips/configured.sls")
    return _state(name, "opensips.configure", source, context, name=name)


def running(name="opensips"):
    """
    Have the daemon running what is on disk.

    Starts it if it is down. Restarts it if what runs is not what is on disk, on a node that is out
    of service only. Destinations that were withdrawn stay inactive, a drained proxy stays drained.

    .. code-block:: yaml

        OpenSIPS is running:
          opensips.running:
            - require:
              - opensips: OpenSIPS is configured
    """
    return _state(name, "opensips.ensure_running")


def dispatcher_present(name, set_id, weight=None, attrs=None, priority=None, socket=None):
    """
    Have a destination in a dispatcher set; its state is drain's and is never touched.

    name
        The SIP URI.

    set_id
        The set.

    weight, attrs, priority, socket
        Columns of the table; ``attrs`` begins with the name of the node, for ``voice.withdraw``.

    For destinations that pillar does not name: ``opensips.configured`` keeps them. One that pillar
    has otherwise is refused. A withdrawn destination whose row comes back stays inactive.

    .. code-block:: yaml

        sip:10.77.0.29:5060:
          opensips.dispatcher_present:
            - set_id: 1
            - attrs: pbx-09
    """
    row = {"setid": int(set_id), "destination": name, "probe_mode": 1}
    row.update(_given(weight=weight and str(weight), attrs=attrs, priority=priority, socket=socket))
    return _state(name, "opensips.edit", "dispatcher", present=[row])


def dispatcher_absent(name, set_id):
    """
    Have a destination in a dispatcher set no more; calls that are up with it go on.

    .. code-block:: yaml

        sip:10.77.0.29:5060:
          opensips.dispatcher_absent:
            - set_id: 1
    """
    row = {"setid": int(set_id), "destination": name}
    return _state(name, "opensips.edit", "dispatcher", absent=[row])


def dispatcher_set_managed(name, set_id, destinations):
    """
    Have exactly these destinations in a dispatcher set; others are taken away.

    set_id
        The set.

    destinations
        ``[{uri, weight, attrs}]``; the last two may be left out.

    .. code-block:: yaml

        Set 7 is this one PBX:
          opensips.dispatcher_set_managed:
            - set_id: 7
            - destinations:
              - {uri: "sip:10.77.0.29:5060", attrs: pbx-09}
    """
    rows = [
        {"setid": int(set_id), "destination": one["uri"], "probe_mode": 1}
        | _given(weight=one.get("weight") and str(one["weight"]), attrs=one.get("attrs"))
        for one in destinations
    ]
    only = {"setid": int(set_id)}
    return _state(name, "opensips.edit", "dispatcher", present=rows, only=only)


def dispatcher_state(name, active=True):
    """
    Have a destination active or not, in every set, restarts of the proxy included.

    name
        The SIP URI.

    active
        ``False``: no new calls and no pings. One of a node that was withdrawn whole is not made
        active: ``voice.restore`` does that. (``state`` is a word that Salt keeps for itself.)

    .. code-block:: yaml

        sip:10.77.0.21:5060:
          opensips.dispatcher_state:
            - active: false
    """

    def look():
        found = __salt__["opensips.dispatcher_list"]().values()
        states = {row["state"] for rows in found for row in rows if row["uri"] == name}
        if not states:
            raise CommandExecutionError(f"{name} is in no set; see opensips.dispatcher_list")
        # Probing is what its own pings found: it is in service as far as anybody said.
        return "inactive" if "Inactive" in states else "active"

    if active:
        return _turned(name, look, "active", "opensips.dispatcher_restore", name)
    by = "opensips.dispatcher_state"
    return _turned(name, look, "inactive", "opensips.dispatcher_withdraw", name, by)


def lb_destination_present(name, group, resources, probe_mode=None, attrs=None):
    """
    Have a destination of the load balancer; whether it is enabled is left alone.

    name
        The SIP URI.

    group
        Its group.

    resources
        What it carries: ``calls=30;transcoding=10``, or a mapping.

    .. code-block:: yaml

        sip:10.77.0.29:5060:
          opensips.lb_destination_present:
            - group: 1
            - resources: {calls: 30}
    """
    if isinstance(resources, dict):
        resources = ";".join(f"{key}={value}" for key, value in resources.items())
    row = {"group_id": int(group), "dst_uri": name, "resources": resources}
    row.update(_given(probe_mode=probe_mode, attrs=attrs))
    return _state(name, "opensips.edit", "load_balancer", present=[row])


def address_present(name, group=1, proto="any", port=None, info=None):
    """
    Have an address or network in a group of the address table.

    name
        The address, or ``address/length``.

    group
        1 may call without a login, 2 is the fleet, 3 is banned.

    .. code-block:: yaml

        192.0.2.0/24:
          opensips.address_present:
            - group: 1
    """
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        return _failed(name, f"{name!r} is neither an address nor a network")
    row = {
        "grp": int(group),
        "ip": str(network.network_address),
        "mask": network.prefixlen,
        "proto": proto,
    }
    row.update(_given(port=port, context_info=info))
    return _state(name, "opensips.edit", "address", present=[row])


def dr_gateway_present(name, address, **columns):
    """
    Have a gateway of outbound routing; whether it is enabled is left alone.

    name
        The gateway.

    address
        Its SIP URI.

    columns
        Other columns of ``dr_gateways``: ``strip``, ``pri_prefix``, ``attrs``, ``probe_mode``,
        ``socket``.

    .. code-block:: yaml

        example-carrier:
          opensips.dr_gateway_present:
            - address: sip:192.0.2.7:5060
            - strip: 1
    """
    known = ("strip", "pri_prefix", "attrs", "probe_mode", "socket", "description")
    columns = {key: value for key, value in columns.items() if not key.startswith("__")}
    unknown = sorted(columns.keys() - known)
    if unknown:
        return _failed(name, f"no argument {unknown[0]}; there are {', '.join(known)}")
    row = {"gwid": name, "address": address, **columns}
    return _state(name, "opensips.edit", "dr_gateways", present=[row])


def tls_domain_present(name, certificate, side="server", **columns):
    """
    Have a TLS domain serve a certificate of pillar ``certificates``, proven by a handshake.

    name
        The domain.

    certificate
        Name of the bundle; its key must match, or nothing is touched.

    side
        ``server`` or ``client``.

    columns
        Other columns of ``tls_mgm``: ``match_ip_address``, ``match_sip_domain``, ``method``,
        ``verify_cert``, ``require_cert``, ``cipher_list``, ``ca_list``, ``ca_dir``.

    .. code-block:: yaml

        sip.example.org:
          opensips.tls_domain_present:
            - certificate: default
            - match_sip_domain: sip.example.org
    """
    return _state(name, "opensips.tls_domain", name, certificate, side, **columns)


def rtpengine_node_present(name, set_id=1):
    """
    Have an RTP engine in a set; calls that are relayed go on, who is out stays out.

    name
        Its control socket, ``udp:10.77.0.41:2223``; ``=2`` at its end is a weight.

    .. code-block:: yaml

        udp:10.77.0.41:2223:
          opensips.rtpengine_node_present:
            - set_id: 1
    """
    row = {"socket": name, "set_id": int(set_id)}
    return _state(name, "opensips.edit", "rtpengine", present=[row])


def shtag_active(name):
    """
    Have this proxy the active one of a sharing tag, ``tag/cluster``.

    A drained proxy takes none: the state fails.

    .. code-block:: yaml

        vip/1:
          opensips.shtag_active: []
    """

    def look():
        return __salt__["opensips.shtag_list"]().get(name, "absent")

    return _turned(name, look, "active", "opensips.shtag_activate", name)


def drained(name, timeout=600):
    """
    Have the proxy refuse new calls and no request in hand, ``timeout`` seconds at most.

    Dialogs that are up are no obstacle: they find their way across a restart.

    .. code-block:: yaml

        Proxy is empty:
          opensips.drained:
            - timeout: 60
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "drained already"}
    state = __salt__["voice.in_service"]()["state"]
    if state == "out_of_service":
        return ret
    ret["changes"] = {"state": {"old": state, "new": "out_of_service"}}
    if __opts__["test"]:
        return {**ret, "result": None, "comment": "would be drained"}
    try:
        done = __salt__["opensips.drain"](timeout=timeout, by="opensips.drained")
    except CommandExecutionError as err:
        return _failed(name, str(err))
    ret["comment"] = done["evidence"]
    if not done["result"]:
        ret["changes"]["state"]["new"] = done["after"]["state"]
        ret.update(result=False, comment=f"{done['evidence']} after {timeout} s")
    return ret


def in_service(name):
    """
    Have the proxy take calls, all its checks passed.

    A proxy that fails a check is not put into service; the comment names the checks.

    .. code-block:: yaml

        Proxy takes calls:
          opensips.in_service:
            - require:
              - opensips: OpenSIPS is running
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": "in service"}
    try:
        failed = [check for check in __salt__["voice.checks"]()["checks"] if not check["ok"]]
        if failed:
            told = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
            return {**ret, "result": False, "comment": f"checks failed: {told}"}
        state = __salt__["voice.in_service"]()["state"]
        if state == "in_service":
            return ret
        ret["changes"] = {"state": {"old": state, "new": "in_service"}}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": "would be put into service"}
        __salt__["voice.undrain"]()
    except CommandExecutionError as err:
        return _failed(name, str(err))
    return ret


def _turned(name, look, wanted, function, *arguments):
    """Have what ``look`` sees be ``wanted``, by one function that checks itself."""
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{name} is {wanted}"}
    try:
        before = look()
        if before == wanted:
            return ret
        ret["changes"] = {name: {"old": before, "new": wanted}, "disruption": "none"}
        if __opts__["test"]:
            return {**ret, "result": None, "comment": f"{name} would be made {wanted}"}
        __salt__[function](*arguments)
    except CommandExecutionError as err:
        return _failed(name, str(err))
    return ret


def _given(**columns):
    return {name: value for name, value in columns.items() if value is not None}


def _failed(name, comment):
    return {"name": name, "result": False, "changes": {}, "comment": comment}


def _joined(one, other, what):
    """Return two answers as one: the worse result, the changes of both."""
    order = (False, None, True)
    result = order[min(order.index(one["result"]), order.index(other["result"]))]
    changes = dict(one["changes"])
    if other["changes"]:
        changes[what] = other["changes"]
    comments = [answer["comment"] for answer in (one, other) if answer["comment"]]
    return {**one, "result": result, "changes": changes, "comment": "; ".join(comments)}


def _state(name, function, /, *arguments, **keywords):
    ret = {"name": name, "result": False, "changes": {}, "comment": ""}
    try:
        ret.update(__salt__[function](*arguments, test=__opts__["test"], **keywords))
    except CommandExecutionError as err:
        ret["comment"] = str(err)
    return ret
