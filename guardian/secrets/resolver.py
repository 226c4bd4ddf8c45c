"""From the references in a node's pillar to their values, or to one line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from guardian.secrets import declarations, files, grants, node, values
from guardian.secrets.declarations import FILE, Declaration, Source
from guardian.secrets.failures import NOT_FOUND, UNFIT, SecretError
from guardian.secrets.wants import Want

if TYPE_CHECKING:  # it brings boto3, which nodes of dummies have no need of
    from guardian.secrets.broker import Broker

SHOWN = 5
LOCAL = "local"
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def resolve(
    asking: node.Node,
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
    known = _settled(wanted, _each(wanted, partial(_declaration, declared)))
    if asking.account in dummies:
        answers = _each(known, lambda _, one: values.accepted_dummy(one, asking.account))
        return _settled(wanted, answers)
    if region is not None and asking.aws_region != region:
        raise ValueError(f"{asking.id} is of {asking.aws_region}, this master serves {region}")
    if asking.region == LOCAL:
        raise ValueError(
            f"{asking.id} is of no region of AWS; is account {asking.account} to have dummies?"
        )
    rules = grants.load(granted)
    wants = _settled(wanted, _each(known, partial(_want, asking, rules)))
    return _settled(wanted, _read(asking, rules, known, wants, broker()))


def _each(
    entries: Mapping[str, _In], answer: Callable[[str, _In], _Out]
) -> dict[str, _Out | ValueError]:
    """Return an answer for every name, or the error that kept it back."""
    found: dict[str, _Out | ValueError] = {}
    for name, entry in entries.items():
        try:
            found[name] = answer(name, entry)
        except ValueError as problem:
            found[name] = problem
    return found


def _settled(wanted: Mapping[str, str], found: Mapping[str, _Out | ValueError]) -> dict[str, _Out]:
    """Return all answers; ValueError tells the errors, if there is any, and goes no further."""
    problems = {name: one for name, one in found.items() if isinstance(one, ValueError)}
    if problems:
        told = [f"secret {name} of {wanted[name]}: {problems[name]}" for name in sorted(problems)]
        more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        raise ValueError("; ".join(told[:SHOWN]) + more)
    return {name: one for name, one in found.items() if not isinstance(one, ValueError)}


def _declaration(declared: object, name: str, _path: str) -> Declaration:
    if not isinstance(declared, dict | None):
        raise ValueError("secrets must be a mapping of names to declarations")
    if not declared or name not in declared:
        hint = declarations.did_you_mean(name, declared)
        raise ValueError(f"is not declared{hint}; declare it under secrets")
    return declarations.parse(name, declared[name])


def _want(asking: node.Node, rules: grants.Grants, name: str, declaration: Declaration) -> Want:
    """Return what is to be asked for; ValueError when it is malformed or not the node's to have."""
    context = {"region": asking.region, "role": asking.role}
    source = declarations.source(declaration, asking.fill, **context)
    given = rules.find(asking, source, name)
    parts = source.name.split(":")
    if parts[0] == "arn" and parts[3] != asking.aws_region:
        raise SecretError(UNFIT, f"{source} is of {parts[3]}, the node of {asking.aws_region}")
    return Want(source, asking.aws_region, given.assume, given.prefix)


def _read(
    asking: node.Node,
    rules: grants.Grants,
    known: Mapping[str, Declaration],
    wants: Mapping[str, Want],
    broker: Broker,
) -> dict[str, object]:
    """Return what each declaration asks for, None for what is optional and absent."""
    broker.note(asking.id, [want.source for want in wants.values()])
    of_files = {want for want in wants.values() if want.source.kind == FILE}
    required = {want for name, want in wants.items() if known[name].required}
    asked = [want for want in wants.values() if want not in of_files]
    answers = broker.get(asked, set(asked) - required)
    for want in of_files:  # once: key and chain of one file are of one moment
        answers[want] = files.read(
            want.source.name, lambda path: rules.find(asking, Source(FILE, path), "")
        )

    def accept(name: str, want: Want) -> object:
        answer, declaration = answers[want], known[name]
        try:
            if isinstance(answer, SecretError):
                raise answer
            return values.accepted(answer, declaration)
        except SecretError as problem:
            if problem.reason == NOT_FOUND and not declaration.required:
                return None
            raise SecretError(problem.reason, f"{want.source} {problem}") from None

    return _each(wants, accept)
