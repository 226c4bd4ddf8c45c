"""Look after the FreeSWITCH of this node without costing a call.

Reading functions never change anything. Changing functions hold the node's lock, check what runs
afterwards and return ``{"result", "action", "before", "after", "evidence"}``. Nothing here stops
the daemon unless the node is out of service.

Minion options, all optional: ``freeswitch.conf_dir``, ``freeswitch.state_dir``,
``freeswitch.pidfile``, ``freeswitch.user``, ``freeswitch.group``, ``freeswitch.system_root``.
"""

from __future__ import annotations

import json
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
}
EVENT_SOCKET = "autoload_configs/event_socket.conf.xml"
START_SECONDS = 60.0
SHOWN = 10

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
        found[_text(node, "name")] = {
            "state": state,
            "running": state == "RUNNING",
            "calls": _integer(calls.strip("()")),
            "url": _text(node, "data"),
        }
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
    return _act({"do": "reloadxml"})


def reloadacl():
    """
    Make FreeSWITCH read its access lists again.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.reloadacl
    """
    return _act({"do": "reloadacl"})


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
    return _act({"do": "rescan", "profile": _word(profile, "profile")})


def killgw(profile, gateway):
    """
    Remove a running gateway; its calls go on. ``rescan`` brings it back as configured.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.killgw external example-carrier
    """
    return _act(
        {
            "do": "killgw",
            "profile": _word(profile, "profile"),
            "gateway": _word(gateway, "gateway"),
        }
    )


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
    return _act({"do": "send_sighup"})


def api(command):
    """
    Run an API command that only reads and return its answer as it came.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.api 'sofia status profile internal'
    """
    words = tuple(command.split())
    if not any(words[: len(allowed)] == allowed for allowed in ALLOWED):
        known = ", ".join(" ".join(allowed) for allowed in ALLOWED)
        raise CommandExecutionError(f"command not allowed; allowed are: {known}")
    return _api(" ".join(words))


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


def config_check(path=None):
    """
    Read a configuration tree as FreeSWITCH would and return ``{"result", "problems"}``.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.config_check
        salt '*pbx*' freeswitch.config_check /etc/.freeswitch.previous
    """
    problems = _util("fsxml.lint", _tree(path or _opt("conf_dir")))
    return {"result": not problems, "problems": problems}


