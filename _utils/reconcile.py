"""Bring a daemon to its configuration at no call's cost: the rule of the house, once for all.

On a node in service nothing above a reload happens; what needs a restart is refused with the plan,
and what does not is applied. A module describes its daemon as ``Daemon`` says and asks here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from salt.exceptions import CommandExecutionError

NOTHING: dict = {"disruption": "none", "why": [], "actions": [], "steps": []}
RESTART = {"do": "restart"}
UNKNOWN = "what runs is not known (files changed after the daemon started)"
SHOWN = 10

Tree = dict[str, bytes]


class Daemon(Protocol):
    """What is asked of a daemon. A plan is ``{"disruption", "why", "actions": [{"do", …}], …}``.

    ``util`` calls one of our utils, ``context`` is Salt's ``__context__``, ``owner`` holds owner
    and group of the tree, ``system_root`` stands before the paths of files outside of it.
    """

    name: str
    conf_dir: str
    state_dir: str
    system_root: str
    owner: dict[str, str]
    workspace: str
    context: dict
    util: Callable[..., Any]

    def life(self) -> tuple[str, float] | None:
        """Return what names this start of it and when that was (epoch), None if it is down."""

    def start_files(self) -> list[str]:
        """Return the files outside the tree that only a start reads, those that are there."""

    def problems(self, tree: Tree) -> list[str]:
        """Return why it would not run this tree."""

    def rehearse(self, path: str, tree: Tree) -> list[str]:
        """Return why it would not start with the tree that is staged at ``path``."""

    def classify(self, old: Tree, new: Tree) -> dict:
        """Return the plan that leads from one tree to another."""

    def safe_part(self, old: Tree, new: Tree) -> Tree | None:
        """Return ``old`` with what of ``new`` needs no restart, None if that cannot be told."""

    def act(self, plan: dict, run: dict) -> int:
        """Run a plan's actions; return how many counted reloads this life has seen since."""

    def verify(self, plan: dict, tree: Tree) -> None:
        """Ask it what it holds now; raise if that is not ``tree``."""

    def undo(self, plan: dict, tree: Tree, run: dict) -> None:
        """Tell it that the previous tree is back, as far as it listens."""

    def service(self, verb: str) -> None:
        """Have systemd start or restart it."""

    def units_changed(self) -> None:
        """Have systemd read its units again."""

    def await_start(self, before: str) -> None:
        """Wait for a life other than ``before`` that serves; raise naming what is missing."""

    def node(self) -> dict:
        """Return what ``voice.in_service`` says."""

    def kept_out(self) -> list[str]:
        """Return what keeps this node or its peers out of service, in words."""

    def strayed(self) -> list[str]:
        """Return what of that is not in force."""

    def keep_out(self) -> None:
        """Put it in force."""


def of(daemon: Daemon) -> Reconciler:
    """Return what brings this daemon to its configuration.

    An object, since a module's own functions lose their loader inside a call of a util.
    """
    return Reconciler(daemon)


