"""The lab's package server: a caching proxy for Debian and the voice repository beside it.

It listens inside the hub's namespace and asks upstream from the machine's own network, which is
the only thread between the two. A namespace belongs to a socket, so the process opens its
listening socket in the hub and then moves back.
"""

import contextlib
import http.server
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lab.names import CACHE, HUB_ADDRESS, MIRROR_PORT, REPOSITORY, LabError, Names

VOICE_URI = f"http://{HUB_ADDRESS}:{MIRROR_PORT}/voice"
_UPSTREAM_HOSTS = {"deb.debian.org", "security.debian.org"}
_START_SECONDS = 10.0
_UPSTREAM_SECONDS = 60


def _never_changes(path: str) -> bool:
    """Whether what is at `path` can be kept for good: packages, and lists named by digest."""
    return path.endswith(".deb") or "/by-hash/" in path


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    voice: Path
    cache: Path

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        path = unquote(target.path)
        if ".." in path.split("/"):
            self._refuse(403, "no such path")
        elif target.hostname in (None, HUB_ADDRESS):
            self._from_voice(path)
        elif target.scheme == "http" and target.hostname in _UPSTREAM_HOSTS:
            self._from_debian(target.geturl(), self.cache / f"{target.hostname}{path}")
        else:
            self._refuse(403, f"{target.hostname} is not a Debian mirror")

    def _from_voice(self, path: str) -> None:
        file = self.voice / path.removeprefix("/voice/")
        if path.startswith("/voice/") and file.is_file():
            self._send(file)
        else:
            self._refuse(404, "not in the voice repository")

    def _from_debian(self, url: str, kept: Path) -> None:
        if kept.is_file() and _never_changes(url):
            self._send(kept)
            return
        request = urllib.request.Request(url)
        for header in ("If-Modified-Since", "Cache-Control"):
            if value := self.headers.get(header):
                request.add_header(header, value)
        try:
            with urllib.request.urlopen(request, timeout=_UPSTREAM_SECONDS) as answer:
                kept.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as part:
                    shutil.copyfileobj(answer, part)
                Path(part.name).replace(kept)
                self._send(kept, answer.headers.get("Last-Modified"))
        except urllib.error.HTTPError as err:
            self._refuse(err.code, err.reason)
        except (OSError, urllib.error.URLError) as err:
            self._refuse(502, f"upstream did not answer: {err}")

    def _send(self, file: Path, modified: str | None = None) -> None:
        with file.open("rb") as body:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(body.fileno()).st_size))
            if modified:
                self.send_header("Last-Modified", modified)
            self.end_headers()
            shutil.copyfileobj(body, self.wfile)

    def _refuse(self, status: int, reason: str) -> None:
        self.send_response(status, reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {format % args}\n")


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket) -> None:
        super().__init__((HUB_ADDRESS, MIRROR_PORT), _Handler, bind_and_activate=False)
        self.socket = listening


def start(names: Names, voice: Path) -> None:
    """Start the server for a lab unless it runs; LabError when it does not listen in time."""
    if running(names):
        return
    log = names.directory / "mirror.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                "ip", "netns", "exec", names.hub,
                sys.executable, "-m", "lab.mirror", "listen", f"/proc/{os.getpid()}/ns/net",
                str(CACHE / "mirror"), str(voice),
            ],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=REPOSITORY,
            start_new_session=True,
        )  # fmt: skip
    (names.directory / "mirror.pid").write_text(f"{process.pid}\n")
    deadline = time.monotonic() + _START_SECONDS
    while "ready" not in log.read_text(errors="replace").splitlines():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the package mirror did not start: see {log}")
        time.sleep(0.05)


def _pid(names: Names) -> int | None:
    try:
        pid = int((names.directory / "mirror.pid").read_text())
        if b"lab.mirror" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    except (OSError, ValueError):
        pass
    return None


def running(names: Names) -> bool:
    return _pid(names) is not None


def stop(names: Names) -> None:
    """End the server and its log, so that a next start waits for its own `ready`."""
    pid = _pid(names)
    if pid is not None:
        os.kill(pid, 15)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    (names.directory / "mirror.pid").unlink(missing_ok=True)
    (names.directory / "mirror.log").unlink(missing_ok=True)


def _listen(home_namespace: str, cache: str, voice: str) -> None:
    """Open the socket in the namespace we are in, then go on in `home_namespace` with it."""
    listening = socket.create_server((HUB_ADDRESS, MIRROR_PORT), backlog=64)
    listening.set_inheritable(True)
    os.execvp(
        "nsenter",
        [
            "nsenter", f"--net={home_namespace}", sys.executable, "-m", "lab.mirror",
            "serve", str(listening.fileno()), cache, voice,
        ],
    )  # fmt: skip


def _serve(descriptor: str, cache: str, voice: str) -> None:
    _Handler.cache, _Handler.voice = Path(cache), Path(voice)
    server = _Server(socket.socket(fileno=int(descriptor)))
    print("ready", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    {"listen": _listen, "serve": _serve}[sys.argv[1]](*sys.argv[2:])
