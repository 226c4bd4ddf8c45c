"""Deploy the PHP application of the fsx nodes: a directory a release, one symlink, no call lost.

``<directory>/releases/<digest>`` holds one release, named by the digest of all its files, and
``<directory>/current`` points to the live one. A release is checked before it is written, and
written before it goes live. A worker resolves the symlink once, when it starts: it stays in its
release to its end, and its release stays on disk.

A worker is ``fsx-worker@<port>``. On SIGUSR1 it listens no more and leaves after its last call;
systemd then starts it anew. As long as it takes calls, it is asked to leave only while another
one listens, so that the dialplan finds somebody.

Minion options, all optional: ``fsx.group`` (who may read the code), ``fsx.php``,
``fsx.start_seconds``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import itertools
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import time
import zlib
from pathlib import Path, PurePosixPath

from salt.exceptions import CommandExecutionError, SaltException

__virtualname__ = "fsx"

DIRECTORY = "/srv/fsx"
STATE_DIR = "/var/lib/voice"
DEFAULTS = {"group": "fsx", "php": "/usr/bin/php", "start_seconds": 20.0}
NAME_LENGTH = 16  # hexadecimal digits of the digest that name a release
LARGEST = 256 * 1024 * 1024  # bytes of a release; it is held in memory
MOST_FILES = 20_000
POLL = 0.2
LEAVE_SECONDS = 5.0  # a worker without a call is gone by then
LINT_SECONDS = 60
PHP_FILES = (".php", ".phtml", ".inc")
_NAME = re.compile(r"[0-9a-f]{12,64}(-\d+)?")
_TREE = re.compile(r"salt://(?P<path>\w[\w./+-]*)", re.ASCII)
_ARCHIVE = re.compile(
    r"(salt://|(https|s3)://[A-Za-z0-9][A-Za-z0-9.-]*(:\d{1,5})?/)[\w./+-]+\.(tar\.gz|tgz|tar\.xz)",
    re.ASCII,
)
_ENTRY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*\.php", re.ASCII)
_FAULT = re.compile(r"error: (?P<what>.*) in Standard input code on line (?P<line>\d+)")
_ESTABLISHED, _LISTEN = "01", "0A"


def __virtual__():  # noqa: N807
    return __virtualname__


def releases(directory=DIRECTORY):
    """
    Return the releases on disk, the one that went live last first.

    Each is ``{"release", "live", "since", "pids"}``: when it was made live last, None for one that
    was taken back because no worker came up with it; and the processes that run from it, calls
    included.

    CLI Example:

    .. code-block:: bash

        salt 'fsx*' fsx.releases
    """
    live, running = _live(directory), _running(directory)
    return [
        {
            "release": path.name,
            "live": path.name == live,
            "since": _since(path),
            "pids": sorted(running.get(path.name, [])),
        }
        for path in _by_age(directory)
    ]


def workers(ports=None, directory=DIRECTORY):
    """
    Return what each worker is at, in the order of ``ports``, by default those of pillar.

    Each is ``{"port", "pid", "release", "entry", "listening", "calls"}``. ``pid`` is None while
    it does not run, ``calls`` counts the established sockets of its port. One that does not listen
    but has calls drains. ``release`` is None for a process that runs from none.

    CLI Example:

    .. code-block:: bash

        salt 'fsx*' fsx.workers
    """
    sockets = _sockets()
    found = []
    for port in _ports(ports):
        pid = int(__salt__["service.show"](_unit(port)).get("MainPID") or 0) or None
        release, entry = _runs(pid, directory) if pid else (None, None)
        found.append(
            {
                "port": port,
                "pid": pid,
                "release": release,
                "entry": entry,
                "listening": (port, _LISTEN) in sockets,
                "calls": sockets.count((port, _ESTABLISHED)),
            }
        )
    return found


def deploy(
    source,
    source_hash=None,
    entry="worker.php",
    keep=3,
    ports=None,
    directory=DIRECTORY,
    patience=300,
    test=False,
):
    """
    Have an application live, and every worker that takes calls run it.

    source
        A ``salt://`` directory, or a ``.tar.gz``, ``.tgz`` or ``.tar.xz`` at ``https://``,
        ``s3://`` or ``salt://``. One directory around the whole archive is left out if ``entry``
        is in it.

    source_hash
        ``sha256=<64 hexadecimal digits>`` of the archive, which needs it.

    entry
        The PHP file in it that is run with an address and a port.

    keep
        How many releases stay on disk; those that a process runs from stay besides.

    ports
        The workers to renew, by default those of pillar.

    patience
        Seconds to wait for workers to end their calls, as long as others wait for them.

    A release with a file that ``php -l`` refuses is not written, and one with which the first
    worker does not come up is taken back. Returns ``{"result", "comment", "changes"}`` as a state
    does; ``test`` only predicts.

    CLI Example:

    .. code-block:: bash

        salt 'fsx*' fsx.deploy salt://fsx/files/worker test=True
    """
    files = _fetch(source, source_hash, entry)
    name = _util("staged.digest", files)[:NAME_LENGTH]
    with _lock("fsx.deploy", needed=not test):
        plan = _plan(directory, name, files)
        told = ""
        if not plan["intact"]:
            told = _check(files, plan["old"], test)
        if not test:
            _carry_out(directory, plan, files)
    # What runs is looked at without the node's lock: a drain need not wait for a call to end.
    plan["renewed"] = _due(workers(ports, directory), plan["new"], entry)
    if test:
        leaving = {worker["pid"] for worker in plan["renewed"]}
        plan["pruned"] = _surplus(directory, plan["new"], keep, leaving)
        changes = _changes(plan, files)
        told = f"would be live{told}" if changes else "is live"
        return _answer(None if changes else True, f"release {plan['new']} {told}", changes)
    left = _renew(directory, entry, ports, patience, plan["old"])
    plan["renewed"] = [worker for worker in plan["renewed"] if worker["port"] in left["asked"]]
    with _lock("fsx.deploy"):
        plan["pruned"] = _prune(directory, plan["new"], keep)
    told = "; ".join([f"release {plan['new']} is live", *left["told"]])
    return _answer(not left["unfinished"], told, _changes(plan, files))


def renew(entry="worker.php", ports=None, directory=DIRECTORY, patience=300):
    """
    Have the workers that run another release than the live one start over, one after the other.

    entry
        The PHP file that is run.

    ports
        The workers, by default those of pillar.

    patience
        Seconds to wait for calls to end while another worker waits for that.

    CLI Example:

    .. code-block:: bash

        salt fsx-01.lab-local fsx.renew patience=60
    """
    before = workers(ports, directory)
    left = _renew(directory, entry, ports, patience, None)
    return {
        "result": not left["unfinished"],
        "action": "renew",
        "before": before,
        "after": workers(ports, directory),
        "evidence": "; ".join(left["told"]) or "every worker runs the live release",
    }


def rollback(release=None, entry="worker.php", ports=None, directory=DIRECTORY, patience=300):
    """
    Make an earlier release live at once and renew the workers; pillar should follow.

    release
        One of ``fsx.releases``; by default the one that was live before.

    entry, ports, patience
        As for ``fsx.renew``.

    The next ``state.apply`` deploys what pillar names.

    CLI Example:

    .. code-block:: bash

        salt fsx-01.lab-local fsx.rollback
        salt fsx-01.lab-local fsx.rollback 0f3b8a61c2d4e597
    """
    with _lock("fsx.rollback"):
        old = _live(directory)
        others = {path.name: _since(path) for path in _by_age(directory) if path.name != old}
        served = (name for name, since in others.items() if since)
        new = str(release) if release else next(served, None)
        if new not in others:
            there = ", ".join(others) or "none"
            raise CommandExecutionError(f"no release {new or 'but the live one'}; others: {there}")
        if not (_home(directory) / new / entry).is_file():
            raise CommandExecutionError(f"release {new} has no {entry}; name its entry")
        _flip(directory, new)
    answer = renew(entry, ports, directory, patience)
    return {**answer, "action": f"rollback {old} -> {new}"}


# -- where an application comes from -------------------------------------------------------------


def _fetch(source, source_hash, entry):
    """Return relative path -> content of an application, its entry among them."""
    source, entry = str(source), str(entry)
    if not _ENTRY.fullmatch(entry) or ".." in entry:
        raise CommandExecutionError("fsx entry must be the relative path of a .php file")
    archive, tree = _ARCHIVE.fullmatch(source), _TREE.fullmatch(source)
    # The source is not repeated: what is wrong with it may be a login in it.
    if ".." in source or not (archive or tree):
        raise CommandExecutionError(
            "fsx source must be a salt:// directory, or a .tar.gz, .tgz or .tar.xz at https://, "
            "s3:// or salt://, without login, query or '..'"
        )
    if archive:
        files = _unpack(_download(source, source_hash), source)
        files = _without_wrapping(files, entry)
    elif source_hash:
        raise CommandExecutionError(f"{source}: a directory has no source_hash; remove it")
    else:
        files = _directory(tree["path"].strip("/"))
    if entry not in files:
        raise CommandExecutionError(f"{source} has no {entry}; name its entry in pillar fsx:entry")
    return files


def _directory(path):
    """Return the files of a directory of the fileserver."""
    names = [n for n in __salt__["cp.list_master"](prefix=path) if n.startswith(f"{path}/")]
    if not names:
        raise CommandExecutionError(f"salt://{path}: no such directory on the master")
    files, size = {}, 0
    for name, cached in zip(
        names, __salt__["cp.cache_files"]([f"salt://{n}" for n in names]), strict=True
    ):
        try:
            content = Path(cached or "").read_bytes()
        except OSError:
            raise CommandExecutionError(f"salt://{name}: cannot be fetched; run again") from None
        size += len(content)
        relative = _inside(name.removeprefix(f"{path}/"), f"salt://{path}")
        _limit(f"salt://{path}", len(files), size)
        files[relative] = content
    return files


def _download(source, source_hash):
    """Return the local path of an archive that is what its hash says."""
    kind, _, wanted = str(source_hash or "").partition("=")
    if kind != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise CommandExecutionError(
            f"{source}: pillar fsx:source_hash must be sha256=<64 hexadecimal digits>; "
            "`sha256sum` prints them"
        )
    try:
        path = __salt__["cp.cache_file"](source, source_hash=source_hash)
    except (SaltException, OSError):  # its text may hold what the store was asked with
        path = None
    if not path:
        raise CommandExecutionError(f"{source}: cannot be fetched; is it there, and may this node?")
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise CommandExecutionError(
            f"{source}: its SHA-256 is {found}, pillar fsx:source_hash says {wanted}; refused"
        )
    return path


def _unpack(path, source):
    """Return the files of an archive; anything that is not a plain file in its place is refused."""
    files, size = {}, 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = _inside(member.name, source)
                if member.isdir():
                    continue
                if not member.isfile():
                    raise CommandExecutionError(
                        f"{source}: {name} is no plain file; pack it with `tar --dereference`"
                    )
                size += member.size
                _limit(source, len(files), size)
                files[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
        raise CommandExecutionError(f"{source}: not a tar archive that can be read") from None
    return files


def _inside(name, source):
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise CommandExecutionError(f"{source}: {name!r} leads out of it; refused")
    return str(path)


def _limit(source, count, size):
    if count >= MOST_FILES or size > LARGEST:
        raise CommandExecutionError(
            f"{source}: more than {MOST_FILES} files or {LARGEST >> 20} MiB; leave out what no "
            "call needs"
        )


def _without_wrapping(files, entry):
    """Leave out the one directory that many archives put around everything."""
    tops = {name.partition("/")[0] for name in files}
    if entry in files or len(tops) != 1:
        return files
    inner = {name.partition("/")[2]: content for name, content in files.items()}
    return inner if entry in inner else files


def _check(files, live, test):
    """Refuse a release one of whose PHP files PHP cannot compile; the fault is told by its place.

    PHP reads from a pipe: what is refused has not even been written.
    """
    php = shutil.which(_opt("php"))
    if php is None:
        if test:
            return "; its files are not checked yet, php is not installed"
        raise CommandExecutionError(f"{_opt('php')} is missing; apply fsx.installed first")
    # The calls of this node come first.
    command = ["nice", "-n", "19", php, "-d", "display_errors=1", "-d", "log_errors=0", "-l"]
    names = sorted(name for name in files if name.endswith(PHP_FILES))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda name: _fault(command, name, files[name]), names)
        faults = [fault for fault in found if fault]
    if faults:
        more = f"; and {len(faults) - 1} more files" if len(faults) > 1 else ""
        kept = f"release {live} stays live" if live else "nothing is live"
        raise CommandExecutionError(f"fsx release refused: {faults[0]}{more}; {kept}")
    return ""


def _fault(command, name, content):
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=LINT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return f"{name}: php -l gives no answer"
    if done.returncode == 0:
        return None
    fault = _FAULT.search(done.stdout.decode(errors="replace"))
    if fault is None:
        return f"{name}: php -l refuses it"
    # PHP quotes the string it stumbled over, which may be a password.
    what = re.sub(r'(string(?: content)?) ".*"', r"\1", fault["what"])
    return f"{name} line {fault['line']}: {what.replace('Standard input code', name)}"


# -- releases on disk ----------------------------------------------------------------------------


def _plan(directory, name, files):
    """Return what leads to a release with this name and these files being live."""
    current = Path(directory) / "current"
    if current.exists() and not current.is_symlink():
        raise CommandExecutionError(f"{current} is no symlink; move it away and run again")
    old = _live(directory)
    new, intact = _slot(directory, name, files, old)
    wrong = []
    if intact:
        path = str(_home(directory) / new)
        wrong = _util("staged.wrong_attributes", path, **_owner())
    return {"old": old, "new": new, "intact": intact, "wrong": wrong}


def _slot(directory, name, files, live):
    """Return the name of the directory for these files, and whether they are in it already.

    A directory that somebody altered is never mended: a worker may run from it.
    """
    names = [f"{name}-{number}" for number in range(2, 1000)]
    mine = [live] if live in (name, *names) else []
    for candidate in [*mine, name, *names]:
        path = _home(directory) / candidate
        if not path.exists():
            return candidate, False
        differing = _util("staged.compare", str(path), files)
        if not any(differing.values()):
            return candidate, True
    raise CommandExecutionError(f"{_home(directory)}: remove the altered releases {name}-*")


def _carry_out(directory, plan, files):
    """Write the release if it is not there, and make it live."""
    home = _home(directory)
    path = str(home / plan["new"])
    try:
        for parent in (home.parent, home):
            if not parent.is_dir():
                parent.mkdir(parents=True)
                parent.chmod(0o755)  # workers pass through, whatever the umask
        for left in home.glob(".*.staged"):  # of a run that was killed
            shutil.rmtree(left)
        if not plan["intact"]:
            staged = _util("staged.stage", path, files, **_owner())
            _util("staged.swap", path, staged)
        if plan["wrong"]:
            _util("staged.set_attributes", path, plan["wrong"], **_owner())
        if plan["new"] != plan["old"]:
            _flip(directory, plan["new"])
    except OSError as err:
        raise _unwritten(directory, err) from None


def _unwritten(directory, err):
    where = err.filename or directory
    return CommandExecutionError(f"{where}: {err.strerror}; release {_live(directory)} is live")


def _flip(directory, release):
    """Point ``current`` to a release, in one step that outlives a power cut."""
    root = Path(directory)
    _util("staged.point", str(root / "current"), f"releases/{release}")
    os.utime(root / "releases" / release)


def _live(directory):
    """Return the name of the live release, None if there is none."""
    try:
        found = (Path(directory) / "current").readlink()
    except OSError:
        return None
    return found.name if (_home(directory) / found.name).is_dir() else None


def _by_age(directory):
    """Return the directories of releases, the one that went live last first."""
    home = _home(directory)
    found = [p for p in home.iterdir() if _NAME.fullmatch(p.name)] if home.is_dir() else []
    return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))


def _since(path):
    """Return when a release was made live last; its directory bears the time."""
    seconds = path.stat().st_mtime
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None


def _surplus(directory, live, keep, leaving=()):
    """Return the releases beyond ``keep`` that no process runs from, ``leaving`` aside."""
    others = [path.name for path in _by_age(directory) if path.name != live]
    busy = {name for name, pids in _running(directory).items() if pids - set(leaving)}
    return [name for name in others[max(0, int(keep) - 1) :] if name not in busy]


def _prune(directory, live, keep):
    """Remove the surplus and return it; the last release of a call that goes on stays."""
    _util("staged.discard", str(Path(directory) / "current"))  # of a run that was killed
    surplus = _surplus(directory, live, keep)
    try:
        for name in surplus:
            shutil.rmtree(_home(directory) / name)
    except OSError as err:
        raise _unwritten(directory, err) from None
    return surplus


def _home(directory):
    return Path(directory) / "releases"


def _changes(plan, files):
    """Return what a plan changes, empty if nothing."""
    old, new, renewed = plan["old"], plan["new"], plan["renewed"]
    switched = new != old
    actions = []
    if not plan["intact"]:
        actions.append(f"write {len(files)} files")
    if plan["wrong"]:
        actions.append(f"set owner and mode of {len(plan['wrong'])} files")
    if switched:
        actions.append(f"switch current to {new}")
    actions += [f"renew worker {worker['port']}" for worker in renewed]
    actions += [f"prune {name}" for name in plan["pruned"]]
    if not actions:
        return {}
    why = [f"release {old or 'none'} -> {new}"] if switched else []
    why += [f"worker {w['port']} runs {w['release'] or 'no release'}" for w in renewed]
    changes = {"release": {"old": old, "new": new}} if switched else {}
    disruption = "reload" if renewed else "none"
    return {**changes, "disruption": disruption, "why": why, "actions": actions}


# -- workers -------------------------------------------------------------------------------------


def _renew(directory, entry, ports, patience, previous):
    """Renew the workers that are due; return ``{"asked", "told", "unfinished"}``.

    If the first does not come up, the release that the others run, or else ``previous``, is live
    again, and systemd starts that.
    """
    live = _live(directory)
    asked = {}  # port -> the process that was asked to leave, and when
    down = {}  # port -> since when nobody has listened in place of that process
    deadline = time.monotonic() + float(patience)
    with _lock("fsx.renew", "fsx.lock"):
        while True:
            now, moment = workers(ports, directory), time.monotonic()
            waiting = _settling(now, asked, down, moment)
            failed = [port for port, since in down.items() if moment - since > _start_seconds()]
            if failed:
                _take_back(directory, failed[0], now, previous)
            due = [w for w in _due(now, live, entry) if w["port"] not in asked]
            free = [] if waiting else [w for w in due if _may_leave(w, now)]
            if free:
                asked[free[0]["port"]] = free[0]["pid"], moment
                _ask_to_leave(free[0]["port"])
            elif not waiting and (not due or moment > deadline or not _is_worth_a_wait(now)):
                return {"asked": list(asked), **_told(now, live, entry)}
            time.sleep(POLL)


def _settling(now, asked, down, moment):
    """Tell whether a worker that was asked to leave may still be back in a moment."""
    waiting = False
    for worker in now:
        pid, since = asked.get(worker["port"], (None, 0.0))
        if pid is None or worker["pid"] == pid:
            waiting = waiting or (pid is not None and moment - since < LEAVE_SECONDS)
        elif worker["listening"]:
            down.pop(worker["port"], None)
        else:
            down.setdefault(worker["port"], moment)
            waiting = True
    return waiting


def _due(now, live, entry):
    """Return the workers to ask to leave, in this order; one that drains has been asked.

    The idle first: they are back at once and take the calls of those that must drain.
    """
    stale = [w for w in now if _is_stale(w, live, entry) and (w["listening"] or not w["calls"])]
    return sorted(stale, key=lambda worker: (worker["listening"], worker["calls"]))


def _is_stale(worker, live, entry):
    if worker["pid"] is None:
        return False
    return worker["release"] != live or worker["entry"] not in (None, entry)


def _may_leave(worker, now):
    """Tell whether no call goes without a worker while this one is away."""
    others = [one for one in now if one is not worker]
    if not worker["listening"] or any(one["listening"] for one in others):
        return True
    return not others and not worker["calls"]


def _is_worth_a_wait(now):
    """Tell whether the last call of a worker would let another one leave, or itself."""
    return len(now) == 1 or any(worker["pid"] and not worker["listening"] for worker in now)


def _ask_to_leave(port):
    try:
        done = __salt__["service.reload"](_unit(port))
    except CommandExecutionError:  # several lines of systemd's
        done = False
    if not done:
        raise CommandExecutionError(f"{_unit(port)}: systemd could not reload it; see its journal")


def _take_back(directory, port, now, previous):
    """Undo a switch whose first worker does not come up; the others have not been touched."""
    live = _live(directory)
    told = (
        f"{_unit(port)} did not listen within {_start_seconds():g} s with release {live}, "
        "see its journal"
    )
    running = [worker["release"] for worker in now if worker["listening"]]
    if live in running:
        raise CommandExecutionError(f"{told}; others do, so it stays live")
    earlier = [name for name in (*running, previous) if name not in (None, live)]
    back = next((name for name in earlier if (_home(directory) / name).is_dir()), None)
    if back is None:
        raise CommandExecutionError(f"{told}; there is no earlier release to go back to")
    with _lock("fsx.take_back"):
        _flip(directory, back)
        # Nobody should roll back to it, and it is the first to be pruned.
        os.utime(_home(directory) / live, (0, 0))
    raise CommandExecutionError(f"{told}; release {back} is live again")


def _told(now, live, entry):
    """Say which workers are not there yet, and whether any of them still takes calls."""
    told, unfinished = [], False
    for worker in now:
        if not _is_stale(worker, live, entry):
            continue
        port, runs = worker["port"], worker["release"] or "no release"
        calls = f"{worker['calls']} call{'' if worker['calls'] == 1 else 's'} up"
        if worker["listening"]:
            unfinished = True
            told.append(f"worker {port} still takes calls on {runs}, {calls}; apply again")
        else:
            told.append(f"worker {port} drains, {calls} on {runs}")
    return {"told": told, "unfinished": unfinished}


def _runs(pid, directory):
    """Return the release and the entry of a process; None for what cannot be told."""
    paths = _paths_of(pid, directory)
    release = paths[0].parts[0] if paths else None
    return release, next(("/".join(p.parts[1:]) for p in paths if p.suffix == ".php"), None)


def _running(directory):
    """Return release -> the processes that run from it."""
    found = {}
    for proc in Path("/proc").iterdir():
        if proc.name.isdigit():
            for path in _paths_of(proc.name, directory):
                found.setdefault(path.parts[0], set()).add(int(proc.name))
    return found


def _paths_of(pid, directory):
    """Return what a process names below the releases: where it stands, then its arguments."""
    proc = Path("/proc", str(pid))
    homes = {_home(directory), _home(directory).resolve()}
    named = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        named.append(os.readlink(proc / "cwd"))  # noqa: PTH115
        named += proc.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
    return [
        Path(name).relative_to(home)
        for name, home in itertools.product(named, homes)
        if name.startswith(f"{home}/")
    ]


def _sockets():
    """Return (local port, state) of every TCP socket of this node."""
    found = []
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(file).read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                found.append((int(local.rpartition(":")[2], 16), state))
    return found


# -- small things --------------------------------------------------------------------------------


def _ports(ports):
    wanted = ports or __salt__["pillar.get"]("fsx:ports", [], unmask=True)
    try:
        return [int(port) for port in wanted]
    except (TypeError, ValueError):
        raise CommandExecutionError("ports must be a list of numbers, as in [9001, 9002]") from None


def _unit(port):
    return f"fsx-worker@{port}"


def _owner():
    """The worker reads its code and cannot alter it."""
    return {"owner": "root", "group": _opt("group")}


def _start_seconds():
    return float(_opt("start_seconds"))


def _opt(name):
    return __opts__.get(f"fsx.{name}") or DEFAULTS[name]


def _answer(result, comment, changes=None):
    return {"result": result, "comment": comment, "changes": changes or {}}


def _util(name, *arguments, **keywords):
    """Call one of our utils; what it raises is one finished line."""
    try:
        return __utils__[name](*arguments, **keywords)
    except (OSError, ValueError) as err:
        raise CommandExecutionError(str(err)) from None


def _lock(who, file="lock", needed=True):
    path = Path(__opts__.get("voice.state_dir") or STATE_DIR) / file
    return __utils__["nodelock.hold"](who, path=str(path), needed=needed)