class Reconciler:
    """Compares, exchanges, acts, verifies and remembers for one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def configure(self, rendered: dict, test: bool) -> dict:
        """Bring the files, and the daemon by a reload, to ``rendered``, as far as calls allow."""
        daemon = self._daemon
        util, conf_dir = daemon.util, daemon.conf_dir
        if not test:
            util("staged.discard", conf_dir)
        run = self.running()
        if not test:
            self.note(run)
        desired = rendered["tree"]
        files = util("staged.compare", conf_dir, desired)
        system = util("system_files.differing", daemon.system_root, rendered["system"])
        wrong = util("staged.wrong_attributes", conf_dir, **daemon.owner)
        plan = self.owed(run, desired, rendered["system"])
        touched = any(files.values()) or bool(system)
        if not touched and plan["disruption"] == "restart":
            plan = NOTHING  # the disk is right already; `running` restarts, or refuses to
        late = plan["disruption"] != "none"  # an action that an interrupted run still owes
        if not (touched or wrong or late):
            return answer(True, f"{conf_dir} is as it should be")
        problems = daemon.problems(desired) if any(files.values()) else []
        if problems:
            more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            told = "; ".join(problems[:SHOWN]) + more
            return answer(False, f"refused, nothing changed: {told}")
        changes = _changes(plan, files, system, wrong)
        told = self._refusal(plan)
        if told and test:
            return answer(None, f"a plain apply would refuse: {told}", changes)
        if told:
            return self._apply_safe_part(run, desired, told)
        comment = "owners and modes {}set right"
        if touched or late:
            done = ", ".join(changes["actions"]) or "no action needed"
            comment = f"configuration {{}}exchanged: {done}"
        if test:
            if plan["disruption"] == "restart":
                daemon.context[f"{daemon.name}.will_restart"] = plan["why"]
            return answer(None, comment.format("would be "), changes)
        if touched or late:
            self._write(desired, system, run, plan)
        left = util("staged.wrong_attributes", conf_dir, **daemon.owner)
        if left:
            util("staged.set_attributes", conf_dir, left, **daemon.owner)
        return answer(True, comment.format(""), changes)

    def ensure_running(self, test: bool) -> dict:
        """Start it if it is down, restart it if it must be and may be; keep out who is out."""
        daemon = self._daemon
        run = self.running()
        if not test:
            self.note(run)
        if run is None:
            why = [f"{daemon.name} is not running"]
            changes = {
                "daemon": {"old": "stopped", "new": "running"},
                "disruption": "none",
                "why": why,
                "actions": ["start", *daemon.kept_out()],
            }
            if test:
                return answer(None, f"{daemon.name} would be started", changes)
            self._bring_up("start", "")
            return answer(True, f"{daemon.name} started", changes)
        plan = self.owed(run, self._tree(), self._system_on_disk(run))
        pending = daemon.context.pop(f"{daemon.name}.will_restart", None) if test else None
        if plan["disruption"] == "restart" or pending:
            return self._restart(run, pending or plan["why"], test)
        strayed = daemon.strayed()
        if strayed:
            why = ["this node or a peer of it is drained"]
            changes = {"disruption": "none", "why": why, "actions": strayed}
            if test:
                return answer(None, f"{daemon.name} would be kept out of service again", changes)
            daemon.keep_out()
            return answer(True, f"{daemon.name} is kept out of service again", changes)
        return answer(True, f"{daemon.name} runs what is on disk")

    def running(self) -> dict | None:
        """Return what runs, ``{"files", "system", "reloads", "life"}``, None if it is down.

        ``files`` is None when that is not known: no record of this life, and the files changed
        since it began.
        """
        daemon = self._daemon
        found = daemon.life()
        if found is None:
            return None
        life, started = found
        run = {"files": None, "system": {}, "reloads": 0, "life": life, "recorded": False}
        record = daemon.util("running_record.read", self._record_path(), life)
        if record:
            return {**run, **record, "recorded": True}
        watched = [
            daemon.conf_dir,
            *(daemon.system_root + path for path in daemon.start_files()),
        ]
        if daemon.util("running_record.untouched_since", started, watched):
            run.update(files=self._tree(), system=self._system_digests())
        return run

    def owed(self, run: dict | None, tree: Tree, system: list[dict] | None = None) -> dict:
        """Return the plan that brings what runs to ``tree`` and the ``system`` entries."""
        daemon = self._daemon
        if run is None:
            return NOTHING
        if run["files"] is None:
            return {**NOTHING, "disruption": "restart", "why": [UNKNOWN], "actions": [RESTART]}
        plan = NOTHING if run["files"] == tree else daemon.classify(run["files"], tree)
        changed = [
            f"{entry['path']} changed"
            for entry in system or []
            if entry["disruption"] == "restart"
            and run["system"].get(entry["path"])
            != daemon.util("system_files.sha256", entry["content"])
        ]
        if not changed:
            return plan
        why = [*(plan["why"] if plan["disruption"] == "restart" else []), *changed]
        return {**plan, "disruption": "restart", "why": why, "actions": [RESTART]}

    def remember(self, life: str, tree: Tree, system: dict[str, str], reloads: int = 0) -> None:
        """Note what this very life has read; the next run compares the disk with it."""
        daemon = self._daemon
        content = daemon.util("running_record.encode", life, tree, system, reloads)
        Path(daemon.state_dir).mkdir(mode=0o750, parents=True, exist_ok=True)
        daemon.util("staged.write_file", self._record_path(), content, 0o600)

    def note(self, run: dict | None) -> None:
        """Write down what is known of a life nobody noted, before a file on disk changes."""
        if run and run["files"] is not None and not run["recorded"]:
            self.remember(run["life"], run["files"], run["system"], run["reloads"])

    def _refusal(self, plan: dict) -> str:
        """Return why a plan may not be carried out now, empty if it may."""
        daemon = self._daemon
        if plan["disruption"] != "restart":
            return ""
        node = daemon.node()
        if daemon.util("disruption.allowed", "restart", node):
            return ""
        return daemon.util("disruption.refusal", plan["why"], node, daemon.workspace)

    def _write(self, tree: Tree, system: list[dict], run: dict | None, plan: dict) -> None:
        """Exchange the tree, write the system files, act, verify; go back if any of it fails."""
        daemon = self._daemon
        util, conf_dir = daemon.util, daemon.conf_dir
        before = util("system_files.snapshot", daemon.system_root, system)
        swapped = any(util("staged.compare", conf_dir, tree).values())
        starts = run is None or plan["disruption"] == "restart"
        if swapped:
            staged = util("staged.stage", conf_dir, tree, **daemon.owner)
            problems = daemon.rehearse(staged, tree) if starts else []
            if problems:
                util("staged.discard", conf_dir)
                raise CommandExecutionError(f"refused, nothing changed: {'; '.join(problems)}")
            util("staged.swap", conf_dir, staged)
        try:
            self._put_system({entry["path"]: entry for entry in system})
            if starts:
                return
            reloads = daemon.act(plan, run)
            daemon.verify(plan, tree)
        except (CommandExecutionError, OSError, ValueError) as err:
            self._put_system(before)
            if swapped:
                util("staged.restore", conf_dir)
                daemon.undo(plan, tree, run)
            raise CommandExecutionError(f"{err}; the previous configuration is back") from None
        self.remember(run["life"], tree, run["system"], reloads)

    def _apply_safe_part(self, run: dict | None, desired: Tree, told: str) -> dict:
        """Apply the files whose change costs at most a reload, as if only they had changed."""
        daemon = self._daemon
        if run is None or run["files"] is None:
            return answer(False, told)
        mixed = daemon.safe_part(run["files"], desired)
        files = daemon.util("staged.compare", daemon.conf_dir, mixed) if mixed is not None else {}
        if not any(files.values()):
            return answer(False, told)
        part = daemon.classify(run["files"], mixed)
        if part["disruption"] == "restart" or daemon.problems(mixed):
            return answer(False, told)
        self._write(mixed, [], run, part)
        changes = _changes(part, files, [], [])
        done = ", ".join(changes["actions"]) or "what needs no action"
        return answer(False, f"{told}; applied meanwhile: {done}", changes)

    def _restart(self, run: dict, why: list[str], test: bool) -> dict:
        daemon = self._daemon
        told = self._refusal({"disruption": "restart", "why": why})
        changes = {
            "daemon": {"old": "running", "new": "restarted"},
            "disruption": "restart",
            "why": why,
            "actions": ["restart", *daemon.kept_out()],
        }
        if told and test:
            return answer(None, f"a plain apply would refuse: {told}", changes)
        if told:
            try:  # a refusal is no reason to send calls to who is drained
                daemon.keep_out()
            except CommandExecutionError as err:
                told = f"{told}; {err}"
            return answer(False, told)
        if test:
            return answer(None, f"{daemon.name} would be restarted", changes)
        self._bring_up("restart", run["life"])
        return answer(True, f"{daemon.name} restarted: {'; '.join(why)}", changes)

    def _bring_up(self, verb: str, before: str) -> None:
        """Start it, keep out of service what was out, and note what it read."""
        daemon = self._daemon
        daemon.service(verb)
        daemon.await_start(before)
        daemon.keep_out()
        found = daemon.life()
        if found is None:
            raise CommandExecutionError(f"{daemon.name} ended right after its start; see its log")
        self.remember(found[0], self._tree(), self._system_digests())

    def _tree(self) -> Tree:
        daemon = self._daemon
        found = daemon.util("staged.read", daemon.conf_dir)
        return {name: content or b"" for name, content in found.items()}

    def _system_digests(self) -> dict[str, str]:
        daemon = self._daemon
        return daemon.util("system_files.digests", daemon.system_root, daemon.start_files())

    def _system_on_disk(self, run: dict) -> list[dict]:
        """Return the start-time files as entries, so that an edit since the start shows."""
        daemon = self._daemon
        return [
            {
                "path": path,
                "content": daemon.util("system_files.read", daemon.system_root, path) or b"",
                "disruption": "restart",
            }
            for path in sorted({*daemon.start_files(), *run["system"]})
        ]

    def _put_system(self, entries: dict[str, dict | None]) -> None:
        """Make each file what its entry says, gone for None."""
        daemon = self._daemon
        for path, entry in entries.items():
            content, mode = (entry["content"], entry["mode"]) if entry else (None, 0)
            daemon.util("staged.put_file", daemon.system_root + path, content, mode)
        if any("/systemd/" in path for path in entries):
            daemon.units_changed()

    def _record_path(self) -> str:
        daemon = self._daemon
        return str(Path(daemon.state_dir) / f"{daemon.name}.running.json")


def answer(result: bool | None, comment: str, changes: dict | None = None) -> dict:
    """Return what a state returns, without its name."""
    return {"result": result, "comment": comment, "changes": changes or {}}


def in_words(action: dict) -> str:
    """Return an action as a person would type it: ``killgw external carrier``."""
    arguments = [value for key, value in action.items() if key != "do"]
    return " ".join(map(str, (action["do"], *arguments)))


def _changes(plan: dict, files: dict, system: list[dict], wrong: list) -> dict:
    changes = {
        "disruption": plan["disruption"],
        "why": plan["why"],
        "actions": [in_words(action) for action in plan["actions"]],
        "files": {kind: names for kind, names in files.items() if names},
    }
    if system:
        changes["files"]["system"] = sorted(entry["path"] for entry in system)
    if wrong:
        changes["attributes"] = wrong
    return changes
