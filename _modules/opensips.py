"""Look after the OpenSIPS of this node without costing a call.

Salt owns who is in a dispatcher set; drain owns the states, over the management interface.
Nothing here makes a withdrawn destination active again. Changing functions hold the node's lock,
check what runs afterwards and return ``{"result", "action", "before", "after", "evidence"}``.

Minion options, all optional: ``opensips.conf_dir``, ``opensips.state_dir``, ``opensips.mi_socket``,
``opensips.pidfile``, ``opensips.user``, ``opensips.group``, ``opensips.binary``,
``opensips.system_root``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
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
}
SYSTEM_FILES = (
    "/etc/systemd/system/opensips.service.d/guardian.conf",
    "/etc/default/opensips",
)
START_SECONDS = 20.0
BOOT_SECONDS = 5.0
# reload_routes leaks private memory in every process: so many in one life, then a restart is due.
MOST_ROUTE_RELOADS = 50
# Commands that change nothing; `dbt_dump`, for one, writes files.
READING = {
    *("address_dump", "dlg_list", "ds_list", "get_statistics", "ps", "shv_get", "subnet_dump"),
    *("tls_list", "uptime", "version", "which"),
}
STATES = {"a": "Active", "i": "Inactive", "p": "Probing"}

# Boots the staged tree where it can reach nobody: own network with the node's addresses on lo, own
# /run/opensips, the staged tree in place of the live one. Says `up` when it stayed up.
TRIAL = r"""
set -e
ip link set lo up
for address in $ADDRESSES; do ip address replace "$address/32" dev lo; done
mount --bind "$STAGED" "$LIVE"
mkdir -p "$RUN"
mount -t tmpfs -o mode=0777 tmpfs "$RUN"
# Its last words go to stderr here; in service they go to syslog.
printf 'include_file "%s/opensips.cfg"\nstderror_enabled=yes\n' "$LIVE" > "$RUN/trial.cfg"
"$BINARY" -F -f "$RUN/trial.cfg" -P "$RUN/trial.pid" 2>&1 &
pid=$!
for turn in $(seq "$TURNS"); do
    kill -0 "$pid" 2>/dev/null || { wait "$pid" || true; exit 1; }
    if [ -S "$SOCKET" ]; then
        sleep 0.3
        kill -0 "$pid" 2>/dev/null && { echo GUARDIAN-UP; kill "$pid"; exit 0; }
    fi
    sleep 0.1
