"""From the references in a node's pillar to their values, or to one line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from guardian.secrets import declarations, files, grants, node, values
from guardian.secrets.declarations import FILE, Declaration, Source
from guardian.secrets.failures import NOT_FOUND, UNFIT, SecretError
from guardian.secrets.wants import Answer, Want

if TYPE_CHECKING:  # it brings boto3, which nodes of dummies have no need of
    from guardian.secrets.broker import Broker

SHOWN = 5
LOCAL = "local"


def resolve(
    minion_id: str,
    references: Iterable[tuple[str, str]],
    declared: object,
    *,
    granted: str,
    broker: Callable[[], Broker],
    region: str | None = None,
    dummies: Collection[str] = (),
) -> dict[str, object]:
    """Return ``{name: value}`` of what a node's pillar refers to, ``(pillar path, name)`` each.

    Only what is referred to is read; of an account in ``dummies`` nothing is, its nodes get the
    declared dummies. Raises ValueError, one line: secret, the pillar path that wants it, source,
    reason; never a value. A name that is optional and does not exist has the value None.
    """
    wanted: dict[str, str] = {}
    for path, name in references:
        wanted.setdefault(name, path)
    if not wanted:
        return {}
    asking = node.parse(minion_id)
    known, problems = _declarations(wanted, declared)
    if asking.account in dummies:
        found = _each(known, lambda one: values.accepted_dummy(one, asking.account))
    else:
        found = _read(asking, known, granted, region, broker)
    result: dict[str, object] = {}
    for name, answer in found.items():
        if isinstance(answer, ValueError):
            problems[name] = str(answer)
        else:
            result[name] = answer
    if problems:
        told = [f"secret {name} of {wanted[name]}: {problems[name]}" for name in sorted(problems)]
        more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        raise ValueError("; ".join(told[:SHOWN]) + more)
    return result


def _declarations(
    wanted: Mapping[str, str], declared: object
) -> tuple[dict[str, Declaration], dict[str, str]]:
    if declared is None:
        declared = {}
    if not isinstance(declared, dict):
        raise ValueError("secrets: must be a mapping of names to declarations")
    known: dict[str, Declaration] = {}
    problems: dict[str, str] = {}
    for name in wanted:
        if name not in declared:
            hint = declarations.did_you_mean(name, declared)
            problems[name] = f"is not declared{hint}; declare it under secrets"
            continue
        try:
            known[name] = declarations.parse(name, declared[name])
        except ValueError as problem:
            problems[name] = str(problem)
    return known, problems


def _each(
    known: Mapping[str, Declaration], answer: Callable[[Declaration], object]
) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, declaration in known.items():
        try:
            found[name] = answer(declaration)
        except ValueError as problem:
            found[name] = problem
    return found


def _read(
    asking: node.Node,
    known: Mapping[str, Declaration],
    granted: str,
    region: str | None,
    broker: Callable[[], Broker],
) -> dict[str, object]:
    """Read what is granted; each answer is a value, or the error that kept it back."""
    if region is not None and asking.aws_region != region:
        raise ValueError(f"{asking.id} is of {asking.aws_region}, this master serves {region}")
    if asking.region == LOCAL:
        raise ValueError(
            f"{asking.id} is of no region of AWS; is account {asking.account} to have dummies?"
        )
    rules = grants.load(granted)
    wants: dict[str, Want] = {}
    sources: list[Source] = []
    texts: dict[str, str] = {}

    def want(declaration: Declaration) -> object:
        context = {"region": asking.region, "role": asking.role}
        source = declarations.source(declaration, asking.fill, **context)
        given = rules.find(asking, source, declaration.name)
        sources.append(source)
        _check_region(source, asking.aws_region)
        if source.kind == FILE:
            if source.name not in texts:  # key and chain of one file are of one moment
                texts[source.name] = files.read(source.name, also)
            return values.accepted(texts[source.name], declaration)
        wants[declaration.name] = Want(source, asking.aws_region, given.assume, given.prefix)
        return None

    def also(path: str) -> None:
        rules.find(asking, Source(FILE, path), "")

    found = _each(known, want)
    if sources:
        asks = broker()
        asks.note(asking.id, sources)
        required = {one for name, one in wants.items() if known[name].required}
        answers = asks.get(list(wants.values()), set(wants.values()) - required)
        for name, one in wants.items():
            found[name] = _accept(known[name], one, answers[one])
    for name, answer in found.items():
        gone = isinstance(answer, SecretError) and answer.reason == NOT_FOUND
        if gone and not known[name].required:
            found[name] = None
    return found


def _check_region(source: Source, region: str) -> None:
    parts = source.name.split(":")
    if parts[0] == "arn" and parts[3] != region:
        raise SecretError(UNFIT, f"{source} is of {parts[3]}, the node of {region}")


def _accept(declaration: Declaration, want: Want, answer: Answer) -> object:
    try:
        if isinstance(answer, SecretError):
            raise answer
        return values.accepted(answer, declaration)
    except SecretError as problem:
        where = f"{want.source} {problem}"
        return SecretError(problem.reason, where)
