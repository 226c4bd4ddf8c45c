"""The order of stacks: levels, each one after those it reads from."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from guardian.config import Stack
from guardian.errors import UsageError


def levels(stacks: dict[str, Stack], chosen: Iterable[str]) -> list[list[str]]:
    """The chosen stacks by level, names sorted; dependencies outside the choice do not count.

    UsageError on a cycle, naming it.
    """
    names = set(chosen)
    try:
        TopologicalSorter({name: stack.after for name, stack in stacks.items()}).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise UsageError(f"guardian.yaml: stacks in a circle: {circle}") from None
    sorter = TopologicalSorter({name: names & _all_before(stacks, name) for name in names})
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found


def _all_before(stacks: dict[str, Stack], name: str) -> set[str]:
    # Through stacks that were not chosen, too: a -> b -> c keeps a before c without b.
    seen: set[str] = set()
    todo = list(stacks[name].after)
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo.extend(stacks[current].after)
    return seen