def config_diff():
    """
    Compare what runs with what is on disk: the plan that leads from the one to the other.

    CLI Example:

    .. code-block:: bash

        salt '*pbx*' freeswitch.config_diff
    """
    plan = _owed(_running(), _tree(_opt("conf_dir")), None)
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
    return _classify(_tree(old), _tree(new))


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
        done = [_act(action) for action in actions]
    return {
        "result": True,
        "action": [_action_text(action) for action in actions],
        "before": "",
        "after": "",
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
    conf_dir = name or _opt("conf_dir")
    rendered = _render(source, context)
    problems = _util("fsxml.lint", rendered["tree"])
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        told = "; ".join(problems[:SHOWN]) + more
        return _answer(False, f"refused, nothing changed: {told}")
    with _lock("freeswitch.configure", needed=not test):
        return _configure(conf_dir, rendered, test)


def ensure_running(test=False):
    """
    Start the daemon if it is down, restart it if it must be and may be, pause it if drained.

    Returns ``{"result", "comment", "changes"}`` as a state does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt pbx-01.lab-local freeswitch.ensure_running test=True
    """
    with _lock("freeswitch.ensure_running", needed=not test):
        return _ensure_running(test)


# -- how configure and ensure_running go about it ------------------------------------------------


def _configure(conf_dir, rendered, test):
    owner = {"owner": _opt("user"), "group": _opt("group")}
    desired = rendered["tree"]
    if not test:
        _util("staged.discard", conf_dir)
    live = _tree(conf_dir)
    files = _util("staged.compare", conf_dir, desired)
    wrong = _wrong_attributes(conf_dir, owner)
    system = _util("system_files.differing", _opt("system_root"), rendered["system"])
    running = _running()
    if not test:
        _note(running)
    plan = _owed(running, desired, rendered["system"], live)
    touched = any(files.values()) or bool(system)
    owed = running is not None and plan["disruption"] == "reload"
    if not (touched or wrong or owed):
        return _answer(True, f"{conf_dir} is as it should be")

    changes = _changes(plan, files, system, wrong)
    comment = _summary(plan) if touched or owed else "owners and modes {}set right"
    node = _node() if plan["disruption"] == "restart" else {"state": "in_service"}
    if not _util("disruption.allowed", plan["disruption"], node):
        if not touched:  # the disk is right already; `running` restarts, or refuses to
            return _answer(True, f"{conf_dir} is as it should be")
        told = _util("disruption.refusal", plan["why"], node, _workspace())
        if test:
            return _answer(None, f"a plain apply would refuse: {told}", changes)
        return _apply_safe_part(conf_dir, running, live, rendered, plan, told)
    if test:
        if plan["disruption"] == "restart":
            __context__["freeswitch.will_restart"] = plan["why"]
        return _answer(None, comment.format("would be "), changes)
    if touched or owed:
        _write(conf_dir, desired, system, owner, running, plan)
    if wrong:
        _util("staged.set_attributes", conf_dir, _wrong_attributes(conf_dir, owner), **owner)
    return _answer(True, comment.format(""), changes)


def _write(conf_dir, tree, system, owner, running, plan):
    """Exchange the tree, write the system files, act, verify; go back if any of it fails."""
    before = _util("system_files.snapshot", _opt("system_root"), system)
    swapped = any(_util("staged.compare", conf_dir, tree).values())
    if swapped:
        staged = _util("staged.stage", conf_dir, tree, **owner)
        _util("staged.swap", conf_dir, staged)
    try:
        _put_system({entry["path"]: entry for entry in system})
        if running is None or plan["disruption"] == "restart":
            return
        apply(plan)
        _verify(plan, tree)
    except (CommandExecutionError, OSError, ValueError) as err:
        _go_back(conf_dir, swapped, before, tree)
        raise CommandExecutionError(f"{err}; the previous configuration is back") from None
    _remember(running["core_uuid"], tree, running["system"])


def _go_back(conf_dir, swapped, system, tree):
    """Put files back and undo what was already done; the next run finds what could not be."""
    _put_system(system)
    if not swapped:
        return
    _util("staged.restore", conf_dir)
    __context__["freeswitch.event_socket"] = _util("fsxml.event_socket", tree)
    try:
        for action in _classify(tree, _tree(conf_dir))["actions"]:
            if action["do"] != "restart":
                _act(action)
    except CommandExecutionError:
        return
    finally:
        __context__.pop("freeswitch.event_socket")


def _apply_safe_part(conf_dir, running, live, rendered, plan, told):
    """Apply the files whose change costs at most a reload, as if only they had changed."""
    if running is None or running["files"] is None:
        return _answer(False, told)
    mixed = _safe_part(running["files"], rendered["tree"])
    if mixed is None or not any(_util("staged.compare", conf_dir, mixed).values()):
        return _answer(False, told)
    part = _classify(running["files"], mixed)
    files = _util("staged.compare", conf_dir, mixed)
    owner = {"owner": _opt("user"), "group": _opt("group")}
    _write(conf_dir, mixed, [], owner, running, part)
    changes = _changes(part, files, [], [])
    return _answer(False, f"{told}; applied meanwhile: {', '.join(changes['actions'])}", changes)


def _safe_part(old, new):
    """Return ``old`` with the files of ``new`` that need no restart, None if there are none.

    Leaves out the files a restart-class step came from until what remains is harmless.
    """
    variables = {name for name, content in new.items() if b"X-PRE-PROCESS" in content}
    mixed = dict(new)
    for _ in range(len(old) + len(new) + 1):
        plan = _classify(old, mixed)
        if plan["disruption"] != "restart":
            break
        blamed = {
            path
            for step in plan["steps"]
            if step["do"] == "restart"
            for path in step["files"]
            if old.get(path) != mixed.get(path)
        }
        if not blamed:  # the change came through a variable set in another file
            blamed = {path for path in variables if old.get(path) != mixed.get(path)}
        if not blamed:
            return None
        for path in blamed:
            if path in old:
                mixed[path] = old[path]
            else:
                mixed.pop(path, None)
    if mixed == old or _util("fsxml.lint", mixed):
        return None
    return mixed if _classify(old, mixed)["disruption"] != "restart" else None


def _ensure_running(test):
    conf_dir = _opt("conf_dir")
    running = _running()
    if not test:
        _note(running)
    drained = _drained()
    if running is None:
        will_pause = bool(drained)
        changes = {
            "daemon": {"old": "stopped", "new": "running"},
            "disruption": "none",
            "why": ["freeswitch is not running"],
            "actions": ["start"] + (["pause inbound"] if will_pause else []),
        }
        if test:
            return _answer(None, "freeswitch would be started", changes)
        _service("start")
        _wait_until_up("")
        _settle(drained)
        return _answer(True, "freeswitch started", changes)

    disk = _tree(conf_dir)
    plan = _owed(running, disk, _system_on_disk(running))
    pending = __context__.pop("freeswitch.will_restart", None) if test else None
    if plan["disruption"] == "restart" or pending:
        why = pending or plan["why"]
        node = _node()
        changes = {
            "daemon": {"old": "running", "new": "restarted"},
            "disruption": "restart",
            "why": why,
            "actions": ["restart"] + (["pause inbound"] if drained else []),
        }
        if not _util("disruption.allowed", "restart", node):
            told = _util("disruption.refusal", why, node, _workspace())
            if test:
                return _answer(None, f"a plain apply would refuse: {told}", changes)
            return _answer(False, told)
        if test:
            return _answer(None, "freeswitch would be restarted", changes)
        _service("restart")
        _wait_until_up(running["core_uuid"])
        _settle(drained)
        return _answer(True, f"freeswitch restarted: {'; '.join(why)}", changes)

    if drained and not paused():
        changes = {
            "daemon": {"old": "in service", "new": "paused"},
            "disruption": "none",
            "why": ["this node is drained"],
            "actions": ["pause inbound"],
        }
        if test:
            return _answer(None, "freeswitch would be paused again", changes)
        pause()
        return _answer(True, "freeswitch paused again", changes)
    return _answer(True, "freeswitch runs what is on disk")


def _settle(drained):
    """Note what a fresh start read, and keep a drained node out of service."""
    running = status()
    if drained:
        pause()
    _remember(running["core_uuid"], _tree(_opt("conf_dir")), _system_digests())


def _wait_until_up(before):
    """Wait for a start other than ``before`` whose profiles all run."""
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


def _service(verb):
    __salt__["service.unmask"]("freeswitch", runtime=True)
    if not __salt__["service.enabled"]("freeswitch"):
        __salt__["service.enable"]("freeswitch")
    if not __salt__[f"service.{verb}"]("freeswitch"):
        raise CommandExecutionError(f"systemd could not {verb} freeswitch; see its journal")


# -- what runs, and what it would take -----------------------------------------------------------


def _running():
    """Return what the daemon runs, None if it is down.

    ``files`` is None when that is not known: no record of this start, and the tree changed since.
    """
    now = status()
    if not now["running"]:
        return None
    if not now["responding"]:
        raise CommandExecutionError(f"freeswitch runs but {now['error']}")
    record = _util("running_record.read", _record_path(), now["core_uuid"])
    if record:
        return {**record, "core_uuid": now["core_uuid"], "recorded": True}
    found = {"files": None, "system": {}, "core_uuid": now["core_uuid"], "recorded": False}
    started = time.time() - now["uptime"]
    watched = [_opt("conf_dir"), *(_opt("system_root") + path for path in _system_digests())]
    if _util("running_record.untouched_since", started, watched):
        found.update(files=_tree(_opt("conf_dir")), system=_system_digests())
    return found


def _owed(running, tree, system, live=None):
    """Return the plan that brings the running daemon to ``tree`` and ``system`` entries."""
    nothing = {"disruption": "none", "why": [], "actions": [], "steps": []}
    if running is None:
        return nothing
    if running["files"] is None:
        if live is not None and live == tree:
            return nothing
        what = "what runs is not known (files changed after the daemon started)"
        return {**nothing, "disruption": "restart", "why": [what], "actions": [{"do": "restart"}]}
    plan = nothing if running["files"] == tree else _classify(running["files"], tree)
    for entry in system or []:
        known = running["system"].get(entry["path"])
        if (
            known != _util("system_files.sha256", entry["content"])
            and entry["disruption"] == "restart"
        ):
            what = f"{entry['path']} changed"
            steps = [*plan["steps"], {"what": what, "do": "restart", "files": []}]
            why = [*(plan["why"] if plan["disruption"] == "restart" else []), what]
            actions = [{"do": "restart"}]
            plan = {"disruption": "restart", "why": why, "actions": actions, "steps": steps}
    return plan


def _classify(old, new):
    return _util("fs_changes.classify", _util("fsxml.load", old), _util("fsxml.load", new))


def _verify(plan, tree):
    """Ask the daemon what it holds now, rather than trust what it replied."""
    told = _api("xml_locate root", timeout=15.0)
    wanted = _util("fsxml.load", tree).root
    place = _util("fsxml.differs", wanted, _xml(told))
    if place:
        raise CommandExecutionError(f"freeswitch reloaded but holds something else at {place}")
    about = {
        do: {step["gateway"] for step in plan["steps"] if step["do"] == do and "gateway" in step}
        for do in ("rescan", "killgw")
    }
    for name in sorted(about["rescan"]):
        if gateway_status(name) is None:
            raise CommandExecutionError(f"gateway {name} does not run after its rescan")
    for name in sorted(about["killgw"] - about["rescan"]):
        if gateway_status(name) is not None:
            raise CommandExecutionError(f"gateway {name} still runs after its killgw")


def _note(running):
    """Write down what is known of a start nobody noted, before a file on disk changes."""
    if running and running["files"] is not None and not running["recorded"]:
        _remember(running["core_uuid"], running["files"], running["system"])


def _remember(core_uuid, tree, system):
    content = _util("running_record.encode", core_uuid, tree, system)
    Path(_opt("state_dir")).mkdir(mode=0o750, parents=True, exist_ok=True)
    _util("staged.write_file", _record_path(), content, 0o600)


def _record_path():
    return str(Path(_opt("state_dir")) / "freeswitch.running.json")


def _drained():
    path = Path(_opt("state_dir")) / "drained.json"
    try:
        return json.loads(path.read_bytes()) or {"reason": "unknown"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"reason": "mark unreadable"}  # a mark that exists means drained


def _changes(plan, files, system, wrong):
    changes = {
        "disruption": plan["disruption"],
        "why": plan["why"],
        "actions": [_action_text(action) for action in plan["actions"]],
        "files": {kind: names for kind, names in files.items() if names},
    }
    if system:
        changes["files"]["system"] = sorted(entry["path"] for entry in system)
    if wrong:
        changes["attributes"] = wrong
    return changes


def _summary(plan):
    done = ", ".join(_action_text(action) for action in plan["actions"]) or "no action needed"
    return f"configuration {{}}exchanged: {done}"


def _answer(result, comment, changes=None):
    return {"result": result, "comment": comment, "changes": changes or {}}


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
        "start": "sofia profile {profile} start",
        "killgw": "sofia profile {profile} killgw {gateway}",
        "rescan": "sofia profile {profile} rescan",
        "fsctl": "fsctl {word} {value}",
        "reload_event_socket": "reload mod_event_socket",
    }
    if do not in commands:
        raise CommandExecutionError(f"no action {do!r} is known")
    arguments = {key: _word(value, key) for key, value in action.items() if key != "do"}
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
    }.get(do, reply.startswith("+OK"))
    if not good:
        raise CommandExecutionError(f"{_action_text(action)} failed: {reply[:200] or 'no answer'}")
    return {
        "result": True,
        "action": _action_text(action),
        "before": "",
        "after": "",
        "evidence": reply[:200],
    }


