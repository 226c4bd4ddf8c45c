"""What returns mean: state runs by their results, never by a return code; voice.* by its answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from guardian.fleet.master import Outcome

_NUMBERS = ("voice.load", "voice.capacity")
_ORDER = ("none", "reload", "restart")


@dataclass(frozen=True)
class Reading:
    """A return, judged: `known` false is UNKNOWN; `data` is short and fit for the journal."""

    known: bool
    ok: bool
    data: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What a state run would do to a node, or did: its worst class and how many states change."""

    disruption: str
    changes: int
    why: tuple[str, ...]
    problem: str = ""
    busy: bool = False


def worst(classes: Iterable[str]) -> str:
    """The worst of some disruption classes; one that is not known counts as restart."""
    ranks = [_ORDER.index(one) if one in _ORDER else 2 for one in classes]
    return _ORDER[max(ranks, default=0)]


def change(value: Any) -> Change:
    """A state run's return, with or without test=True."""
    if not isinstance(value, dict):
        text = _text(value)
        # A list is Salt's refusal: the pillar or the SLS did not compile, or a run is under way.
        busy = "is running as PID" in text or "running with PID" in text
        return Change("none", 0, (), "" if busy else text or "nothing was returned", busy)
    classes: list[str] = []
    why: list[str] = []
    problem, changes = "", 0
    for key, entry in value.items():
        if "_|-" not in str(key) or not isinstance(entry, dict):
            return Change("none", 0, (), f"not a state run: {_text(value)}")
        if entry.get("result") is False:
            name = str(key).split("_|-")[1]
            problem = problem or f"state {name!r}: {_text(entry.get('comment'))}"
        found = entry.get("changes")
        if entry.get("result") is None or found:
            changes += 1
        if isinstance(found, dict) and "disruption" in found:
            classes.append(str(found["disruption"]))
            reasons = found.get("why") or []
            why += [_text(one) for one in ([reasons] if isinstance(reasons, str) else reasons)]
    return Change(worst(classes), changes, tuple(dict.fromkeys(why)), problem)


def read(fun: str, outcome: Outcome) -> Reading:
    """Judge one outcome of a function that a rollout calls."""
    value = outcome.value
    if not outcome.known:
        return Reading(False, False, {"why": _text(value)})
    if fun == "state.apply":
        found = change(value)
        if found.busy:
            return Reading(True, True, {"busy": True})
        if found.problem:
            return Reading(True, False, {"why": found.problem})
        return Reading(True, True, {"changes": found.changes, "disruption": found.disruption})
    # Salt gives a function that says result: False a return code, too.
    if not isinstance(value, dict) or (outcome.retcode and "result" not in value):
        return Reading(True, False, {"why": f"{fun}: {_text(value) or 'no answer'}"})
    if fun == "voice.drain":
        calls = value.get("calls")
        return Reading(True, True, {"drained": value.get("drained") is True, "calls": calls})
    if fun in _NUMBERS:
        return _numbers(fun, value)
    if fun == "voice.measures":
        return _measures(value)
    if fun == "voice.end_calls":
        return Reading(True, value.get("result") is True, {"ended": value.get("ended") or 0})
    if value.get("result") is True:
        return Reading(True, True, {})
    failed = [
        f"{check.get('name')}: {_text(check.get('detail'))}"
        for check in value.get("checks") or []
        if isinstance(check, dict) and not check.get("ok")
    ]
    return Reading(True, False, {"why": "; ".join(failed)[:300] or f"{fun}: {_text(value)}"})


def _numbers(fun: str, value: dict[str, Any]) -> Reading:
    """Calls and registrations; None is no limit of a capacity, and no answer of anything else."""
    optional = fun == "voice.capacity"
    found: dict[str, Any] = {}
    for key in ("calls", "registrations"):
        number = value.get(key, None if optional and "calls" in value else 0)
        if not (_whole(number) or (optional and number is None)) or "calls" not in value:
            return Reading(True, False, {"why": f"{fun}: did not say how many {key}"})
        found[key] = number
    return Reading(True, True, found)


def _measures(value: dict[str, Any]) -> Reading:
    """Counters since a daemon's start, for the judge."""
    numbers = {key: value.get(key) for key in ("attempts", "failed", "registrations")}
    down = value.get("gateways_down")
    if not all(map(_whole, numbers.values())) or not isinstance(down, list) or "since" not in value:
        return Reading(True, False, {"why": "voice.measures: counters are missing"})
    found = {"since": str(value["since"]), "gateways_down": sorted(map(str, down))}
    return Reading(True, True, {**numbers, **found})


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "; ".join(str(part) for part in value)
    return " ".join(str("" if value is None else value).removeprefix("ERROR: ").split())[:400]
