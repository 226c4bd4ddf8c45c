"""Look after the FreeSWITCH of this node without costing a call.

Reading functions never change anything. Changing functions hold the node's lock, check what runs
afterwards and return ``{"result", "action", "before", "after", "evidence"}``. Nothing here stops
the daemon unless the node is out of service.

Minion options, all optional: ``freeswitch.conf_dir``, ``freeswitch.state_dir``,
``freeswitch.pidfile``, ``freeswitch.user``, ``freeswitch.group``, ``freeswitch.system_root``,
``freeswitch.binary``.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import re
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

__virtualname__ = "freeswitch"

DEFAULTS = {
    "conf_dir": "/etc/freeswitch",
    "state_dir": "/var/lib/voice",
    "pidfile": "/run/freeswitch/freeswitch.pid",
    "user": "freeswitch",
    "group": "freeswitch",
    "system_root": "",
    "binary": "/usr/bin/freeswitch",
}
EVENT_SOCKET = "autoload_configs/event_socket.conf.xml"
DROP_INS = "/etc/systemd/system/freeswitch.service.d"
START_SECONDS = 60.0
CERTIFICATE_SECONDS = 5.0
EVENT_SOCKET_SECONDS = 10.0
HANG_UP_SECONDS = 10.0
PROFILE_SECONDS = 12.0  # it tries twice more to bind, 5 s apart
EDITS = ("with_gateway", "without_gateway", "with_profile", "with_module", "without_module",
         "with_setting", "with_list")  # fmt: skip
ON_TIMEOUT = ("wait", "abort", "kill")

# First words of the API commands anybody may run: they read and neither change nor reveal secrets.
ALLOWED = (
    ("status",),
    ("version",),
    ("uptime",),
    ("show", "calls"),
    ("show", "channels"),
    ("show", "registrations"),
    ("show", "modules"),
    ("sofia", "status"),
    ("sofia", "xmlstatus"),
    ("fsctl", "pause_check"),
    ("fsctl", "ready_check"),
    ("fsctl", "shutdown_check"),
    ("fsctl", "last_sps"),
    ("module_exists",),
    ("acl",),
)


def __virtual__():  # noqa: N807
    return __virtualname__


def status():
    """
    Return what the daemon says of itself.

    ``running`` tells whether the process lives, ``responding`` whether its event socket answered;
    ``calls`` and ``channels`` are counts (None when unknown), ``sps`` the limit of new sessions a
    second, ``uptime`` seconds. Never raises: a daemon that is down is an answer.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.status
    """
    down = {
        "running": False,
        "responding": False,
        "ready": False,
        "paused": False,
        "calls": 0,
        "channels": 0,
        "sessions": 0,
        "max_sessions": None,
        "sps": None,
        "version": "",
        "uptime": None,
        "core_uuid": "",
        "error": "",
    }
    try:
        with _connect() as link:
            told = _json(link.api('json {"command":"status","data":""}'), "status")
            core = told["response"]
            return {
                **down,
                "running": True,
                "responding": True,
                "ready": core["systemStatus"] == "ready",
                "paused": link.api("fsctl pause_check inbound").strip() == "true",
                "calls": _count(link.api("show calls count")),
                "channels": _count(link.api("show channels count")),
                "sessions": int(core["sessions"]["count"]["active"]),
                "max_sessions": int(core["sessions"]["count"]["limit"]),
                "sps": int(core["sessions"]["rate"]["max"]),
                "version": str(core["version"]).split(" ", 1)[0],
                "uptime": _seconds(core["uptime"]),
                "core_uuid": link.api("global_getvar core_uuid").strip(),
            }
    except (KeyError, TypeError, CommandExecutionError, OSError, ValueError) as err:
        if not _process_lives():
            return {**down, "error": "freeswitch is not running"}
        error = "status reply not understood" if isinstance(err, KeyError | TypeError) else str(err)
        return {**down, "running": True, "calls": None, "channels": None, "error": error}


def ready():
    """
    Tell whether the daemon takes calls: ready, not paused, every configured profile running.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.ready
    """
    now = status()
    if not (now["responding"] and now["ready"] and not now["paused"]):
        return False
    return all(check["ok"] for check in _profile_checks())


def calls_count(kind="calls"):
    """
    Return how many calls are up; ``kind`` is ``calls`` or ``channels`` (one a leg).

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.calls_count
        salt '*pbx*' freeswitch.calls_count channels
    """
    if kind not in ("calls", "channels"):
        raise CommandExecutionError(f"kind {kind!r} unknown: use calls or channels")
    return _count(_api(f"show {kind} count"))


def calls_list():
    """
    Return the calls that are up, one ``{"uuid", "direction", "created", "state", "from", "to"}``
    each; ``created`` is seconds since the epoch.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.calls_list
    """
    rows = _json(_api("show calls as json"), "show calls").get("rows") or []
    if not isinstance(rows, list):
        raise CommandExecutionError("show calls: its rows are no list; is this FreeSWITCH?")
    return [
        {
            "uuid": row.get("uuid", ""),
            "direction": row.get("direction", ""),
            "created": _integer(row.get("created_epoch")),
            "state": row.get("callstate", row.get("state", "")),
            "from": row.get("cid_num", ""),
            "to": row.get("dest", ""),
        }
        for row in rows
        if isinstance(row, dict)
    ]


def registrations_count():
    """
    Return how many registrations the node holds.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.registrations_count
    """
    return _count(_api("show registrations count"))


def profiles():
    """
    Return the SIP profiles, ``{name: {"state", "running", "calls", "url"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.profiles
    """
    found = {}
    for node in _xml(_api("sofia xmlstatus")).all("profile"):
        state, _, calls = _text(node, "state").partition(" ")
        shown = {
            "state": state,
            "running": state == "RUNNING",
            "calls": _integer(calls.partition(")")[0].strip("(")),
            "url": _text(node, "data"),
        }
        # A profile with TLS and WSS has an entry for each besides, of the same name.
        found.setdefault(_text(node, "name"), shown)
    return found


def gateways():
    """
    Return the gateways that run, ``{name: {"profile", "state", "status", "proxy", "context"}}``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.gateways
    """
    found = {}
    for node in _xml(_api("sofia xmlstatus gateway")).all("gateway"):
        # One that was replaced is still listed for a moment, after the one that replaced it.
        found.setdefault(_text(node, "name"), _gateway(node))
    return found


def gateway_status(name):
    """
    Return one gateway as ``gateways`` shows it, or None if it does not run.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.gateway_status example-carrier
    """
    told = _api(f"sofia xmlstatus gateway {_word(name, 'gateway')}")
    return None if told.startswith("Invalid") else _gateway(_xml(told))


def paused(direction="inbound"):
    """
    Tell whether new calls are refused; ``status`` of FreeSWITCH itself does not say.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.paused
        salt '*pbx*' freeswitch.paused outbound
    """
    return _api(f"fsctl pause_check {_direction(direction)}").strip() == "true"


def pause(direction="inbound"):
    """
    Refuse new calls (503, Retry-After) and leave those that are up alone.

    A registrar refuses registrations as well while it is paused.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.pause
    """
    return _pausing("pause", direction, True)


def resume(direction="inbound"):
    """
    Take new calls again.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.resume
    """
    return _pausing("resume", direction, False)


def reloadxml():
    """
    Make FreeSWITCH read its configuration again; raises unless it says ``[Success]``.

    A reply of ``+OK`` alone proves nothing: a broken file is answered ``+OK [error …]`` and the
    old configuration stays.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.reloadxml
    """
    return _watched({"do": "reloadxml"}, lambda: {"configuration": _digest("root")})


def reloadacl():
    """
    Make FreeSWITCH read its access lists again; raises if it could not. ``acl_test`` proves one.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.reloadacl
    """
    lists = "configuration configuration name acl.conf"
    return _watched({"do": "reloadacl"}, lambda: {"lists": _digest(lists)})


def rescan(profile):
    """
    Make a profile read its parameters and new gateways; live calls go on.

    Refused while what is on disk differs from what runs in a way that needs a restart: a rescan
    would then advertise sockets that are not open.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.rescan external
    """
    pending = config_diff()
    if pending["disruption"] == "restart":
        raise CommandExecutionError(
            f"rescan refused, the disk holds what needs a restart: {'; '.join(pending['why'])}"
        )
    action = {"do": "rescan", "profile": _word(profile, "profile")}

    def look():
        return sorted(name for name, one in gateways().items() if one["profile"] == profile)

    return _watched(action, lambda: {"gateways": look()})


def killgw(profile, gateway):
    """
    Remove a running gateway; its calls go on. ``rescan`` brings it back as configured.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.killgw external example-carrier
    """
    action = {
        "do": "killgw",
        "profile": _word(profile, "profile"),
        "gateway": _word(gateway, "gateway"),
    }
    return _watched(action, lambda: gateway_status(gateway))


def profile_start(name):
    """
    Start a profile that the configuration names and that does not run; others are not touched.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.profile_start external
    """
    action = {"do": "start", "profile": _word(name, "profile")}
    before = profiles().get(name)
    return {**_act(action), "before": before, "after": _await_profile(name)}


def cert_reload():
    """
    Make every profile serve the certificates that are on disk, calls over TLS going on.

    Raises where that cannot be (before 1.11.1, or with parameters that FreeSWITCH forgets doing
    it), and if a socket does not serve the certificate on disk within 5 seconds.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.cert_reload
    """
    tree, version = _tree(_opt("conf_dir")), _version()
    row = _util("fs_table.rules", version)["profile"].get("tls-cert-dir")
    if row is None:
        raise CommandExecutionError(
            "this FreeSWITCH reads certificates at a start only; run `guardian deploy`"
        )
    lost = _util("fs_changes.forgotten", _util("fsxml.load", tree), row)
    if lost:
        raise CommandExecutionError(
            f"reloadcert would forget {', '.join(lost)}; run `guardian deploy`"
        )

    def look():
        return {f"{host}:{port}": _fingerprint(host, port) for host, port, _ in _tls_sockets(tree)}

    before = look()
    done = _act({"do": "reloadcert"})
    _verify_certificates(tree)
    return {**done, "before": before, "after": look()}


def set_limits(max_sessions=None, sessions_per_second=None):
    """
    Set the limits of the running daemon; the next start reads those of the configuration.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.set_limits max_sessions=2000 sessions_per_second=50
    """
    wanted = {"max_sessions": max_sessions, "sps": sessions_per_second}
    wanted = {word: value for word, value in wanted.items() if value is not None}
    if not wanted:
        raise CommandExecutionError("set_limits needs max_sessions or sessions_per_second")
    for value in wanted.values():
        if isinstance(value, bool) or not str(value).isdigit() or not 0 < int(value) < 10**6:
            raise CommandExecutionError("a limit must be a number from 1 to 999999")
    before = status()
    evidence = [
        _act({"do": "fsctl", "word": word, "value": str(value)})["evidence"]
        for word, value in wanted.items()
    ]
    after = status()
    keys = ("max_sessions", "sps")
    return {
        "result": all(after[word] == int(value) for word, value in wanted.items()),
        "action": "fsctl",
        "before": {key: before[key] for key in keys},
        "after": {key: after[key] for key in keys},
        "evidence": " ".join(evidence),
    }


def send_sighup():
    """
    Make the daemon start new log files.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.send_sighup
    """
    return _watched({"do": "send_sighup"}, _log_file)


def api(command):
    """
    Run an API command that only reads and return its answer as it came.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.api 'sofia status profile internal'
    """
    return _api(_allowed(command))


def bgapi(command, timeout=60):
    """
    Run an API command that only reads in FreeSWITCH's background and return its answer.

    For answers that take longer than the event socket is given otherwise; ``timeout`` is seconds.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.bgapi 'show registrations' timeout=120
    """
    with _connect(float(timeout)) as link:
        try:
            return link.bgapi(_allowed(command))
        except (OSError, ValueError) as err:
            raise CommandExecutionError(str(err)) from None


def checks():
    """
    Return what a healthy node shows, a list of ``{"name", "ok", "detail"}``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.checks
    """
    now = status()
    found = [_check("event socket answers", now["responding"], now["error"] or now["version"])]
    if not now["responding"]:
        return found
    found.append(_check("core is ready", now["ready"], f"up {now['uptime']} s"))
    try:
        found += _profile_checks()
        pending = config_diff()
        same = pending["disruption"] == "none"
        found.append(
            _check("running configuration is the one on disk", same, "; ".join(pending["why"]))
        )
        found += _gateway_checks()
    except CommandExecutionError as err:
        found.append(_check("event socket answers", False, str(err)))
    return found


def config_check(path=None, boot=True):
    """
    Read a configuration tree as FreeSWITCH would, then boot it where it reaches nobody.

    Returns ``{"result", "problems"}``. A problem is what FreeSWITCH would read otherwise than it
    is meant, what is dangerous, or what did not come up.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.config_check
        salt '*pbx*' freeswitch.config_check /etc/.freeswitch.previous boot=False
    """
    path = path or _opt("conf_dir")
    tree = _tree(path)
    problems = _problems(tree, _version()) or (_trial(path, tree) if boot else [])
    return {"result": not problems, "problems": problems}


def config_diff():
    """
    Compare what runs with what is on disk: the plan that leads from the one to the other.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.config_diff
    """
    reconciler = _util("reconcile.of", _Daemon())
    plan = reconciler.owed(reconciler.running(), _tree(_opt("conf_dir")))
    return {key: plan[key] for key in ("disruption", "why", "actions")}


def classify_change(old, new):
    """
    Return what it costs to go from the tree at ``old`` to that at ``new``, and the least action.

    The answer is ``{"disruption": "none"|"reload"|"restart", "why", "actions", "steps"}``; what
    is not known counts as ``restart``. Values of secrets appear as digests.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.classify_change /etc/.freeswitch.previous /etc/freeswitch
    """
    return _Daemon().classify(_tree(old), _tree(new))


def render(source, context):
    """
    Render a configuration and return ``{path: SHA-256}``; contents may hold secrets.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.render salt://freeswitch/files '{esl_password: …, node: …}'
    """
    rendered = _render(source, context)
    return _util("tree_render.digests", rendered)


def apply(plan):
    """
    Run the actions of a plan that ``classify_change`` gave, in order, checking each.

    A plan that needs a restart is refused: that is ``freeswitch.running``'s business.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.apply '{actions: [{do: reloadxml}, {do: reloadacl}]}'
    """
    actions = plan.get("actions", [])
    if any(action.get("do") == "restart" for action in actions):
        raise CommandExecutionError("a plan that restarts is not applied here")
    with _lock("freeswitch.apply"):
        before = _digest("root")
        done = [_act(action) for action in actions]
    return {
        "result": True,
        "action": [step["action"] for step in done],
        "before": {"configuration": before},
        "after": {"configuration": _digest("root")},
        "evidence": [step["evidence"] for step in done],
    }


def configure(source, context, name=None, test=False):
    """
    Bring the configuration to what ``source`` and ``context`` say, as far as calls allow.

    Renders and checks the whole, exchanges it in one step, takes the least action, verifies, and
    goes back on failure. A node in service gets nothing that needs a restart: the files that can
    be applied are, the rest is refused with the plan. Returns ``{"result", "comment",
    "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.configure salt://freeswitch/files '{…}' test=True
    """
    rendered = _render(source, context)
    with _lock("freeswitch.configure", needed=not test):
        return _redacted(_util("reconcile.of", _Daemon(name)).configure(rendered, test))


def ensure_running(test=False):
    """
    Start the daemon if it is down, restart it if it must be and may be, pause it if drained.

    Returns ``{"result", "comment", "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.ensure_running test=True
    """
    with _lock("freeswitch.ensure_running", needed=not test):
        return _redacted(_util("reconcile.of", _Daemon()).ensure_running(test))


def edit(element, *arguments, test=False):
    """
    Change one element of the configuration that is on disk, as far as calls allow.

    element
        ``with_gateway name profile params``, ``without_gateway name``, ``with_profile name
        params``, ``with_module name``, ``without_module name``, ``with_setting name value`` (of
        switch.conf) or ``with_list name allow deny``.

    Everything else stays as it is; check, exchange, least action and verification are those of
    ``configure``, and so is the answer. ``freeswitch.configured`` puts back what pillar says. A
    password among the parameters is best given as ``{secret: name}``, one of pillar ``secrets``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.edit with_setting max-sessions 2000 test=True
    """
    if element not in EDITS:
        raise CommandExecutionError(f"no element {element!r}; there are {', '.join(EDITS)}")
    with _lock("freeswitch.edit", needed=not test):
        given = _resolved(list(arguments), element)
        tree = _util(f"fs_elements.{element}", _tree(_opt("conf_dir")), *given)
        rendered = {"tree": tree, "system": []}
        return _redacted(_util("reconcile.of", _Daemon()).configure(rendered, test))


def await_gateway(name, state="REGED", timeout=30):
    """
    Wait until a gateway is in a state, ``timeout`` seconds at most, and return it as it is then.

    Raises naming the state it is in instead.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.await_gateway example-carrier timeout=60
    """
    deadline = time.monotonic() + float(timeout)
    while True:
        found = gateway_status(name)
        if found and found["state"] == state:
            return found
        if time.monotonic() >= deadline:
            told = found["state"] if found else "absent"
            raise CommandExecutionError(
                f"gateway {name} is {told}, not {state}, after {float(timeout):g} s"
            )
        time.sleep(0.2)


def profile_status(name):
    """
    Return what a profile says of itself, ``{fact: text}`` as in ``sofia status profile``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.profile_status internal
    """
    told = _api(f"sofia xmlstatus profile {_word(name, 'profile')}")
    if told.startswith("Invalid"):
        raise CommandExecutionError(f"profile {name} does not run; see freeswitch.profiles")
    facts = _xml(told).all("profile-info")
    return {child.name: child.text.strip() for node in facts for child in node.children}


def gateway_restart(name):
    """
    Take a gateway away and bring it back as configured; its calls go on.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.gateway_restart example-carrier
    """
    before = gateway_status(name)
    if before is None:
        raise CommandExecutionError(f"gateway {name} does not run; see freeswitch.gateways")
    with _lock("freeswitch.gateway_restart"):
        killgw(before["profile"], name)
        rescan(before["profile"])
    after = gateway_status(name)
    if after is None:
        raise CommandExecutionError(f"gateway {name} did not come back; is it still on disk?")
    told = f"killgw + rescan {name}"
    return {"result": True, "action": told, "before": before, "after": after, "evidence": told}


def drain(timeout=600, on_timeout="wait"):
    """
    Refuse new calls and wait for those that are up, ``timeout`` seconds at most.

    on_timeout
        What to do with calls that are up by then: ``wait`` leaves them and the node draining,
        ``abort`` puts the node back into service, ``kill`` hangs them up.

    ``after`` is what ``drain_status`` says then; ``result`` tells whether the node is empty and out
    of service. ``voice.withdraw`` on its proxies comes first.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.drain timeout=1800 on_timeout=abort
    """
    if on_timeout not in ON_TIMEOUT:
        raise CommandExecutionError(f"on_timeout is one of {', '.join(ON_TIMEOUT)}")
    before = drain_status()
    done = __salt__["voice.drain"](timeout=timeout, by="freeswitch.drain")
    evidence = f"{done['calls']} calls up"
    if not done["drained"] and on_timeout == "abort":
        evidence += f" after {timeout} s: back in service"
        __salt__["voice.undrain"]()
    elif not done["drained"] and on_timeout == "kill":
        evidence += f" after {timeout} s: {_api('hupall').strip()}"
        done = __salt__["voice.drain"](timeout=HANG_UP_SECONDS, by="freeswitch.drain")
    return {
        "result": done["drained"],
        "action": "drain",
        "before": before,
        "after": drain_status(),
        "evidence": evidence,
    }


def undrain():
    """
    Take new calls again and remove the mark of the drain.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.undrain
    """
    return __salt__["voice.undrain"]()


def drain_status():
    """
    Return how far a drain is, ``{"state", "calls", "drained_mark"}``; states as in ``voice``.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.drain_status
    """
    found = __salt__["voice.in_service"]()
    return {key: found[key] for key in ("state", "calls", "drained_mark")}


def esl_password_is_default():
    """
    Tell whether the event socket lets in anybody who knows FreeSWITCH's documentation.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.esl_password_is_default
    """
    settings = _util("fsxml.event_socket", _disk_event_socket())
    for password in ("ClueCon", "1234"):
        try:
            _util("esl.connect", **{**settings, "password": password}).close()
        except CommandExecutionError as err:
            if "password refused" not in str(err):
                raise
        else:
            return True
    return False


def acl_test(address, name):
    """
    Tell whether an access list, as it runs, allows an address.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.acl_test 192.0.2.7 carriers
    """
    try:
        address = str(ipaddress.ip_address(address))
    except ValueError:
        raise CommandExecutionError(f"{address!r} is no IP address") from None
    return _api(f"acl {address} {_word(name, 'access list')}").strip() == "true"


def modules():
    """
    Return the modules that are loaded, in order of their names.

    FreeSWITCH writes this table a moment after a load; ``api 'module_exists …'`` knows at once.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.modules
    """
    rows = _json(_api("show modules as json"), "show modules").get("rows") or []
    if not isinstance(rows, list):
        raise CommandExecutionError("show modules: its rows are no list; is this FreeSWITCH?")
    return sorted({row["ikey"] for row in rows if isinstance(row, dict) and row.get("ikey")})


def cert_served(host, port, timeout=5):
    """
    Return the certificate a TLS socket serves, ``{"fingerprint", "not_after", "subject"}``.

    The fingerprint is SHA-256 in hexadecimal, as ``certificate.inspect`` shows it. Nobody is
    trusted or refused: it tells what is served, be it expired. Raises if no handshake succeeds
    within ``timeout`` seconds.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.cert_served 10.77.0.21 5061
    """
    served = _util("tls_probe.served", host, port, timeout=timeout)
    return __salt__["certificate.facts"](served)


# -- what reconcile asks of a FreeSWITCH ---------------------------------------------------------


class _Daemon:
    """This node's FreeSWITCH, as ``_utils/reconcile.py`` wants it described."""

    name = "freeswitch"

    def __init__(self, conf_dir=None):
        self.conf_dir = conf_dir or _opt("conf_dir")
        self.state_dir = _opt("state_dir")
        self.system_root = _opt("system_root")
        self.owner = {"owner": _opt("user"), "group": _opt("group")}
        self.workspace = str(__opts__.get("id", "")).partition(".")[2]
        self.context = __context__
        self.util = _util

    @functools.cached_property
    def _version(self):
        return _version()

    def life(self):
        now = status()
        if not now["running"]:
            return None
        if not now["responding"]:
            raise CommandExecutionError(f"freeswitch runs but {now['error']}")
        return now["core_uuid"], time.time() - now["uptime"]

    def start_files(self):
        drop_ins = Path(f"{self.system_root}{DROP_INS}")
        found = sorted(drop_ins.glob("*.conf")) if drop_ins.is_dir() else []
        paths = ["/etc/default/freeswitch", *(f"{DROP_INS}/{entry.name}" for entry in found)]
        return [path for path in paths if Path(self.system_root + path).exists()]

    def problems(self, tree):
        return _problems(tree, self._version)

    def rehearse(self, path, tree):
        return _trial(path, tree)

    def classify(self, old, new):
        trees = _util("fsxml.load", old), _util("fsxml.load", new)
        return _util("fs_changes.classify", *trees, _util("fs_table.rules", self._version))

    def safe_part(self, old, new):
        """Leave out the files a restart-class step came from until what remains is harmless."""
        variables = {name for name, content in new.items() if b"X-PRE-PROCESS" in content}
        mixed = dict(new)
        while (plan := self.classify(old, mixed))["disruption"] == "restart":
            restarts = [step for step in plan["steps"] if step["do"] == "restart"]
            named = {path for step in restarts for path in step["files"]}
            # A change may have come through a variable that another file sets.
            for blamed in (named, variables):
                differing = {path for path in blamed if old.get(path) != mixed.get(path)}
                if differing:
                    break
            else:
                return None
            for path in differing:
                mixed.pop(path, None)
                if path in old:
                    mixed[path] = old[path]
        return mixed if mixed != old else None

    def act(self, plan, run):
        for action in plan["actions"]:
            _act(action)
        return run["reloads"]

    def verify(self, plan, tree):
        place = _util(
            "fsxml.differs", _util("fsxml.load", tree).root, _xml(_api("xml_locate root", 15.0))
        )
        if place:
            raise CommandExecutionError(f"freeswitch reloaded but holds something else at {place}")
        steps = [step for step in plan["steps"] if "gateway" in step]
        about = {
            do: {step["gateway"] for step in steps if step["do"] == do}
            for do in ("rescan", "killgw")
        }
        for name in sorted(about["rescan"]):
            if gateway_status(name) is None:
                raise CommandExecutionError(f"gateway {name} does not run after its rescan")
        for name in sorted(about["killgw"] - about["rescan"]):
            if gateway_status(name) is not None:
                raise CommandExecutionError(f"gateway {name} still runs after its killgw")
        for action in plan["actions"]:
            if action["do"] == "start":
                _await_profile(action["profile"])
            if action["do"] == "callcenter":
                _verify_callcenter(action)
            if action["do"] == "reloadcert":
                _verify_certificates(tree)

    def undo(self, plan, tree, run):
        """The event socket may answer to the settings of ``tree`` by now."""
        __context__["freeswitch.event_socket"] = _util("fsxml.event_socket", tree)
        previous = _tree(self.conf_dir)
        try:
            for action in self.classify(tree, previous)["actions"]:
                if action["do"] != "restart":
                    _act(action)
                if action["do"] == "reloadcert":  # who asks next is to find it taken up
                    _verify_certificates(previous)
        except CommandExecutionError:
            return
        finally:
            __context__.pop("freeswitch.event_socket")

    def service(self, verb):
        __salt__["service.unmask"]("freeswitch", runtime=True)
        if not __salt__["service.enabled"]("freeswitch"):
            __salt__["service.enable"]("freeswitch")
        if not __salt__[f"service.{verb}"]("freeswitch"):
            raise CommandExecutionError(f"systemd could not {verb} freeswitch; see its journal")

    def units_changed(self):
        __salt__["service.systemctl_reload"]()

    def await_start(self, before):
        deadline = time.monotonic() + START_SECONDS
        missing = "its event socket does not answer"
        while time.monotonic() < deadline:
            now = status()
            if now["responding"] and now["ready"] and now["core_uuid"] != before:
                try:
                    failed = [check["name"] for check in _profile_checks() if not check["ok"]]
                except CommandExecutionError as err:
                    failed = [str(err)]
                if not failed:
                    return
                missing = "; ".join(failed)
            elif now["error"]:
                missing = now["error"]
            time.sleep(0.2)
        raise CommandExecutionError(
            f"freeswitch is not up {START_SECONDS:g} s after its start: {missing}; see its log"
        )

    def node(self):
        return __salt__["voice.in_service"]()

    def kept_out(self):
        return ["pause inbound"] if __salt__["voice.drained_mark"]() else []

    def strayed(self):
        return [] if not self.kept_out() or paused() else self.kept_out()

    def keep_out(self):
        if self.strayed():
            pause()


# -- actions -------------------------------------------------------------------------------------


def _act(action):
    """Run one action of a plan under the node's lock and check the answer it gives."""
    do = action["do"]
    commands = {
        "reloadxml": "reloadxml",
        "reloadacl": "reloadacl",
        "xml_flush_cache": "xml_flush_cache",
        "send_sighup": "fsctl send_sighup",
        "load": "load {module}",
        "reload_module": "reload {module}",
        "start": "sofia profile {profile} start",
        "killgw": "sofia profile {profile} killgw {gateway}",
        "rescan": "sofia profile {profile} rescan",
        "reloadcert": "reloadcert",
        "fsctl": "fsctl {word} {value}",
        "reload_event_socket": "reload mod_event_socket",
    }
    if do not in (*commands, "callcenter"):
        raise CommandExecutionError(f"no action {do!r} is known")
    arguments = {
        key: _word(value, key) for key, value in action.items() if key not in ("do", "verb")
    }
    if do == "callcenter":
        command = " ".join(("callcenter_config", _callcenter_verb(action), *arguments.values()))
    else:
        command = commands[do].format(**arguments)
    with _lock(f"freeswitch.{do}"):
        if do == "reload_event_socket":
            reply = _reload_event_socket(command)
        else:
            reply = " ".join(_api(command, timeout=30.0).split())
    good = {
        "reloadxml": "[Success]" in reply,
        "rescan": "[Success]" in reply and "+OK" in reply,
        "start": "[Success]" in reply and "started successfully" in reply,
        "killgw": reply.startswith("+OK") or "no such gateway" in reply,
        "load": "-ERR" not in reply or "already loaded" in reply,
        "reload_module": "+OK module loaded" in reply,
    }.get(do, reply.startswith("+OK"))
    told = _util("reconcile.in_words", action)
    if not good:
        raise CommandExecutionError(f"{told} failed: {reply[:200] or 'no answer'}")
    return {
        "result": True,
        "action": told,
        "before": "",
        "after": "",
        "evidence": reply[:200],
    }


def _watched(action, look):
    """Run one action and return it with what ``look`` sees before and after."""
    before = look()
    return {**_act(action), "before": before, "after": look()}


def _digest(what):
    """Return a short digest of a part of the configuration as FreeSWITCH holds it."""
    return hashlib.sha256(_api(f"xml_locate {what}", timeout=15.0).encode()).hexdigest()[:16]


def _log_file():
    """Return which file the log is at this moment, ``{"inode", "size"}``."""
    try:
        found = (Path(_api("global_getvar log_dir").strip()) / "freeswitch.log").stat()
    except OSError:
        return {"inode": None, "size": None}
    return {"inode": found.st_ino, "size": found.st_size}


def _allowed(command):
    words = tuple(command.split())
    if not any(words[: len(allowed)] == allowed for allowed in ALLOWED):
        known = ", ".join(" ".join(allowed) for allowed in ALLOWED)
        raise CommandExecutionError(f"command not allowed; allowed are: {known}")
    return " ".join(words)


def _await_profile(name):
    """Wait until a profile runs and return it; "started successfully" is said before it does."""
    deadline = time.monotonic() + PROFILE_SECONDS
    while not (found := profiles().get(name, {})).get("running"):
        if time.monotonic() >= deadline:
            raise CommandExecutionError(f"profile {name} does not run after its start; see the log")
        time.sleep(0.1)
    return found


def _verify_callcenter(action):
    """Look for the element itself: its commands say +OK of an agent that nobody knows."""
    kind, verb = action["verb"].split()
    key = [value for name, value in action.items() if name not in ("do", "verb")]
    rows = [
        line.split("|")[: len(key)] for line in _api(f"callcenter_config {kind} list").split("\n")
    ]
    if (key in rows) != (verb != "del"):
        told = "still there" if verb == "del" else "not there"
        raise CommandExecutionError(f"{kind} {' '.join(key)} is {told} after its {verb}")


def _verify_certificates(tree):
    """Look at what each TLS socket serves: reloadcert says +OK before it has looked at a file."""
    for host, port, path in _tls_sockets(tree):
        _await_certificate(host, port, path)


def _tls_sockets(tree):
    """Return (host, port, file of what it must serve) of each TLS socket a tree asks for."""
    sofia = _util("fsxml.load", tree).configuration("sofia.conf")
    found = []
    for profile in sofia.all("profiles", "profile") if sofia is not None else []:
        for settings in profile.all("settings")[:1]:
            directory, host = settings.param("tls-cert-dir"), settings.param("sip-ip")
            wss = settings.param("wss-binding").rpartition(":")[2]
            for file, port in (("agent.pem", settings.param("tls-sip-port")), ("wss.pem", wss)):
                if directory and port:
                    found.append((host, port, f"{directory}/{file}"))
    return found


def _fingerprint(host, port):
    try:
        return cert_served(host, port)["fingerprint"]
    except CommandExecutionError as err:
        return str(err)


def _await_certificate(host, port, path):
    """Wait until a socket serves the certificate in a file; the daemon's SIP thread takes it up."""
    try:
        wanted = __salt__["certificate.facts"](Path(path).read_text())
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "no text"
        raise CommandExecutionError(f"{path}: {reason}; apply its certificate first") from None
    deadline = time.monotonic() + CERTIFICATE_SECONDS
    while True:
        try:
            served = cert_served(host, port)
            if served["fingerprint"] == wanted["fingerprint"]:
                return
            told = f"{host}:{port} still serves the certificate that ends {served['not_after']}"
        except CommandExecutionError as err:  # until it has taken up the new one, maybe
            told = str(err)
        if time.monotonic() >= deadline:
            raise CommandExecutionError(told)
        time.sleep(0.1)


def _callcenter_verb(action):
    verbs = {verb for *_, commands in _util("fs_table.rules")["callcenter"] for verb in commands}
    if action["verb"] not in verbs - {""}:
        raise CommandExecutionError("no such verb of callcenter_config")
    return action["verb"]


def _reload_event_socket(command):
    """The module ends our connection as it goes; the proof is that the new settings let us in."""
    with _connect(timeout=10.0) as link:
        try:
            link.end_with(command)
        except (OSError, ValueError) as err:
            raise CommandExecutionError(str(err)) from None
    deadline = time.monotonic() + EVENT_SOCKET_SECONDS
    while time.monotonic() < deadline:
        try:
            settings = _util("fsxml.event_socket", _tree(_opt("conf_dir")))
            with _util("esl.connect", **settings, timeout=2.0) as link:
                link.api("status")
            return "+OK event socket answers with the settings on disk"
        except (OSError, ValueError, CommandExecutionError):
            time.sleep(0.2)
    return ""


def _pausing(verb, direction, wanted):
    command = f"fsctl {verb} {_direction(direction)}"
    with _lock(f"freeswitch.{verb}"):
        before = paused(direction)
        reply = _api(command).strip() if before != wanted else "already so"
        after = paused(direction)
    if after != wanted:
        raise CommandExecutionError(f"{command} had no effect: {reply[:200]}")
    return {
        "result": True,
        "action": command,
        "before": {"paused": before},
        "after": {"paused": after},
        "evidence": reply,
    }


def _profile_checks():
    """Check each profile the configuration names: running, and its socket answers OPTIONS."""
    document = _util("fsxml.load", _tree(_opt("conf_dir")))
    sofia = document.configuration("sofia.conf")
    now = profiles()
    is_paused = paused()
    found = []
    for profile in sofia.all("profiles", "profile") if sofia is not None else []:
        name = profile.attrib.get("name", "")
        state = now.get(name, {}).get("state", "absent")
        found.append(_check(f"profile {name} runs", state == "RUNNING", state))
        settings = profile.all("settings")[0]
        host, port = settings.param("sip-ip"), settings.param("sip-port", "5060")
        if state == "RUNNING" and re.fullmatch(r"[0-9]{1,5}", port) and "$" not in host:
            code = _util("sip.options", host, int(port), 2.0)
            good = code == 200 or (is_paused and code == 503)
            found.append(_check(f"profile {name} answers OPTIONS", good, f"{code or 'silence'}"))
    return found


def _gateway_checks():
    """A gateway that does not register shows NOREG; one that does must be registered."""
    return [
        _check(
            f"gateway {name} is usable",
            found["state"] in ("NOREG", "REGED") and found["status"] == "UP",
            f"{found['state']} {found['status']}",
        )
        for name, found in sorted(gateways().items())
    ]


def _check(name, good, detail):
    return {"name": name, "ok": bool(good), "detail": str(detail)}


# -- small things --------------------------------------------------------------------------------


def _opt(name):
    return __opts__.get(f"freeswitch.{name}") or DEFAULTS[name]


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


def _connect(timeout=5.0):
    """Connect with the settings that run, which until an action succeeds are the old ones."""
    candidates = []
    for files in (_recorded_files(), _disk_event_socket()):
        if files:
            settings = _util("fsxml.event_socket", files)
            if settings not in candidates:
                candidates.append(settings)
    if "freeswitch.event_socket" in __context__:
        candidates.append(__context__["freeswitch.event_socket"])
    if not candidates:
        raise CommandExecutionError(
            f"{_opt('conf_dir')}/{EVENT_SOCKET}: missing; apply freeswitch.configured first"
        )
    for settings in candidates[:-1]:
        try:
            return _util("esl.connect", **settings, timeout=timeout)
        except CommandExecutionError:
            continue
    return _util("esl.connect", **candidates[-1], timeout=timeout)


def _recorded_files():
    try:
        found = json.loads((Path(_opt("state_dir")) / "freeswitch.running.json").read_bytes())[
            "files"
        ]
        return {EVENT_SOCKET: found[EVENT_SOCKET].encode()} if EVENT_SOCKET in found else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _disk_event_socket():
    path = Path(_opt("conf_dir")) / EVENT_SOCKET
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    return _tree(_opt("conf_dir")) if b"$${" in content else {EVENT_SOCKET: content}


def _api(command, timeout=5.0):
    with _connect(timeout) as link:
        try:
            return link.api(command)
        except (OSError, ValueError) as err:
            raise CommandExecutionError(str(err)) from None


def _tree(path):
    found = _util("staged.read", path)
    return {name: content or b"" for name, content in found.items()}


def _problems(tree, version):
    document = _util("fsxml.load", tree)
    return [
        *_util("fsxml.check", document),
        *_util("fs_dialplan.check", document),
        *_util("fs_policy.check", document, version),
    ]


def _version():
    """Return the version that runs, else the one that would: ``(1, 10, 12)``, () if not known."""
    told = status()["version"]
    if not told and Path(_opt("binary")).exists():
        told = __salt__["cmd.run_stdout"]([_opt("binary"), "-version"], python_shell=False)
    return tuple(map(int, re.findall(r"\d+", told)[:3]))


def _trial(path, tree):
    """Boot a tree at ``path`` where it reaches nobody; return what did not come up."""
    document = _util("fsxml.load", tree)
    sofia = document.configuration("sofia.conf")
    profiles = sofia.all("profiles", "profile") if sofia is not None else []
    lists = map(document.configuration, ("modules.conf", "post_load_modules.conf"))
    loads = [load for found in lists if found is not None for load in found.all("modules", "load")]
    addresses = {
        settings.param(name)
        for profile in profiles
        for settings in profile.all("settings")[:1]
        for name in ("sip-ip", "rtp-ip")
    }
    return _util(
        "fs_trial.boot",
        _opt("binary"),
        path,
        sorted(one for one in addresses if one and not one.startswith(("127.", "$", "auto"))),
        [profile.attrib.get("name", "") for profile in profiles],
        [load.attrib.get("module", "") for load in loads],
        _util("fsxml.event_socket", tree),
    )


def _render(source, context):
    directory = _util("tree_render.fetch", source, __salt__["cp.cache_dir"])
    cache = str(Path(__opts__["cachedir"]) / "guardian-templates")
    context = _resolved(context, "freeswitch")
    return _util("tree_render.render", directory, context, cache, "freeswitch")


def _resolved(value, where):
    """Return what states hand over with the secrets it refers to, which only files may hold."""
    given = __salt__["pillar.get"]("secret_values", {}, unmask=True)
    secrets = _util("secret_seal.opened", given)
    return _util("secret_refs.resolve", value, secrets, where)


def _process_lives():
    """Tell whether the pid file names a live FreeSWITCH; a pid may by now be another program."""
    try:
        pid = int(Path(_opt("pidfile")).read_text().strip())
        return b"freeswitch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def _xml(text):
    return _util("fsxml.parse", text)


def _gateway(node):
    return {key: _text(node, key) for key in ("profile", "state", "status", "proxy", "context")}


def _text(node, name):
    found = node.all(name)
    return found[0].text.strip() if found else ""


def _json(text, what):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise CommandExecutionError(f"{what}: answer is not JSON") from None
    if not isinstance(found, dict):
        raise CommandExecutionError(f"{what}: answer is not a JSON object")
    return found


def _count(text):
    found = re.fullmatch(r"\s*([0-9]{1,9}) total\.?\s*", text)
    if found:
        return int(found[1])
    raise CommandExecutionError("count not understood; is this FreeSWITCH?")


def _integer(value):
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def _seconds(uptime):
    units = {"years": 31536000, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    whole = sum(int(uptime.get(unit, 0)) * size for unit, size in units.items())
    return whole + int(uptime.get("milliseconds", 0)) / 1000


def _direction(direction):
    if direction not in ("inbound", "outbound"):
        raise CommandExecutionError(f"direction {direction!r} unknown: use inbound or outbound")
    return direction


def _word(value, what):
    """Return an argument of a command; only what cannot become a second argument."""
    text = str(value)
    if not text or not all(char.isalnum() or char in "._-@" for char in text):
        raise CommandExecutionError(f"{what} may hold only letters, digits and ._-@")
    return text
