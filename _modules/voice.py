"""One seam for every node that carries calls, whichever daemon it runs.

Guardian and the states ask here whether a node may be disturbed, take it out of service and put
it back; ``freeswitch.*`` and ``opensips.*`` know how. A drained node bears a mark that outlives
restarts, so somebody always knows that it must be put back.

Minion options, all optional: ``voice.state_dir``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError

__virtualname__ = "voice"

STATE_DIR = "/var/lib/voice"
POLL_SECONDS = 1.0
STUCK_SHOWN = 20


def __virtual__():  # noqa: N807
    return __virtualname__


def in_service():
    """
    Tell whether this node may be disturbed.

    ``state`` is ``in_service``, ``draining`` (refuses new calls, has some) or ``out_of_service``
    (refuses new calls and has none, or its daemon does not run). A daemon that lives but does not
    answer counts as in service.

    CLI Example:

    .. code-block:: bash

        salt '*' voice.in_service
    """
    daemon = _daemon()
    mark = drained_mark()
    if not daemon:
        return _verdict("out_of_service", "", False, False, 0, mark, "no voice daemon installed")
    now = __salt__[f"{daemon}.status"]()
    if not now["running"]:
        return _verdict("out_of_service", daemon, False, False, 0, mark, f"{daemon} does not run")
    if not now["responding"]:
        return _verdict("in_service", daemon, True, False, now["calls"], mark, now["error"])
    if daemon == "freeswitch":
        # `show channels` reads a table that lags by up to 80 ms; sessions are counted at once.
        calls = busy = max(now["channels"], now["sessions"])
        paused = now["paused"]
    else:
        calls, busy, paused = now["calls"], now["transactions"], now["draining"]
    if not paused:
        return _verdict("in_service", daemon, True, False, calls, mark, "takes new calls")
    if busy:
        why = f"refuses new calls, {busy} {'channels' if daemon == 'freeswitch' else 'requests'} up"
        return _verdict("draining", daemon, True, True, calls, mark, why)
    why = "refuses new calls and has none"
    if daemon == "opensips":
        # Its dialogs find their way by Record-Route across a restart (measured on 3.4.18).
        why = f"refuses new calls, no request in hand; {calls} dialogs outlive a restart"
    return _verdict("out_of_service", daemon, True, True, calls, mark, why)


def drained_mark():
    """
    Return who drained this node and when, ``{"since", "by"}``, or None.

    CLI Example:

    .. code-block:: bash

        salt '*' voice.drained_mark
    """
    try:
        found = json.loads(_mark_path().read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"since": "", "by": "unknown: mark unreadable"}  # a mark that exists means drained
    return found if isinstance(found, dict) else {"since": "", "by": "unknown"}


def drain(timeout=0, by=""):
    """
    Refuse new calls and let those that are up end by themselves.

    timeout
        Seconds to wait for the last call; 0 returns at once. Ask again to see how it goes:
        draining a drained node changes nothing.

    by
        Who drains, for the mark.

    Returns ``{"drained", "calls", "stuck"}``; ``stuck`` lists calls that are up, oldest first.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local voice.drain
        salt pbx-01.lab-local voice.drain timeout=600
    """
    daemon = _needed_daemon()
    with _lock("voice.drain"):
        if drained_mark() is None:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            _write(_mark_path(), {"since": since, "by": str(by) or "a person"})
        if __salt__[f"{daemon}.status"]()["running"]:
            _refuse_calls(daemon, True)
        elif daemon == "opensips":
            __salt__["opensips.stand"]()  # whoever starts it starts it drained
    deadline = time.monotonic() + float(timeout)
    before = None
    while True:
        node = in_service()
        drained = node["state"] == "out_of_service"
        # A proxy without a request in hand at this moment may have one at the next: look twice.
        flat = daemon == "freeswitch" or not node["running"] or node["calls"] == before
        before = node["calls"] if drained else None
        if (drained and flat) or time.monotonic() >= deadline:
            stuck = [] if drained or daemon != "freeswitch" else _oldest_calls()
            return {"drained": drained, "calls": node["calls"], "stuck": stuck}
        time.sleep(POLL_SECONDS)


def undrain():
    """
    Take new calls again and remove the mark, once the daemon says that it does.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local voice.undrain
    """
    daemon = _needed_daemon()
    with _lock("voice.undrain"):
        before = in_service()
        if not before["running"]:
            raise CommandExecutionError(
                f"{daemon} does not run; `state.apply` starts it, then undrain again"
            )
        _refuse_calls(daemon, False)
        after = in_service()
        if after["state"] != "in_service":
            raise CommandExecutionError(f"still {after['state']}: {after['why']}")
        _mark_path().unlink(missing_ok=True)
    return {
        "result": True,
        "action": "undrain",
        "before": before["state"],
        "after": after["state"],
        "evidence": after["why"],
    }


def load():
    """
    Return what the node carries, ``{"calls", "registrations"}``.

    CLI Example:

    .. code-block:: bash

        salt '*' voice.load
    """
    node = in_service()
    registrations = 0
    if node["daemon"] == "freeswitch" and node["running"]:
        registrations = __salt__["freeswitch.registrations_count"]()
    return {"calls": node["calls"], "registrations": registrations}


def capacity():
    """
    Return how many calls the node may carry, ``{"calls"}``; None for a proxy, which has no limit.

    CLI Example:

    .. code-block:: bash

        salt '*' voice.capacity
    """
    if _daemon() == "freeswitch":
        return {"calls": __salt__["freeswitch.status"]()["max_sessions"]}
    return {"calls": None}


def checks():
    """
    Prove the node healthy, ``{"result", "checks": [{"name", "ok", "detail"}]}``.

    CLI Example:

    .. code-block:: bash

        salt '*' voice.checks
    """
    daemon = _needed_daemon()
    found = __salt__[f"{daemon}.checks"]()
    return {"result": all(check["ok"] for check in found), "checks": found}


def withdraw(peer, by=""):
    """
    On a proxy: give ``peer`` (a minion id) no new calls, until ``restore``.

    Sets every destination of the peer inactive and checks it. The note of it outlives reloads and
    restarts of the proxy.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' voice.withdraw pbx-01.lab-local
    """
    _need_proxy()
    with _lock("voice.withdraw"):
        noted = __salt__["opensips.withdrawn"]()
        found = _destinations(peer)
        uris = sorted({uri for _, uri in found})
        if peer not in noted or noted[peer].get("uris") != uris:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            noted[peer] = {"uris": uris, "since": since, "by": str(by) or "a person"}
            _write(_withdrawn_path(), noted)
        done = [__salt__["opensips.dispatcher_set_state"](*one, "i") for one in found]
        __salt__["opensips.stand"]()
    return _moved("withdraw", peer, done)


def restore(peer):
    """
    On a proxy: give ``peer`` (a minion id) new calls again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' voice.restore pbx-01.lab-local
    """
    _need_proxy()
    with _lock("voice.restore"):
        done = [__salt__["opensips.dispatcher_set_state"](*one, "a") for one in _destinations(peer)]
        noted = __salt__["opensips.withdrawn"]()
        if noted.pop(peer, None):
            _write(_withdrawn_path(), noted)
        __salt__["opensips.stand"]()
    return _moved("restore", peer, done)


def install_package(name, service, version=None, hold=True, test=False):
    """
    Install a daemon's package, at ``version`` if given, and hold it: an upgrade restarts it.

    Returns ``{"result", "comment", "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt sip-01.lab-local voice.install_package opensips opensips test=True
    """
    installed = __salt__["pkg.version"](name)
    wanted = str(version) if version else ""
    changes = {}
    if not installed or (wanted and installed != wanted):
        changes["package"] = {"old": installed, "new": wanted or "newest"}
        changes["disruption"] = "restart" if installed else "none"
        changes["why"] = [f"package {name} {installed or 'absent'} -> {wanted or 'newest'}"]
        changes["actions"] = ["install package"]
    if hold and not (installed and _is_held(name)):
        changes["hold"] = {"old": False, "new": True}
    if not changes:
        return _answer(True, f"{name} {installed} is installed{' and held' if hold else ''}")
    if "package" in changes and installed:
        node = in_service()
        if not __utils__["disruption.allowed"]("restart", node):
            workspace = str(__opts__.get("id", "")).partition(".")[2]
            told = __utils__["disruption.refusal"](changes["why"], node, workspace)
            if test:
                return _answer(None, f"a plain apply would refuse: {told}", changes)
            return _answer(False, told)
    if test:
        return _answer(None, f"{name} would be installed{' and held' if hold else ''}", changes)
    with _lock("voice.install_package"):
        if "package" in changes:
            _install(name, service, wanted, installed)
            changes["package"]["new"] = __salt__["pkg.version"](name)
            if not changes["package"]["new"]:
                return _answer(False, f"{name} is still not installed; see the package manager")
        if hold:  # an installation lifts the hold that there was
            __salt__["pkg.hold"](name)
    return _answer(True, f"{name} {__salt__['pkg.version'](name)} installed", changes)


def _install(name, service, version, installed):
    """Install without the first start a package makes: there is no configuration yet."""
    if not installed:
        __salt__["service.mask"](service, runtime=True)
    try:
        if installed:
            __salt__["pkg.unhold"](name)
        __salt__["pkg.install"](name, refresh=True, **({"version": version} if version else {}))
    finally:
        if not installed:
            __salt__["service.unmask"](service, runtime=True)


def _is_held(name):
    found = __salt__["pkg.get_selections"](name, state="hold")
    return name in (found.get("hold", []) if isinstance(found, dict) else [])


def _answer(result, comment, changes=None):
    return {"result": result, "comment": comment, "changes": changes or {}}


def _verdict(state, daemon, running, paused, calls, mark, why):
    return {
        "state": state,
        "daemon": daemon,
        "running": running,
        "paused": paused,
        "calls": calls,
        "drained_mark": mark,
        "why": why,
    }


def _daemon():
    """Return which daemon this node's role calls for, empty when none is installed yet."""
    wanted = {"sip": "opensips", "pbx": "freeswitch", "fsx": "freeswitch"}
    daemon = wanted.get(_role(), "")
    if daemon and __salt__["cmd.which"](daemon):
        return daemon
    return ""


def _role():
    """Return the role, from the minion id alone: ``<role>-<nn>.<workspace>``."""
    return str(__opts__.get("id", "")).partition("-")[0]


def _needed_daemon():
    daemon = _daemon()
    if not daemon:
        raise CommandExecutionError("no voice daemon installed here; apply the node's states first")
    return daemon


def _need_proxy():
    if _daemon() != "opensips":
        raise CommandExecutionError("not a proxy: only a node of role sip withdraws its peers")


def _refuse_calls(daemon, refuse):
    if daemon == "opensips":
        __salt__["opensips.set_draining"](refuse)
    elif refuse:
        __salt__["freeswitch.pause"]("inbound")
    else:
        __salt__["freeswitch.resume"]("inbound")


def _oldest_calls():
    calls = sorted(__salt__["freeswitch.calls_list"](), key=lambda call: call["created"])
    return [{key: call[key] for key in ("uuid", "created", "to")} for call in calls[:STUCK_SHOWN]]


def _destinations(peer):
    """Return the (set id, URI) pairs of a peer, from what runs; its row names the node."""
    name = str(peer).partition(".")[0]
    noted = set(__salt__["opensips.withdrawn"]().get(peer, {}).get("uris", []))
    return [
        (set_id, row["uri"])
        for set_id, rows in __salt__["opensips.dispatcher_list"]().items()
        for row in rows
        if row["node"] == name or row["uri"] in noted
    ]


def _moved(action, peer, done):
    """What became of a peer's destinations; a peer in no set has nothing to move."""
    return {
        "result": True,
        "action": f"{action} {peer}",
        "before": [step["before"] for step in done],
        "after": [step["after"] for step in done],
        "evidence": [step["action"] for step in done] or f"{peer} is in no dispatcher set",
    }


def _state_dir():
    return Path(__opts__.get("voice.state_dir") or STATE_DIR)


def _mark_path():
    return _state_dir() / "drained.json"


def _withdrawn_path():
    return _state_dir() / "withdrawn.json"


def _write(path, content):
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        __utils__["staged.write_file"](str(path), json.dumps(content).encode(), 0o640)
    except OSError as err:
        raise CommandExecutionError(str(err)) from None


def _lock(who):
    return __utils__["nodelock.hold"](who, path=str(_state_dir() / "lock"))