done
kill "$pid"
exit 1
"""


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
    if command not in READING:
        raise CommandExecutionError(f"{command} is not allowed here: it is not known to only read")
    return _mi(command, {k: v for k, v in params.items() if not k.startswith("__")})


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
        counts = statistics("inuse_transactions", "active_dialogs")
        return {
            "running": True,
            "responding": True,
            "draining": _draining(),
            "calls": int(counts["dialog:active_dialogs"]),
            "transactions": max(0, int(counts["tm:inuse_transactions"]) - _pinged()),
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
    found = {}
    try:
        for partition in _mi("ds_list")["PARTITIONS"]:
            for one in partition["SETS"]:
                found[str(one["id"])] = [
                    {"uri": d["URI"], "state": d["state"], "node": d.get("attr", "")}
                    for d in one.get("Destinations", [])
                ]
    except (KeyError, TypeError):
        raise CommandExecutionError("ds_list: answer not understood") from None
    return found


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
    with _lock("opensips.dispatcher_reload"):
        before = dispatcher_list()
        _mi("dbt_reload")  # without it ds_reload says OK and takes what was cached
        _mi("ds_reload")
        reapply_withdrawn()
        after = dispatcher_list()
    return {
        "result": True,
        "action": "dbt_reload ds_reload",
        "before": before,
        "after": after,
        "evidence": "ds_list",
    }


def address_reload():
    """
    Read the table of trusted addresses again.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.address_reload
    """
    with _lock("opensips.address_reload"):
        before = address_dump()
        _mi("dbt_reload")
        _mi("address_reload")
        after = address_dump()
    return {
        "result": True,
        "action": "dbt_reload address_reload",
        "before": before,
        "after": after,
        "evidence": "address_dump",
    }


def address_dump():
    """
    Return the trusted addresses and networks that run, ``{group: ["address/length"]}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.address_dump
    """
    found = {}
    for command in ("address_dump", "subnet_dump"):
        for partition in _mi(command).get("Partitions", []):
            for row in partition.get("Destinations", []):
                network = ipaddress.ip_network(f"{row['ip']}/{row['mask']}", strict=False)
                found.setdefault(str(row["grp"]), []).append(str(network))
    return {group: sorted(networks) for group, networks in found.items()}


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
        if pending["disruption"] == "restart":
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
    return {
        "result": True,
        "action": f"shv_set draining {wanted}",
        "before": before,
        "after": after,
        "evidence": "shv_get",
    }


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
    except (OSError, ValueError):
        raise CommandExecutionError(
            f"{path}: unreadable; mend or remove it, then check opensips.dispatcher_list"
        ) from None
    return found if isinstance(found, dict) else {}


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


def config_check(path=None, boot=True):
    """
    Let OpenSIPS itself check a configuration: ``-C``, then a trial boot that reaches nobody.

    ``-C`` misses undefined routes, missing drivers and tables, addresses that are not ours, so a
    boot follows in a network of its own. Returns ``{"result", "problems"}``.

    CLI Example:

    .. code-block:: bash

        salt '*sip*' opensips.config_check
        salt '*sip*' opensips.config_check /etc/.opensips.previous
    """
    path = path or _opt("conf_dir")
    said = __salt__["cmd.run_all"](
        [_opt("binary"), "-C", "-f", f"{path}/opensips.cfg"],
        python_shell=False,
        output_loglevel="quiet",
        ignore_retcode=True,
    )
    if said["retcode"]:
        return {"result": False, "problems": _complaints(said, path)}
    if not boot:
        return {"result": True, "problems": []}
    with _mount_point(Path(_opt("conf_dir"))):
        said = _boot(path)
    if said["retcode"] == 0 and "GUARDIAN-UP" in said["stdout"]:
        return {"result": True, "problems": []}
    return {"result": False, "problems": _complaints(said, path)}


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
    present = _present()
    same = present == _wanted(_tree())
    found.append(_check("dispatcher holds the destinations on disk", same, len(present)))
    astray = [uri for _, uri in _astray()]
    found.append(_check("withdrawn destinations are inactive", not astray, ", ".join(astray)))
    for address, port in _util("opensips_cfg.sockets", _tree()):
        code = _util("sip.options", address, port, 2.0)
        good = code == 200 or (now["draining"] and code == 503)
        found.append(_check(f"{address}:{port} answers OPTIONS", good, str(code or "silence")))
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
        return _util("reconcile.of", _Daemon(name)).configure(rendered, test)


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
        return _util("reconcile.of", _Daemon()).ensure_running(test)


# -- what reconcile asks of an OpenSIPS ----------------------------------------------------------


class _Daemon:
    """This node's OpenSIPS, as ``_utils/reconcile.py`` wants it described."""

    name = "opensips"

    def __init__(self, conf_dir=None):
        self.conf_dir = conf_dir or _opt("conf_dir")
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
        staged = _util("staged.stage", self.conf_dir, tree, **self.owner)
        try:
            return config_check(staged)["problems"]
        finally:
            _util("staged.discard", self.conf_dir)

    def rehearse(self, path, tree):
        """``problems`` has booted it already."""
        return []

    def classify(self, old, new):
        return _util("opensips_cfg.classify", old, new)

    def safe_part(self, old, new):
        return _util("opensips_cfg.safe_part", old, new)

    def act(self, plan, run):
        """Return how many route reloads this process has seen since."""
        reloads = run["reloads"]
        for action in plan["actions"]:
            match action["do"]:
                case "reload_routes":
                    reloads = _reload_routes(reloads, self.workspace)
                case "ds_reload":
                    dispatcher_reload()
                case "address_reload":
                    address_reload()
        return reloads

    def verify(self, plan, tree):
        if {"do": "ds_reload"} in plan["actions"] and _present() != _wanted(tree):
            raise CommandExecutionError("ds_reload said OK but the sets are not those on disk")

    def undo(self, plan, tree, run):
        try:
            self.act(plan, run)
        except CommandExecutionError:
            return

    def service(self, verb):
        if not __salt__["service.enabled"]("opensips"):
            __salt__["service.enable"]("opensips")
        if not __salt__[f"service.{verb}"]("opensips"):
            raise CommandExecutionError(f"systemd could not {verb} opensips; see its journal")

    def units_changed(self):
        __salt__["service.systemctl_reload"]()

    def await_start(self, before):
        deadline = time.monotonic() + START_SECONDS
        now = status()
        while not now["responding"] or (self.life() or (before,))[0] == before:
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
        draining = ["draining"] if __salt__["voice.drained_mark"]() and not _draining() else []
        return draining + [f"ds_set_state i {uri}" for _, uri in _astray()]

    def keep_out(self):
        if __salt__["voice.drained_mark"]():
            set_draining(True)
        reapply_withdrawn()


