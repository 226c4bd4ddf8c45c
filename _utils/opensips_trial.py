"""Let OpenSIPS judge a configuration before it is live: its own check, then a boot apart.

``opensips -C`` misses undefined routes, missing drivers and tables, addresses that are not ours
and more (measured on 3.4.18). So the tree is also started once in a network, a process space and
directories of its own, with its addresses on `lo` and every database in place of a remote one.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

CHECK_SECONDS = 60.0
BOOT_SECONDS = 15.0
STAY_SECONDS = 0.5  # what its processes find wrong shows before the MI answers (3.4.18)
PATIENCE = BOOT_SECONDS + STAY_SECONDS + 15
OUTPUT = 200_000
_REMOTE = re.compile(rb'("db_url"\s*,\s*|db_default_url\s*=\s*)"(?!text:|sqlite:)\w+://[^"\n]*"')


def check(binary: str, path: str, memory: dict[str, int] | None = None) -> tuple[bool, str]:
    """Return whether ``binary -C`` takes the tree at ``path``, and all it says.

    ``memory`` is what a start gives it, MiB ``shared`` and ``private``.
    """
    try:
        done = subprocess.run(
            [binary, "-C", "-f", f"{path}/opensips.cfg", *_sizes(memory)],
            capture_output=True,
            timeout=CHECK_SECONDS,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        return False, f"ERROR:core:check: no verdict within {CHECK_SECONDS:g} s"
    return done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")[:OUTPUT]


def boot(
    binary: str,
    path: str,
    memory: dict[str, int] | None = None,
    *,
    live: str,
    run: str,
    var: str,
    mi_socket: str,
) -> tuple[bool, str]:
    """Start the tree at ``path`` as if it were at ``live``; return whether it stays up, and words.

    ``memory`` is what its unit gives it, MiB ``shared`` and ``private``; ``run`` and ``var`` are
    the directories of its sockets and its database. Raises ``OSError``
    when no trial can be made here.
    """
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    wanted = {"binary": binary, "path": path, "live": live, "run": run, "var": var,
              "mi_socket": mi_socket, "sizes": _sizes(memory)}  # fmt: skip
    try:
        wanted["addresses"] = _own_addresses()
        with _mount_points(live, run, var), tempfile.TemporaryDirectory(prefix="opensips.") as root:
            done = subprocess.run(
                [*apart, sys.executable, __file__],
                input=json.dumps({**wanted, "root": root}).encode(),
                capture_output=True,
                timeout=PATIENCE,
            )
        up, said = json.loads(done.stdout.strip().rpartition(b"\n")[2])
    except subprocess.TimeoutExpired:
        return False, f"ERROR:core:boot: neither up nor ended within {PATIENCE:g} s"
    except (ValueError, subprocess.CalledProcessError):
        up, said = None, "no answer from its namespaces"
    if up is None:
        raise OSError(f"trial boot: could not be made ({said}); it needs root and util-linux")
    return bool(up), str(said)


def _sizes(memory: dict[str, int] | None) -> list[str]:
    """Return what the unit passes: 10,000 destinations do not fit into the daemon's own 32 MiB."""
    options = {"shared": "-m", "private": "-M"}
    return [word for key in memory or {} for word in (options[key], str(memory[key]))]


@contextlib.contextmanager
def _mount_points(*directories: str) -> Iterator[None]:
    """Have directories to mount on; before the first apply there are none."""
    made = []
    for directory in directories:
        if not Path(directory).exists():
            Path(directory).mkdir(mode=0o700, parents=True)
            made.append(directory)
    try:
        yield
    finally:
        for directory in made:
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def _own_addresses() -> list[str]:
    """Return this host's IPv4 addresses: a socket on any other fails here as it will in service."""
    shown = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, check=True)
    found = [info["local"] for link in json.loads(shown.stdout) for info in link["addr_info"]]
    return [address for address in found if not address.startswith("127.")]


def _inside(wanted: dict) -> tuple[bool, str]:
    """Make the trial; this process is the first of its own namespaces."""
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    for address in wanted["addresses"]:
        _run("ip", "address", "replace", f"{address}/32", "dev", "lo")
    _run("mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", wanted["root"])
    copy = Path(wanted["root"]) / "tree"
    tree = _copied(Path(wanted["path"]), copy)
    for directory in (wanted["run"], wanted["var"]):
        _run("mount", "-t", "tmpfs", "-o", "mode=0777", "tmpfs", directory)
    _stub(copy, tree, Path(wanted["var"]))
    _run("mount", "--bind", str(copy), wanted["live"])
    return _trial(wanted, Path(wanted["root"]))


def _copied(source: Path, target: Path) -> dict[str, bytes]:
    tree = {
        str(file.relative_to(source)): file.read_bytes()
        for file in source.rglob("*")
        if file.is_file()
    }
    for name, content in tree.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return tree


def _stub(copy: Path, tree: dict[str, bytes], var: Path) -> None:
    """Put a database with every table in place of each; a remote one's URL leads there too."""
    database = _sibling("opensips_db")
    user, group = _names()
    local = f"text://{var}/dbtext"
    if any(b'"sqlite:' in content for content in tree.values()):
        file = var / "opensips.sqlite"
        database.sync(str(file), tree, owner=user, group=group)
        local = f"sqlite://{file}"
    else:
        database.seed(str(var / "dbtext"), tree, owner=user, group=group)
    for name, content in tree.items():
        stubbed = _REMOTE.sub(lambda found: found[1] + f'"{local}"'.encode(), content)
        if name.endswith(".cfg") and stubbed != content:
            (copy / name).write_bytes(stubbed)


def _trial(wanted: dict, root: Path) -> tuple[bool, str]:
    # Its last words go to stderr here; in service they go to syslog.
    start = root / "trial.cfg"
    start.write_text(f'include_file "{wanted["live"]}/opensips.cfg"\nstderror_enabled=yes\n')
    with (root / "console").open("wb") as console:
        daemon = subprocess.Popen(
            [wanted["binary"], "-F", "-f", str(start), "-P", str(root / "pid"), *wanted["sizes"]],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    answered = None
    deadline = time.monotonic() + BOOT_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        if answered is None and _answers(wanted["mi_socket"]):
            answered = time.monotonic()
        if answered and time.monotonic() > answered + STAY_SECONDS:
            break
        time.sleep(0.05)
    up = daemon.poll() is None and answered is not None
    daemon.kill()
    daemon.wait()
    return up, (root / "console").read_bytes()[:OUTPUT].decode("utf-8", "replace")


def _answers(mi_socket: str) -> bool:
    try:
        _sibling("mi").call("version", socket=mi_socket, timeout=1.0)
    except OSError:
        return False
    return True


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for one, look themselves up
    spec.loader.exec_module(module)
    return module


def _names() -> tuple[str, str]:
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
    try:
        found = _inside(json.load(sys.stdin))
    except (OSError, ValueError, subprocess.CalledProcessError) as err:
        command = getattr(err, "cmd", None)
        found = (None, f"`{' '.join(command)}` failed" if command else str(err))
    print(json.dumps(found))
