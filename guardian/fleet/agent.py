"""The agent: runs on a region's master beside Salt, is asked and answers in JSON lines on stdio.

The only file that imports Salt. It publishes to lists of minions under the job id it is given
(publishing an id twice runs it once), streams the returns of those jobs from the event bus, and
looks them up in the job cache, which is the truth when the bus was missed. It never targets by
glob, never batches, and decides nothing.

Requests: {"id", "op": "minions" | "fleet" | "facts" | "publish" | "lookup" | "renew" | "upload" |
          "release", ...}
Answers:  {"id", "ok": true, "result"} or {"id", "ok": false, "error"}
Events:   {"event": "ready"} once, {"event": "return", "jid", "minion", "value", "retcode"}
"""

import argparse
import contextlib
import getpass
import json
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import salt.client
import salt.config
import salt.exceptions
import salt.fileserver
import salt.key
import salt.loader
import salt.utils.args
import salt.utils.event
import salt.utils.verify
import salt.version

from guardian import membership
from guardian import workspace as naming
from guardian.fleet import releases, renewal

_COMMENT = 500
_DETAIL = 20


class Agent:
    """One master's jobs over a pair of text streams."""

    def __init__(self, opts: dict[str, Any], source: TextIO, sink: TextIO) -> None:
        self._opts, self._source, self._sink = opts, source, sink
        self._writing = threading.Lock()
        self._jids: set[str] = set()
        self._client: Any = None
        self._cache = salt.loader.returners(opts, {})
        self._listening = threading.Event()

    def serve(self) -> None:
        """Answer until the controller closes the stream."""
        threading.Thread(target=self._follow, daemon=True).start()
        self._listening.wait(10)
        self._write({"event": "ready", "version": 1, "salt": salt.version.__version__})
        operations: dict[str, Callable[..., Any]] = {
            "minions": self.minions,
            "fleet": self.fleet,
            "facts": self.facts,
            "publish": self.publish,
            "lookup": self.lookup,
            "renew": self.renew,
            "upload": releases.upload,
            "release": self.release,
        }
        for line in self._source:
            try:
                request = json.loads(line)
                number, operation = request.pop("id"), operations[request.pop("op")]
            except (ValueError, KeyError, TypeError, AttributeError):
                self._write({"id": None, "ok": False, "error": "not a request"})
                continue
            try:
                self._write({"id": number, "ok": True, "result": operation(**request)})
            except Exception as error:
                # Salt raises dozens of types here; the controller needs the reason, not the type.
                why = str(error) or type(error).__name__
                self._write({"id": number, "ok": False, "error": " ".join(why.split())[:400]})

    def minions(self) -> dict[str, list[str]]:
        """Minion ids by the state of their key."""
        if not os.access(os.path.join(self._opts["pki_dir"], "minions"), os.R_OK | os.X_OK):  # noqa: PTH118 - Salt's strings
            raise PermissionError("the minions' keys are not this user's to list")
        with salt.key.get_key(self._opts) as keys:
            found = keys.list_keys()
        return {
            "accepted": sorted(found.get("minions", [])),
            "pending": sorted(found.get("minions_pre", [])),
            "denied": sorted(found.get("minions_denied", [])),
        }

    def fleet(self, workspace: str) -> dict[str, dict[str, str]]:
        """Who the fleet names, and who else has an accepted key: role, zone, pair, state of key.

        The state is "unknown" for a user who may not list keys: then what `publish` says it reached
        is all there is to know.
        """
        try:
            states = {one: state for state, ids in self.minions().items() for one in ids}
            without = "missing"
        except PermissionError:
            states, without = {}, "unknown"
        found = {
            f"{host}.{workspace}": {
                **{name: str(entry.get(name) or "") for name in ("role", "zone", "pair")},
                "key": states.get(f"{host}.{workspace}", without),
            }
            for host, entry in membership.of_master(workspace, self._opts).items()
        }
        for minion, state in states.items():
            if minion not in found and state == "accepted" and naming.belongs(minion, workspace):
                found[minion] = {"role": "", "zone": "", "pair": "", "key": state}
        return found

    def facts(self, releases_root: str = "") -> dict[str, Any]:
        """What a deploy leans on here: versions, clock, room, which tree is served."""
        return {
            "salt": salt.version.__version__,
            "python": platform.python_version(),
            "time": time.time(),
            "user": getpass.getuser(),
            "cache_free": shutil.disk_usage(self._opts["cachedir"]).free,
            "roots": self._roots(),
            "release": releases.current(releases_root) if releases_root else "",
        }

    def release(self, root: str, commit: str, digest: str, tree: str) -> str:
        """Have the master serve an uploaded commit, or the live tree when `commit` is empty."""
        releases.served(root, self._roots())
        if commit:
            releases.unpack(root, commit, digest)
        served = releases.select(root, commit or tree)
        # A file of the same size and time in two commits would be taken for the same.
        files = salt.fileserver.Fileserver(self._opts)
        files.clear_cache()
        files.clear_file_list_cache({})
        return served

    def _roots(self) -> list[str]:
        kinds = ("file_roots", "pillar_roots")
        return [one for kind in kinds for one in self._opts[kind]["base"]]

    def publish(
        self, jid: str, targets: list[str], fun: str, args: list[Any], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Publish to exactly these minions; the job runs under `jid`."""
        self._jids.add(jid)
        arguments = salt.utils.args.condition_input(args, kwargs)
        published = None
        for renew in (self._client is None, True):
            # A master that started meanwhile has a new key, which its client reads only once.
            if renew:
                self._client = salt.client.LocalClient(mopts=self._opts, auto_reconnect=True)
            try:
                published = self._client.pub(targets, fun, arguments, "list", "", jid, timeout=15)
                break
            except salt.exceptions.AuthenticationError as error:
                refused = error
        else:
            raise refused
        if not published:
            raise ValueError("the master published to nobody: no such minion")
        return {"jid": published["jid"], "minions": published["minions"]}

    def lookup(self, jid: str, minions: list[str] | None = None) -> dict[str, Any]:
        """Returns of a job that reached the master's job cache, by minion; only of these."""
        self._jids.add(jid)
        cache = self._opts["master_job_cache"]
        found = self._cache[f"{cache}.get_jid"](jid)
        wanted = found.keys() if minions is None else found.keys() & minions
        return {
            minion: {"value": trim(entry.get("return")), "retcode": entry.get("retcode", 0)}
            for minion, entry in found.items()
            if minion in wanted
        }

    def renew(self, workspace: str) -> None:
        """Have the master ask AWS anew for what it gives the workspace's minions."""
        renewal.renew(self._opts, workspace)

    def _follow(self) -> None:
        bus = salt.utils.event.get_event(
            "master", sock_dir=self._opts["sock_dir"], opts=self._opts, listen=True
        )
        bus.connect_pub(timeout=10)
        self._listening.set()
        while True:
            event = bus.get_event(wait=5, tag="salt/job/", full=True, auto_reconnect=True)
            if not event:
                continue
            parts = event["tag"].split("/")
            # A tag is whatever its sender wrote: only our own jobs, and the payload must agree.
            if len(parts) < 5 or parts[3] != "ret" or parts[2] not in self._jids:
                continue
            data = event["data"]
            if data.get("jid") != parts[2] or data.get("id") != parts[4]:
                continue
            self._write(
                {
                    "event": "return",
                    "jid": data["jid"],
                    "minion": data["id"],
                    "value": trim(data.get("return")),
                    "retcode": data.get("retcode", 0),
                }
            )

    def _write(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, default=str, separators=(",", ":"))
        with self._writing:
            self._sink.write(line + "\n")
            self._sink.flush()


def trim(value: Any) -> Any:
    """A return as it travels: of a state run only what is judged, other values as they are.

    A diff of a file may hold a secret, so of changes only their keys and the disruption travel.
    """
    if isinstance(value, dict) and "jid" in value and "return" in value:
        return {"return": trim(value["return"]), "retcode": value.get("retcode", 0)}
    if isinstance(value, dict) and set(value) == {"run", "service"}:
        return {**value, "run": trim(value["run"])}
    if not isinstance(value, dict) or not value or not all("_|-" in key for key in value):
        return value
    return {
        key: {
            "result": entry.get("result"),
            "comment": _text(entry.get("comment")),
            "changes": _changes(entry.get("changes")),
        }
        for key, entry in value.items()
        if isinstance(entry, dict)
    }


def _changes(changes: Any) -> dict[str, Any]:
    if not isinstance(changes, dict):
        return {"changed": True} if changes else {}
    kept: dict[str, Any] = dict.fromkeys(list(changes)[:_DETAIL], True)
    for key in ("disruption", "why", "actions"):
        if key in changes:
            kept[key] = changes[key]
    return kept


def _text(comment: Any) -> str:
    if isinstance(comment, list):
        comment = "; ".join(str(part) for part in comment)
    return " ".join(str(comment).split())[:_COMMENT]


def main() -> int:
    """Serve on stdio; 1 and one line on stderr when this host has no master."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="/etc/salt/master")
    path = parser.parse_args().config
    if not os.path.isfile(path):  # noqa: PTH113 - Salt wants the string
        print(f"agent: {path}: no such file; is this a salt-master?", file=sys.stderr)
        return 1
    # Salt, its modules and warnings may print: stdout belongs to the protocol alone.
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        opts = salt.config.client_config(path)
        salt.utils.verify.check_user(opts["user"])  # root becomes who the master runs as
        agent = Agent(opts, sys.stdin, sink)
    except Exception as error:
        print(f"agent: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 1
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        agent.serve()
    # Salt's sockets and loops would wait for one another at interpreter exit.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
