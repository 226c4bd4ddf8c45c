"""The stacks of a workspace, level by level: plan, show, apply that plan, publish the outputs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardian.config import Config, Workspace
from guardian.errors import INTERRUPTED, GuardianError
from guardian.stacks import graph, outputs
from guardian.stacks.plans import Counts, digest
from guardian.stacks.terraform import Root

Say = Callable[[str, str, str], None]


@dataclass
class Stacks:
    """The stacks of one run. `commit` is what plans are bound to, `say` gets transitions."""

    config: Config
    workspace: Workspace
    work: Path
    commit: str
    say: Say
    _running: list[Root] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def __post_init__(self) -> None:
        # Before anything is applied: outputs that cannot be published later help nobody.
        self._place = outputs.place(self.workspace)

    def levels(self) -> list[list[str]]:
        return graph.levels(self.config.stacks, self.workspace.stacks)

    def plan(self, level: list[str]) -> dict[str, tuple[Root, Counts]]:
        """Plan every stack of a level, several at once."""
        return self._each(level, self._plan)

    def apply(self, planned: dict[str, tuple[Root, Counts]]) -> dict[str, bool]:
        """Apply those plans and publish outputs; by stack, whether its outputs moved.

        A stack that fails does not stop its siblings; the first failure is raised after them.
        """
        return self._each(list(planned), lambda name: self._apply(*planned[name]))

    def unknown(self, level: list[str]) -> list[str]:
        """Stacks of a level that cannot be planned before another one exists."""
        return [
            name
            for name in level
            if any(self._place.read(one) is None for one in self._before(name))
        ]

    def interrupt(self) -> None:
        """Start nothing more and send each terraform its one SIGINT."""
        self._stopped = True
        for root in list(self._running):
            root.interrupt()

    def _before(self, name: str) -> list[str]:
        return [one for one in self.config.stacks[name].after if one in self.workspace.stacks]

    def _plan(self, name: str) -> tuple[Root, Counts]:
        stack, space = self.config.stacks[name], self.workspace
        upstream: dict[str, Any] = {}
        for one in self._before(name):
            published = self._place.read(one) or {}
            upstream |= {output: found.value for output, found in published.items()}
        root = Root(name, stack.path, self.work / name, space.name, space.state / name, self.commit)
        root.on_event = self._event
        self.say(name, "init", "")
        with self._tracked(root):
            root.prepare(upstream)
            self.say(name, "plan", "")
            counts = root.plan()
        self.say(name, "planned", str(counts))
        return root, counts

    def _apply(self, root: Root, counts: Counts) -> bool:
        with self._tracked(root):
            if counts:
                self.say(root.stack, "apply", str(counts))
                counts = replace(root.apply(), outputs=counts.outputs)
            values = root.outputs()
        moved = self._place.publish(root.stack, values)
        self.say(root.stack, "applied" if counts else "unchanged", str(counts))
        return moved

    def _event(self, stack: str, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in ("apply_start", "apply_progress", "apply_complete"):
            hook = event.get("hook") or {}
            address = (hook.get("resource") or {}).get("addr", "")
            passed = hook.get("elapsed_seconds", 0)
            self.say(stack, "apply", f"{address} {kind.removeprefix('apply_')} {passed} s")
        elif kind == "retry":
            self.say(stack, "retry", f"in {event['after']:g} s: {event['why']}"[:200])

    def _tracked(self, root: Root) -> "_Tracked":
        if self._stopped:
            raise GuardianError("interrupted; nothing more was applied", INTERRUPTED)
        return _Tracked(self._running, root, self._guard)

    def _each(self, names: list[str], work: Callable[[str], Any]) -> dict[str, Any]:
        # A provider takes half a gigabyte and a core; four roots at once suit small machines.
        with ThreadPoolExecutor(max_workers=4) as pool:
            futures = {name: pool.submit(work, name) for name in names}
            failed = [error for one in futures.values() if (error := one.exception())]
            if failed and self._stopped:
                raise GuardianError(f"interrupted: {failed[0]}", INTERRUPTED)
            if failed:
                raise failed[0]
            return {name: one.result() for name, one in futures.items()}


@dataclass
class _Tracked:
    roots: list[Root]
    root: Root
    guard: threading.Lock

    def __enter__(self) -> None:
        with self.guard:
            self.roots.append(self.root)

    def __exit__(self, *_: object) -> None:
        with self.guard:
            self.roots.remove(self.root)


def shown(planned: dict[str, tuple[Root, Counts]]) -> dict[str, dict[str, str]]:
    """For the journal: what was shown and the digest of the plan that says so."""
    return {
        name: {"counts": str(counts), "plan": digest(root.plan_file)}
        for name, (root, counts) in planned.items()
    }