def _boot(path):
    """Boot the tree at ``path`` in private, as if it were the live one."""
    sockets = _util("opensips_cfg.sockets", _tree(path), "udp", "tcp", "tls", "ws", "wss")
    return __salt__["cmd.run_all"](
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", TRIAL],
        python_shell=False,
        output_loglevel="quiet",
        ignore_retcode=True,
        timeout=int(BOOT_SECONDS) + 10,
        env={
            "ADDRESSES": " ".join({address for address, _ in sockets}),
            "STAGED": path,
            "LIVE": _opt("conf_dir"),
            "RUN": str(Path(_opt("mi_socket")).parent),
            "SOCKET": _opt("mi_socket"),
            "BINARY": _opt("binary"),
            "TURNS": str(int(BOOT_SECONDS * 10)),
        },
    )


@contextlib.contextmanager
def _mount_point(live):
    """Have a directory where the live tree is, or will be: before the first apply there is none."""
    missing = not live.exists()
    if missing:
        live.mkdir(mode=0o700)
    try:
        yield
    finally:
        if missing:
            live.rmdir()


def _reload_routes(reloads, workspace):
    if reloads >= MOST_ROUTE_RELOADS:
        raise CommandExecutionError(
            f"reload_routes refused: {MOST_ROUTE_RELOADS} in this process's life leak its memory;"
            f" run `guardian deploy {workspace}` for a restart"
        )
    _mi("reload_routes", timeout=15.0)
    return reloads + 1


# -- what runs -----------------------------------------------------------------------------------


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


def _pinged():
    """How many transactions the proxy's own pings may hold at a time."""
    return sum(d["state"] != "Inactive" for rows in dispatcher_list().values() for d in rows)


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


def _complaints(said, path):
    """Pick OpenSIPS's own errors out of its chatter, the staged path shown as the live one."""
    text = f"{said.get('stdout', '')}\n{said.get('stderr', '')}"
    lines = []
    for line in text.splitlines():
        for mark in ("CRITICAL:", "ERROR:"):
            if mark in line:
                told = line[line.index(mark) :].split(":", 2)[-1].strip()
                lines.append(told.replace(path, _opt("conf_dir")))
                break
    lines = [line for line in dict.fromkeys(lines) if line and "bad config file" not in line]
    last = text.strip().splitlines()[-1:] or ["without a word"]
    return lines[:3] or [f"opensips does not start with it: {last[0][:200]}"]


def _opt(name):
    return __opts__.get(f"opensips.{name}") or DEFAULTS[name]


def _mi(command, params=None, timeout=5.0):
    return _util("mi.call", command, params, socket=_opt("mi_socket"), timeout=timeout)


def _util(name, *arguments, **keywords):
    """Call one of our utils; what it raises is one finished line."""
    try:
        return __utils__[name](*arguments, **keywords)
    except (OSError, ValueError) as err:
        raise CommandExecutionError(str(err)) from None


def _lock(who, needed=True):
    path = str(Path(_opt("state_dir")) / "lock")
    return __utils__["nodelock.hold"](who, path=path, needed=needed)


def _render(source, context):
    directory = _util("tree_render.fetch", source, __salt__["cp.cache_dir"])
    cache = str(Path(__opts__["cachedir"]) / "guardian-templates")
    return _util("tree_render.render", directory, context, cache, "opensips")


def _tree(path=None):
    found = _util("staged.read", path or _opt("conf_dir"))
    return {name: content or b"" for name, content in found.items()}
