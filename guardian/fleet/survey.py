"""Who exists, and what a deploy would do to each: asked of the master, changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guardian import workspace as naming
from guardian.errors import GuardianError
from guardian.fleet.checks import Change, change
from guardian.fleet.master import Jids, Job, Link, Outcome, gathered
from guardian.fleet.track import Node

# Marks a drain as one of ours, so that a later run knows it owes putting the node back.
OWNER = "guardian "
FUNCTION = "survey.node"


class RefusedError(GuardianError):
    """The fleet is not fit to be deployed to; one line a node in `problems`."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}; nothing was changed")
        self.problems = problems


def survey(
    link: Link,
    jids: Jids,
    workspace: str,
    say: Callable[[str], None],
    *,
    roles: Sequence[str] = (),
    apply_cap: float = 600,
) -> list[Node]:
    """Every node that the fleet names, classified by a test run: one job, if all have our modules.

    RefusedError when one has no accepted key, is silent, or its states or pillar do not compile.
    Nodes of other than the chosen `roles` are left out, and refuse nothing.
    """
    link.renew(workspace)
    members = link.fleet(workspace)
    chosen = {one for one, fact in members.items() if not roles or _role(one, fact) in roles}
    if not chosen:
        what = f" with role {', '.join(roles)}" if roles else ""
        raise GuardianError(f"pillar's fleet has no node of {workspace}{what}; is it the master?")
    _refuse(_without_key(members, chosen))
    found = sorted(one for one, fact in members.items() if fact["key"] in ("accepted", "unknown"))
    say(f"{len(found)} minions: what a state run would change, and who has calls")
    answers = _asked(link, jids, found, apply_cap)
    changes = {minion: change(answer.run) for minion, answer in answers.items() if answer.known}
    problems = []
    for minion in sorted(chosen):
        if problem := _problem(answers[minion], changes.get(minion)):
            problems.append(f"{minion}: {problem}")
    _refuse(problems)
    if any(changes[minion].changes for minion in chosen):
        # What voice.* reads of pillar must be what the states were just compiled with.
        gathered(link, Job(jids.new(), tuple(found), "saltutil.refresh_pillar", (), {"wait": True}))
    return [
        _left_out(minion, fact, answers.get(minion), changes.get(minion))
        if minion not in chosen
        else _node(minion, fact, answers[minion].service, changes[minion])
        for minion, fact in sorted(members.items())
    ]


@dataclass(frozen=True)
class _Answer:
    """What survey.node said of a node; when not `known`, `run` says why not."""

    known: bool
    run: Any
    service: dict[str, Any]


def _asked(link: Link, jids: Jids, minions: list[str], cap: float) -> dict[str, _Answer]:
    """Ask all at once; again who lacked the module, and who was in the midst of a state run."""
    found: dict[str, _Answer] = {}
    left, synced = list(minions), False
    for _ in range(20):
        outcomes = gathered(link, Job(jids.new(), tuple(left), FUNCTION, (), {}, cap))
        found |= {minion: _answer(outcome) for minion, outcome in outcomes.items()}
        lacking = [one for one in left if _lacks(found[one])]
        if lacking and not synced:
            synced = True
            gathered(link, Job(jids.new(), tuple(lacking), "saltutil.sync_all", (), {}, 300))
        elif lacking:
            _refuse([f"{one}: {_short(found[one].run)}" for one in lacking])
        busy = [one for one in left if found[one].known and change(found[one].run).busy]
        left = sorted({*lacking, *busy})
        if not left:
            return found
        if not lacking:
            link.poll(3.0)
    raise RefusedError([f"{minion}: a state run there does not end" for minion in left])


def _answer(outcome: Outcome) -> _Answer:
    value = outcome.value
    if not outcome.known:
        return _Answer(False, f"does not answer the master ({_short(value)})", {})
    if not isinstance(value, dict) or "run" not in value:
        return _Answer(False, f"{FUNCTION}: {_short(value)}", {})
    service = value.get("service")
    return _Answer(True, value["run"], service if isinstance(service, dict) else {})


def _lacks(answer: _Answer) -> bool:
    """Whether a minion has no such function, or none of what it calls."""
    return not answer.known and "is not available" in str(answer.run)


def _problem(answer: _Answer, found: Change | None) -> str:
    if found is None:
        return _short(answer.run)
    if found.problem:
        return found.problem
    if "state" not in answer.service:
        return f"voice.in_service: {_short(answer.service.get('error') or 'no answer')}"
    return ""


def _without_key(members: dict[str, dict[str, str]], chosen: set[str]) -> list[str]:
    """What is wrong with the keys of the chosen, and who has one though the fleet has no such."""
    problems = []
    for minion in sorted(chosen):
        fact = members[minion]
        if not fact["role"]:
            remedy = f"`salt-key -d {minion}` if it is gone"
            problems.append(f"{minion}: its key is accepted, but pillar's fleet has none; {remedy}")
        elif fact["key"] == "pending":
            remedy = f"`salt-key -a {minion}` if it is ours"
            problems.append(f"{minion}: in pillar's fleet, but its key waits; {remedy}")
        elif fact["key"] not in ("accepted", "unknown"):
            problems.append(f"{minion}: in pillar's fleet, but has no accepted key")
    return problems


def _node(minion: str, fact: dict[str, str], service: dict[str, Any], found: Change) -> Node:
    mark = service.get("drained_mark")
    by = str(mark.get("by") or "somebody") if isinstance(mark, dict) else ""
    debt = by.startswith(OWNER)
    return Node(
        minion=minion,
        role=_role(minion, fact),
        zone=fact["zone"],
        pair=fact["pair"],
        disruption=found.disruption,
        changes=found.changes,
        state=str(service.get("state")),
        running=bool(service.get("running")),
        calls=int(service.get("calls") or 0),
        debt=debt,
        marked="" if debt else by,
        why=found.why,
    )


def _left_out(
    minion: str, fact: dict[str, str], answer: _Answer | None, found: Change | None
) -> Node:
    """A node of another role: what it carries counts, what is wrong with it refuses nothing."""
    why = "role not chosen"
    if answer is None or not answer.known or "state" not in answer.service:
        gone = {"state": "out_of_service", "running": False}
        told = _node(minion, fact, gone, Change("none", 0, ()))
        return replace(told, left_out=f"{why}, and it does not answer")
    return replace(
        _node(minion, fact, answer.service, found or Change("none", 0, ())), left_out=why
    )


def _role(minion: str, fact: dict[str, str]) -> str:
    return fact["role"] or naming.role_of(minion)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise RefusedError(problems)


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:300]