def _reload_event_socket(command):
    """The module ends our connection as it goes; the proof is that the new settings let us in."""
    with _connect(timeout=10.0) as link:
        try:
            link.end_with(command)
        except (OSError, ValueError) as err:
            raise CommandExecutionError(str(err)) from None
    deadline = time.monotonic() + 10.0
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


def _action_text(action):
    words = [str(value) for key, value in action.items() if key != "do"]
    return " ".join([action["do"], *words])


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
        if state == "RUNNING" and port.isdigit() and "$" not in host:
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


def _workspace():
    return str(__opts__.get("id", "")).partition(".")[2]


def _node():
    return __salt__["voice.in_service"]()


def _util(name, *arguments, **keywords):
    """Call one of our utils; what it raises is one finished line."""
    try:
        return __utils__[name](*arguments, **keywords)
    except CommandExecutionError:
        raise
    except (OSError, ValueError) as err:
        raise CommandExecutionError(str(err)) from None


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
        found = json.loads(Path(_record_path()).read_bytes())["files"]
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


def _render(source, context):
    directory = _util("tree_render.fetch", source, __salt__["cp.cache_dir"])
    cache = str(Path(__opts__["cachedir"]) / "guardian-templates")
    return _util("tree_render.render", directory, context, cache, "freeswitch")


