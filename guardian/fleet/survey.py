"""Who exists, and what a deploy would do to each: asked of the master, changes nothing."""

from collections.abc import Callable
from typing import Any

from guardian import workspace as naming
from guardian.errors import GuardianError
from guardian.fleet.checks import Change, change
from guardian.fleet.master import Jids, Job, Link, Outcome
from guardian.fleet.rollout import Node

# Marks a drain as one of ours, so that a later run knows it owes putting the node back.
OWNER = "guardian "


class RefusedError(GuardianError):
    """The fleet is not fit to be deployed to; one line a node in `problems`."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}; nothing was changed")
        self.problems = problems


def survey(
    link: Link, jids: Jids, workspace: str, say: Callable[[str], None], *, apply_cap: float = 600
) -> list[Node]:
    """Every accepted minion of the workspace, classified by `state.apply test=True`.

    RefusedError when one is missing or silent, or its states or pillar do not compile.
    """
    keys = link.minions()
    found = sorted(one for one in keys["accepted"] if naming.belongs(one, workspace))
    if not found:
        waiting = [one for one in keys["pending"] if naming.belongs(one, workspace)]
        hint = (
            f"{len(waiting)} wait for their key to be accepted" if waiting else "is it the master?"
        )
        raise GuardianError(f"master: no accepted minion of {workspace}; {hint}")

    def ask(fun: str, *args: str, cap: float = 60, **kwargs: Any) -> dict[str, Outcome]:
        return _run(link, Job(jids.new(), tuple(found), fun, args, kwargs, cap))

    say(f"{len(found)} minions: who answers")
    _all_known(ask("test.ping", cap=45), "does not answer the master")
    link.renew(workspace)
    ask("saltutil.refresh_pillar", wait=True)
    _expected(found, workspace, ask("pillar.get", "fleet", unmask=True))
    say("what a state run would change")
    _all_known(ask("saltutil.sync_all", cap=300), "did not take the modules")
    changes = _classify(link, jids, found, apply_cap)
    problems = [f"{minion}: {entry.problem}" for minion, entry in changes.items() if entry.problem]
    if problems:
        raise RefusedError(problems)
    say("calls that are up")
    service = ask("voice.in_service")
    facts = ask("pillar.get", "node", unmask=True)
    nodes = []
    for minion in found:
        state, fact = service[minion], facts[minion]
        if not state.known or not isinstance(state.value, dict) or state.retcode:
            problems.append(f"{minion}: voice.in_service: {_short(state.value)}")
        elif not fact.known or not isinstance(fact.value, dict):
            problems.append(f"{minion}: pillar has no `node` for it")
        else:
            nodes.append(_node(minion, changes[minion], state.value, fact.value))
    if problems:
        raise RefusedError(problems)
    return nodes


def _node(minion: str, found: Change, service: dict[str, Any], fact: dict[str, Any]) -> Node:
    mark = service.get("drained_mark")
    by = str(mark.get("by") or "somebody") if isinstance(mark, dict) else ""
    debt = by.startswith(OWNER)
    return Node(
        minion=minion,
        role=str(fact.get("role") or naming.role_of(minion)),
        zone=str(fact.get("zone") or ""),
        disruption=found.disruption,
        changes=found.changes,
        state=str(service.get("state")),
        running=bool(service.get("running")),
        calls=int(service.get("calls") or 0),
        debt=debt,
        marked="" if debt else by,
        why=found.why,
    )


def _classify(link: Link, jids: Jids, minions: list[str], cap: float) -> dict[str, Change]:
    """Each minion's change; a state run that is under way already is waited for."""
    found: dict[str, Change] = {}
    left = list(minions)
    for _ in range(20):
        job = Job(jids.new(), tuple(left), "state.apply", (), {"test": True}, cap)
        for minion, outcome in _run(link, job).items():
            silent = Change("none", 0, (), f"test run: {_short(outcome.value)}")
            found[minion] = change(outcome.value) if outcome.known else silent
        left = [minion for minion in left if found[minion].busy]
        if not left:
            return found
        link.poll(3.0)
    raise RefusedError([f"{minion}: a state run there does not end" for minion in left])


def _expected(found: list[str], workspace: str, fleets: dict[str, Outcome]) -> None:
    """RefusedError when pillar names a host of this workspace that has no accepted key."""
    named: set[str] = set()
    for outcome in fleets.values():
        if outcome.known and isinstance(outcome.value, dict):
            named |= {f"{host}.{workspace}" for host in outcome.value}
    if missing := sorted(named - set(found)):
        raise RefusedError(
            [f"{one}: in pillar's fleet, but has no accepted key" for one in missing]
        )


def _all_known(outcomes: dict[str, Outcome], why: str) -> None:
    silent = [minion for minion, outcome in sorted(outcomes.items()) if not outcome.known]
    if silent:
        raise RefusedError(
            [f"{minion}: {why} ({_short(outcomes[minion].value)})" for minion in silent]
        )


def _run(link: Link, job: Job) -> dict[str, Outcome]:
    link.submit(job)
    found: dict[str, Outcome] = {}
    while len(found) < len(job.targets):
        for outcome in link.poll(5.0):
            if outcome.jid == job.jid:
                found[outcome.minion] = outcome
    return found


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:300]
