"""A deployment as a pipeline: lock, journal, stacks, survey, rollout, last screen."""

import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardian import locks, release, runs
from guardian.config import Config, Workspace
from guardian.errors import (
    APPROVAL,
    CHANGES,
    FAILED,
    HALTED,
    INTERRUPTED,
    OK,
    GuardianError,
    UsageError,
)
from guardian.fleet.drive import Drive, replay
from guardian.fleet.master import Jids, Master
from guardian.fleet.rollout import Rollout
from guardian.fleet.survey import survey
from guardian.fleet.track import HELD, Node, Note
from guardian.journal import Journal
from guardian.stacks.apply import Stacks, shown
from guardian.ui import summary
from guardian.ui.progress import Progress


@dataclass
class Pipeline:
    """What every step of a run needs. `only` is stacks, fleet or both (None).

    `force` is the workspace's name, typed: calls left at a drain's deadline are then ended.
    `roles` limits the fleet to nodes of these roles; `at` is a revision to deploy instead of the
    checkout; `outside_window` is why this run may go on outside of the workspace's window.
    """

    config: Config
    workspace: Workspace
    ui: Progress
    only: str | None = None
    roles: tuple[str, ...] = ()
    at: str = ""
    force: str = ""
    outside_window: str = ""
    yes: bool = False
    interactive: bool = False
    interrupted: str = ""
    done: dict[str, str] = field(default_factory=dict)
    _stacks: Stacks | None = None
    _lease: locks.Lease | None = None
    _release: release.Release | None = None

    # plan

    def plan(self) -> int:
        """Show what a deploy would do; nothing is changed and nothing is recorded."""
        if why := self._closed() or self._no_drain():
            self.ui.say(f"now a deploy would wait: {why}")
        work = self.workspace.runs / f".plan-{time.time_ns()}"
        changes, note, nodes = False, "", None
        counts: dict[str, str] = {}
        try:
            if self.only != "fleet":
                changes, note = self._plan_stacks(work, counts)
            if self.only != "stacks":
                with self._master() as (master, jids):
                    nodes = self._survey(master, jids)
                changes = changes or any(node.work for node in nodes)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.ui.result(
            "plan",
            summary.plan(
                self.workspace.name,
                counts,
                nodes,
                note if nodes is not None else "",
                self.workspace.rollout.proxies,
            ),
            workspace=self.workspace.name,
            stacks=counts,
            nodes=[vars(node) for node in nodes or []],
        )
        return CHANGES if changes else OK

    def _plan_stacks(self, work: Path, counts: dict[str, str]) -> tuple[bool, str]:
        stacks = self._new_stacks(work)
        changes = False
        for level in stacks.levels():
            unknown = stacks.unknown(level)
            counts.update(dict.fromkeys(unknown, "unknown until what it reads from exists"))
            planned = stacks.plan([name for name in level if name not in unknown])
            counts.update({name: str(found) for name, (_, found) in planned.items()})
            changes = changes or bool(unknown) or any(found for _, found in planned.values())
        note = "nodes are shown as pillar is now; outputs of changed stacks come on top"
        return changes, note if changes else ""

    # deploy and resume

    def deploy(self) -> int:
        """A new run from the start."""
        if self.force and self.force != self.workspace.name:
            raise UsageError(
                f"--force {self.force[:40]!r} ends calls: it takes the name of the workspace, "
                f"{self.workspace.name}"
            )
        self._pin()
        self._window_open()
        with locks.held(self.workspace, "deploy") as lease, self._signals():
            self._lease = lease
            self._nothing_owed()
            path = runs.create(self.workspace.runs)
            journal = Journal(path / "journal.jsonl", path.name, time.time)
            journal.add(
                "run",
                workspace=self.workspace.name,
                only=self.only,
                roles=list(self.roles),
                at=self.at,
                force=bool(self.force),
                outside_window=self.outside_window,
                by=locks.who(),
                fence=lease.fence,
                commit=self._commit(),
                python=platform.python_version(),
            )
            return self._guarded(path, journal, self._all)

    def resume(self) -> int:
        """Go on with the last run from its last line."""
        with locks.held(self.workspace, "resume") as lease, self._signals():
            self._lease = lease
            run = runs.latest(self.workspace.runs)
            if run is None or run.finished:
                self.ui.result("end", [f"nothing to resume in {self.workspace.name}"], code=OK)
                return OK
            (run.path / "stop").unlink(missing_ok=True)
            begun = run.first("run") or {}
            self.only, self.roles = begun.get("only"), tuple(begun.get("roles") or ())
            self.at = str(begun.get("at") or "")
            rolling = run.first("fleet") is not None
            if not rolling:
                self._window_open()
            # What is owed is put back at any hour; the window halts the rest.
            journal = Journal(run.journal, run.name, time.time)
            why = self.outside_window
            journal.add("resume", by=locks.who(), fence=lease.fence, outside_window=why)
            return self._guarded(run.path, journal, self._go_on if rolling else self._all)

    def _guarded(self, path: Path, journal: Journal, work: "_Work") -> int:
        """Run it, record how it ended, and show the last screen whatever happened."""
        begun, rollout, why = time.monotonic(), [Rollout("", [], self.workspace.rollout)], ""
        try:
            code = work(path, journal, rollout)
            why = rollout[0].halted
            if code == HALTED and not why:
                held = [one for one in rollout[0].tracks.values() if one.step == HELD]
                why = f"{len(held)} held: {held[0].node.minion}: {held[0].detail}" if held else ""
        except GuardianError as error:
            begun_rolling = bool(rollout[0].tracks)
            code = HALTED if begun_rolling and error.code == FAILED else error.code
            why = str(error)
            for problem in getattr(error, "problems", [])[1:]:
                self.ui.say(problem)
        seconds = time.monotonic() - begun
        noted = why if code != APPROVAL or rollout[0].tracks else "not approved"
        try:
            journal.add("end", code=code, why=noted, seconds=round(seconds, 1))
        except GuardianError as error:
            # Without it the run counts as killed, which a resume mends; the last screen must come.
            self.ui.say(f"how it ended is not in the journal: {error}")
        journal.close()
        facts = {"code": code, "why": why, "seconds": seconds, "stacks": self.done}
        if code == HALTED and (back := self._way_back(path)):
            facts["back"] = back
        self.ui.result(
            "end",
            summary.end(self.workspace.name, path.name, rollout[0], facts),
            workspace=self.workspace.name,
            run=path.name,
            **{**facts, "seconds": round(seconds, 1)},
            **summary.numbers(rollout[0]),
        )
        if code != INTERRUPTED:
            shutil.rmtree(path / "work", ignore_errors=True) if not _kept(path) else None
        return code

    def _all(self, path: Path, journal: Journal, rollout: list[Rollout]) -> int:
        self._pack(path)
        if self.only != "fleet":
            self._apply_stacks(path, journal)
        if self.only == "stacks":
            return OK
        with self._master() as (master, jids):
            self._serve(master)
            nodes = self._survey(master, jids)
            if self.interrupted:
                raise GuardianError(self.interrupted, INTERRUPTED)
            work = [node for node in nodes if node.work]
            if work:
                shown_nodes = summary.plan(
                    self.workspace.name, {}, nodes, proxies=self.workspace.rollout.proxies
                )
                self.ui.result("fleet", shown_nodes, nodes=[vars(node) for node in nodes])
                self._approve(f"Roll {len(work)} of {len(nodes)} nodes?")
            drive = Drive(master, journal, jids, time.time, self._show)
            settings = self.workspace.rollout
            drive.begin(nodes, replace(settings, on_deadline="force") if self.force else settings)
            rollout[0] = drive.rollout
            return self._code(drive.run(lambda: self._stop(path), self._no_drain))

    def _survey(self, master: Master, jids: Jids) -> list[Node]:
        return survey(
            master,
            jids,
            self.workspace.name,
            self.ui.say,
            roles=self.roles,
            apply_cap=self.workspace.rollout.apply_deadline,
        )

    def _go_on(self, path: Path, journal: Journal, rollout: list[Rollout]) -> int:
        self._pack(path)
        with self._master() as (master, jids):
            self._serve(master)
            drive = Drive(master, journal, jids, time.time, self._show)
            drive.resume()
            rollout[0] = drive.rollout
            return self._code(drive.run(lambda: self._stop(path), self._no_drain))

    def _apply_stacks(self, path: Path, journal: Journal) -> None:
        stacks = self._new_stacks(path / "work")
        for level in stacks.levels():
            planned = stacks.plan(level)
            journal.add("plan", stacks=shown(planned))
            changed = {name: counts for name, (_, counts) in planned.items() if counts}
            if changed:
                what = "; ".join(f"{name}: {counts}" for name, counts in changed.items())
                self._approve(f"Apply {what}?")
            journal.add("apply", stacks=sorted(changed))
            moved = stacks.apply(planned)
            journal.add(
                "applied",
                stacks=sorted(planned),
                outputs_moved=[one for one in moved if moved[one]],
            )
            for name, (root, counts) in planned.items():
                self.done[name] = str(counts)
                root.discard()
            if self.interrupted:
                raise GuardianError(self.interrupted, INTERRUPTED)
            if self._lease is not None:
                self._lease.check()

    # the commit

    def _pin(self) -> None:
        """Fix the commit that this run is of: a resume is of the same, whatever is checked out."""
        master, root = self.workspace.master, self.config.root
        if self.at and not master.releases:
            raise UsageError(
                f"{self.workspace.name}: its master serves one tree and no other commit; "
                "set master.releases in guardian.yaml, docs/masters.md says how"
            )
        if self.at:
            self.at = release.resolve(root, self.at)
        elif master.releases and not master.live:
            if changed := release.changed(root):
                raise GuardianError(
                    f"{changed[0]} is not committed, so the master would serve another one than "
                    "the stacks are of; commit it, or put it back"
                )
            self.at = release.head(root)

    def _pack(self, path: Path) -> None:
        """Make ready what the master is to serve, and the stacks of the same commit."""
        if not self.at:
            return
        place = path / "work" / ".release"
        shutil.rmtree(place, ignore_errors=True)
        self._release = release.export(self.config.root, self.at, place)
        if self.only != "fleet":
            self.config = release.stacks_of(self.config, self._release.tree)

    def _serve(self, master: Master) -> None:
        """Have the master serve what is deployed; without `releases` it always does."""
        if self._release is not None:
            self.ui.say(f"the master takes commit {self._release.commit[:12]}")
            master.release(self._release.commit, self._release.archive)
        elif self.workspace.master.releases:
            master.release("", None)

    def _way_back(self, path: Path) -> str:
        """The commit of the last good run before this one, if a deploy can go back to it."""
        if not self.workspace.master.releases:
            return ""
        # A hint: an old journal that is damaged must not cost the screen it would stand on.
        with suppress(GuardianError):
            for run in runs.newest_first(self.workspace.runs):
                commit = str((run.first("run") or {}).get("commit", ""))
                good = run.end is not None and run.end["code"] == OK
                if run.path != path and good and commit not in ("", "unknown", self._commit()):
                    return commit
        return ""

    # small parts

    def _new_stacks(self, work: Path) -> Stacks:
        self._stacks = Stacks(self.config, self.workspace, work, self._commit(), self.ui.stack)
        return self._stacks

    def _approve(self, question: str) -> None:
        if self.yes:
            return
        if not self.interactive:
            raise GuardianError(f"{question} Say --yes, or run it on a terminal", APPROVAL)
        if not self.ui.ask(question):
            raise GuardianError("not approved; nothing more was changed", APPROVAL)

    @contextmanager
    def _master(self) -> Iterator[tuple[Master, Jids]]:
        jids, place = Jids(time.time), self.workspace.master
        with Master(place.agent(), jids, releases=place.releases, tree=place.tree) as master:
            yield master, jids

    def _show(self, note: Note, rollout: Rollout) -> None:
        if note.minion:
            self.ui.node(note.minion, note.step, note.detail)
        else:
            self.ui.say(f"{note.step}: {note.detail}")

    def _stop(self, path: Path) -> str | None:
        return self.interrupted or runs.stop_requested(path) or self._lost() or self._closed()

    def _lost(self) -> str:
        """Why the lock may be another's by now."""
        try:
            if self._lease is not None:
                self._lease.check()
        except GuardianError as error:
            return str(error)
        return ""

    def _closed(self) -> str:
        """Why the change window keeps anything new from being started, if it does."""
        window, now = self.workspace.window, time.time()
        if window is None or self.outside_window or window.contains(now):
            return ""
        return f"the change window ({window}) is closed until {window.opens(now)}"

    def _window_open(self) -> None:
        if why := self._closed():
            raise GuardianError(
                f"{self.workspace.name}: {why}; nothing was started, "
                "--outside-window REASON goes on all the same",
                APPROVAL,
            )

    def _no_drain(self) -> str:
        """Why no node may be taken out of service now; a run outside the window says why it may."""
        peak = self.workspace.peak
        if peak is None or self.outside_window or not peak.contains(time.time()):
            return ""
        return f"calls peak ({peak})"

    def _code(self, rollout: Rollout) -> int:
        if rollout.halted:
            return INTERRUPTED if rollout.halted == self.interrupted else HALTED
        return HALTED if any(one.step == HELD for one in rollout.tracks.values()) else OK

    def _nothing_owed(self) -> None:
        """A new run must not bury what an unfinished one owes."""
        run = runs.latest(self.workspace.runs)
        if run is None or run.finished or run.first("fleet") is None:
            return
        rollout, _ = replay(run.name, run.entries)
        owing = sorted(one.node.minion for one in rollout.tracks.values() if summary.owed(one))
        if owing:
            raise GuardianError(
                f"run {run.name} is not finished and left {', '.join(owing)} out of service; "
                f"`guardian resume {self.workspace.name}` puts back and goes on",
                HALTED,
            )

    def _commit(self) -> str:
        return self.at or release.head(self.config.root)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """First signal: stop starting, end what runs. Second: leave; resume goes on from there."""

        def on_signal(number: int, _: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = f"interrupted ({signal.Signals(number).name})"
            if self._stacks is not None:
                self._stacks.interrupt()

        with ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                stack.callback(signal.signal, number, signal.signal(number, on_signal))
            yield


_Work = Callable[[Path, Journal, list[Rollout]], int]


def _kept(path: Path) -> bool:
    """A state that could not be written lies in the run's directory and must stay."""
    return any(path.glob("work/*/errored.tfstate"))


def describe(workspace: Workspace) -> tuple[list[str], dict[str, Any]]:
    """The last run of a workspace from its journal: lines, and the same as data."""
    run = runs.latest(workspace.runs)
    holder = locks.holder(workspace)
    if run is None:
        return [f"{workspace.name}: never deployed from here"], {"run": None, "locked_by": holder}
    rollout = replay(run.name, run.entries)[0] if run.first("fleet") else None
    end = run.end
    if end is not None:
        seconds = float(end["seconds"])
        facts = {"code": end["code"], "why": end["why"], "seconds": seconds}
        lines = summary.end(workspace.name, run.name, rollout, facts)[1:]
    else:
        code = OK if holder else INTERRUPTED
        seconds = run.entries[-1]["ts"] - run.entries[0]["ts"]
        lines = summary.end(workspace.name, run.name, rollout, {"code": code, "seconds": seconds})[
            1:
        ]
        doing = f"running, held by {holder}" if holder else "killed; nobody holds the lock"
        lines[0] = f"deploy {workspace.name}: {doing}   (run {run.name})"
    if holder and end is not None:
        lines.append(f"  locked by {holder}")
    data = {
        "run": run.name,
        "locked_by": holder,
        "code": end["code"] if end else None,
        **summary.numbers(rollout),
    }
    return lines, data