def _wrong_attributes(conf_dir, owner):
    return _util("staged.wrong_attributes", conf_dir, **owner)


def _put_system(entries):
    """Make each file what its entry says, gone for None; systemd reads its units again."""
    for path, entry in entries.items():
        wanted = (
            {"content": entry["content"], "mode": entry["mode"]} if entry else {"content": None}
        )
        _util("staged.put_file", _opt("system_root") + path, **wanted)
    if _util("system_files.in_systemd", list(entries)):
        __salt__["service.systemctl_reload"]()


def _system_digests():
    """Return path -> SHA-256 of the files outside the tree that a start of the daemon reads."""
    paths = ["/etc/default/freeswitch"]
    drop_ins = Path(_opt("system_root") + "/etc/systemd/system/freeswitch.service.d")
    if drop_ins.is_dir():
        paths += [
            f"/etc/systemd/system/freeswitch.service.d/{entry.name}"
            for entry in sorted(drop_ins.iterdir())
            if entry.suffix == ".conf"
        ]
    return _util("system_files.digests", _opt("system_root"), paths)


def _system_on_disk(running):
    """Return the start-time files as entries, so that an edit since the start shows."""
    root = _opt("system_root")
    return [
        {
            "path": path,
            "content": _util("system_files.read", root, path) or b"",
            "disruption": "restart",
        }
        for path in sorted(set(_system_digests()) | set(running["system"]))
    ]


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
    except ValueError:
        raise CommandExecutionError(f"{what}: answer is not JSON") from None
    if not isinstance(found, dict):
        raise CommandExecutionError(f"{what}: answer is not a JSON object")
    return found


def _count(text):
    words = text.split()
    if len(words) >= 2 and words[0].isdigit() and words[1].startswith("total"):
        return int(words[0])
    raise CommandExecutionError("count not understood; is this FreeSWITCH?")


def _integer(value):
    try:
        return int(value)
    except (TypeError, ValueError):
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
    if not text or not all(char.isalnum() or char in "._-" for char in text):
        raise CommandExecutionError(f"{what} may hold only letters, digits and ._-")
    return text
