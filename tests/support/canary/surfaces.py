"""Every place where something of a region can be seen, and what new is in it."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.canary.region import DAEMONS, Region

JOURNAL = Path("/run/systemd/journal/socket")
_OVERLAP = 256  # bytes: what is written in two parts is still one secret


@dataclass(frozen=True)
class Home:
    """Files that are meant to hold secrets, and what others may do with them."""

    path: str
    mode: int

    def covers(self, path: str, owners: tuple[str, str], mode: int, daemon: str) -> bool:
        """Tell whether a file is one of them, of root's or of the daemon's, and closed enough."""
        return (
            Path(path).match(self.path.format(daemon=daemon))
            and set(owners) <= {"root", daemon}
            and not mode & ~self.mode
        )


# `{daemon}` is the node's voice daemon. fs_cli and the monitor are run by root.
HOMES = (
    Home("/etc/apt/auth.conf.d/*.conf", 0o600),
    Home("/etc/fs_cli.conf", 0o600),
    Home("/etc/voice/tls/*/*/key.pem", 0o600),
    Home("/etc/voice/sofia/*/*/*.pem", 0o600),
    Home("/etc/fsx/credentials/*", 0o644),  # in a directory that workers alone may enter
    Home("/etc/{daemon}/*", 0o640),
    Home("/etc/{daemon}/*/*", 0o640),
    Home("/etc/{daemon}/*/*/*", 0o640),
    Home("/etc/.{daemon}.previous/*", 0o640),
    Home("/etc/.{daemon}.previous/*/*", 0o640),
    Home("/etc/.{daemon}.previous/*/*/*", 0o640),
    Home("/var/lib/voice/*.running.json", 0o600),
    Home("/var/lib/opensips/opensips.sqlite", 0o640),
    # The daemon's own, under its unit's UMask, in a directory of its own.
    Home("/var/log/freeswitch/freeswitch.xml.fsxml", 0o660),
)
# Files on their way there, which are replaced or thrown away.
PASSING = (
    *HOMES,
    Home("/etc/.{daemon}.staged/*", 0o640),
    Home("/etc/.{daemon}.staged/*/*", 0o640),
    Home("/etc/.{daemon}.staged/*/*/*", 0o640),
    # The twin's: Python takes keys from files alone.
    Home("/tmp/tls-*", 0o600),
)


_OF_TOP = {
    "stubs": "", "pillar": "sources", "files": "sources", "etc": "sources", "outputs": "sources",
    "secrets": "sealed cache", "guardian": "guardian",
}  # fmt: skip
_OBSERVED = {
    "events": "event bus", "returns": "returns", "removed": "removed", "started": "argv",
    "screens": "screens",
}  # fmt: skip


class Surfaces:
    """Tells once, for each surface, which canaries have come to it since it told last."""

    def __init__(self, region: Region) -> None:
        self._region, self._found = region, region.canaries.found
        self._read: dict[Path, tuple[int, int]] = {}
        self._since = time.time()
        self.homes: dict[str, set[str]] = {}  # canary -> files that are meant to hold it

    def sweep(self) -> dict[str, set[str]]:
        """Return surface -> what was seen there, a line each; never a value."""
        seen: dict[str, set[str]] = {}
        for surface, where, told in self._all():
            if told:
                seen.setdefault(surface, set()).update(f"{where}: {one}" for one in told)
        return seen

    def _all(self) -> Iterator[tuple[str, str, set[str]]]:
        root = self._region.root
        for kind in ("argv", "environ"):
            yield kind, "/proc", self._region.programs.take(kind)
        for path, data in self._changed(root):
            name = str(path.relative_to(root))
            surface = self._surface(name)
            if surface in ("files", "removed"):
                yield surface, *self._file(surface, path, name, data)
            elif surface:
                yield surface, name, self._region.canaries.places(data)
        if JOURNAL.exists():
            yield "journal", "journalctl", self._found(self._journal())

    def _changed(self, root: Path) -> Iterator[tuple[Path, bytes]]:
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory) / name
                try:
                    about = path.lstat()
                    stamp = about.st_mtime_ns, about.st_size
                    before = self._read.get(path)
                    if (about.st_mode & 0o170000) != 0o100000 or before == stamp:
                        continue
                    with path.open("rb") as file:
                        # A file that grew is a log, but for those that hold secrets as a whole.
                        if before and before[1] <= stamp[1] and "layers" not in path.parts:
                            file.seek(max(0, before[1] - _OVERLAP))
                        yield path, file.read()
                except OSError:
                    continue
                self._read[path] = stamp

    @staticmethod
    def _surface(name: str) -> str:
        top, _, rest = name.partition("/")
        if top in _OF_TOP:
            return _OF_TOP[top]
        if top == "observed":
            return _OBSERVED.get(rest.partition("/")[0].partition(".")[0], "logs")
        if rest.startswith("layers/"):
            return "metrics" if rest.endswith(".prom") else "files"
        if "/jobs/" in rest or "/minion_jobs/" in rest or "/proc/" in rest:
            return "job cache"
        return "logs" if rest == "log" else "salt's caches"

    def _file(self, surface: str, path: Path, name: str, data: bytes) -> tuple[str, set[str]]:
        """Return where a file with secrets is and which it holds; none where it may."""
        found = self._found(data)
        if not found:
            return name, set()
        if surface == "removed":
            head = json.loads(data.partition(b"\n")[0])
            real, mode, ids = head["path"], int(head["mode"], 8), (head["uid"], head["gid"])
            roles, homes = tuple(self._region.nodes), PASSING
        else:
            role, _, rest = name.partition("/layers/")
            layer, _, below = rest.partition("/up/")
            about = path.lstat()
            real, mode, ids = (
                f"/{layer}/{below}",
                about.st_mode & 0o7777,
                (about.st_uid, about.st_gid),
            )
            roles, homes = (role,), HOMES
        for role in roles:
            owners = self._owner(role, "passwd", ids[0]), self._owner(role, "group", ids[1])
            if any(home.covers(real, owners, mode, DAEMONS[role]) for home in homes):
                for canary in found if surface == "files" else ():
                    self.homes.setdefault(canary, set()).add(real)
                return name, set()
        return f"{'/'.join(roles)}:{real} ({ids[0]}:{ids[1]} {mode:04o})", found

    def _owner(self, role: str, table: str, number: int) -> str:
        for line in self._region.file(role, f"/etc/{table}").read_text().splitlines():
            name, _, found, *_ = line.split(":")
            if found == str(number):
                return name
        return str(number)

    def _journal(self) -> bytes:
        since, self._since = self._since, time.time()
        command = ["journalctl", "--output=export", f"--since=@{since:.0f}", "--no-pager"]
        return subprocess.run(command, capture_output=True, check=False).stdout
