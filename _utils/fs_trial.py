"""Boot a FreeSWITCH configuration where it reaches nobody, and say what did not come up.

FreeSWITCH has no switch that checks a configuration. So it is started once in a network, a process
space and directories of its own, with the node's addresses on `lo`, and asked what runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 30.0
PATIENCE = SECONDS + 15
SETTLE_SECONDS = 8.0  # a profile tries twice more to bind, 5 s apart, before it gives up
SILENT = ["its event socket"]
SHOWN = 3
# What it keeps on disk; all of it goes with the trial.
DIRECTORIES = ("log", "db", "run", "storage", "cache", "temp", "recordings")


def boot(
    binary: str,
    conf_dir: str,
    addresses: list[str],
    profiles: list[str],
    modules: list[str],
    event_socket: dict,
) -> list[str]:
    """Start ``binary`` with the tree at ``conf_dir``; return what is wrong, a line each.

    ``profiles`` and ``modules`` must run in the end; ``event_socket`` is
    ``fsxml.event_socket``'s. No binary, no trial: [].
    """
    if not Path(binary).exists():
        return []
    wanted = {
        "binary": binary,
        "conf": conf_dir,
        "addresses": addresses,
        "profiles": profiles,
        "modules": modules,
        "event_socket": event_socket,
        "esl": str(Path(__file__).with_name("esl.py")),
    }
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    try:
        with tempfile.TemporaryDirectory(prefix="freeswitch-trial.") as root:
            done = subprocess.run(
                [*apart, sys.executable, __file__],
                # never by argv: it holds the event socket's password
                input=json.dumps({**wanted, "root": root}),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        problems = json.loads(done.stdout.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return [f"trial boot: no answer within {PATIENCE:g} s; try it again when the node is idle"]
    except (OSError, ValueError):
        return ["trial boot: could not be made; it needs root and unshare of util-linux"]
    return [str(problem) for problem in problems]


def _inside(wanted: dict) -> list[str]:
    """Make the trial; this process is the first of its own namespaces."""
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    for address in wanted["addresses"]:
        _run("ip", "address", "replace", f"{address}/32", "dev", "lo")
    _run("mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", wanted["root"])
    return _trial(wanted, Path(wanted["root"]))  # the mount goes with its namespace


def _trial(wanted: dict, root: Path) -> list[str]:
    where = ["-conf", wanted["conf"]]
    for name in DIRECTORIES:
        (root / name).mkdir()
        where += [f"-{name}", str(root / name)]
    with (root / "console").open("wb") as console:
        daemon = subprocess.Popen(
            [wanted["binary"], "-nonat", "-nc", "-nf", *where],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    missing = SILENT
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and daemon.poll() is None:
        silent, missing = missing == SILENT, _missing(wanted)
        if not missing:
            break
        if silent and missing != SILENT:  # it answers: what is to come comes soon
            deadline = min(deadline, time.monotonic() + SETTLE_SECONDS)
        time.sleep(0.1)
    ended = daemon.poll() is not None
    daemon.kill()
    daemon.wait()
    if not missing:
        return []
    told = "it ended" if ended else "it came up" if missing != SILENT else f"after {SECONDS:g} s"
    lines = _complaints(root / "log" / "freeswitch.log") or _complaints(root / "console")
    return [f"trial boot: {told} without {', '.join(missing)}", *lines]


def _missing(wanted: dict) -> list[str]:
    spec = importlib.util.spec_from_file_location("esl", wanted["esl"])
    esl = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(esl)
    try:
        with esl.connect(**wanted["event_socket"], timeout=5.0) as link:
            shown = link.api("sofia status")
            return [
                *(f"profile {name}" for name in wanted["profiles"] if not _runs(name, shown)),
                *(
                    name
                    for name in wanted["modules"]
                    if link.api(f"module_exists {name}").strip() != "true"
                ),
            ]
    except (OSError, ValueError):
        return SILENT


def _runs(profile: str, shown: str) -> bool:
    """Tell whether `sofia status` lists a profile as running."""
    rows = (line.split() for line in shown.splitlines())
    return any(row[:2] == [profile, "profile"] and "RUNNING" in row for row in rows)


def _complaints(file: Path) -> list[str]:
    """Return the first errors of a log, without their time."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    marks = ("[ERR]", "[CRIT]", "[ALERT]")
    loud = [line.partition(mark)[2] for line in lines for mark in marks if mark in line]
    return list(dict.fromkeys(line.strip()[:200] for line in loud))[:SHOWN]


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
    try:
        found = _inside(json.load(sys.stdin))
    except (OSError, subprocess.CalledProcessError) as err:
        command = getattr(err, "cmd", None)
        what = f"`{' '.join(command)}` failed" if command else f"{err.filename}: {err.strerror}"
        found = [f"trial boot: could not be made ({what}); it needs root and a network of its own"]
    print(json.dumps(found))
