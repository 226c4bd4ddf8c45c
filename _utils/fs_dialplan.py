"""Say which parts of a FreeSWITCH dialplan would fail or never run, before a call finds out.

FreeSWITCH compiles a condition when a call meets it: one that does not compile is logged and does
not match (mod_dialplan_xml.c parse_exten, switch_regex.c), and the caller hears it.
"""

from __future__ import annotations

import re
import warnings

BREAKS = ("on-false", "on-true", "always", "never")
TESTS = {"regex", "expression"}  # children that replace `field` and `expression`
# Letters that mean something to PCRE2 behind a backslash. 1.10 takes any other as itself, and
# 1.11 does not compile it.
ESCAPES = set("aAbBcCdDeEfgGhHkKnNopPQrRsStvVwWxXzZ")
# What Python's own compiler refuses and PCRE does too; its other refusals may be PCRE's syntax.
BROKEN = ("missing ), unterminated subpattern", "unbalanced parenthesis", "nothing to repeat",
          "unterminated character set", "bad character range", "nested too deep")  # fmt: skip
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
CAPTURED = re.compile(r"\$\{?([1-9][0-9]?)(?![0-9])")


def check(document: object) -> list[str]:
    """Return what is wrong with the dialplan of a loaded document, a line each; [] is good."""
    problems = []
    names: dict[str, object] = {}
    for context in document.section("dialplan"):
        name = context.attrib.get("name", "")
        if name in names:
            problems.append(
                f"{_at(context)}: context {name} again; FreeSWITCH reads only {_at(names[name])}"
            )
        names.setdefault(name, context)
        for extension in context.all("extension"):
            problems += _extension(extension)
    return problems


def _extension(extension: object) -> list[str]:
    name = extension.attrib.get("name", "")
    problems = []
    for condition in extension.all("condition"):
        where = f"{_at(condition)}: extension {name}"
        problems += [f"{where} {what}" for what in _condition(condition)]
        for action in (*condition.all("action"), *condition.all("anti-action")):
            where = f"{_at(action)}: extension {name}"
            problems += [f"{where} {what}" for what in _action(action)]
    return problems


def _condition(condition: object) -> list[str]:
    given = condition.attrib
    found = []
    if given.get("break", "never").lower() not in BREAKS:
        found.append(f"has break {given['break']!r}; it is one of {', '.join(BREAKS)}")
    nested = any(child.name in TESTS for child in condition.children)
    if ("field" in given) != ("expression" in given) and not nested:
        has, lacks = ("field", "expression") if "field" in given else ("expression", "field")
        found.append(f"has a condition with {has} and no {lacks}; give both")
    for node in (condition, *condition.all("regex")):
        reason = _unfit(node.attrib.get("expression", ""))
        if reason:
            found.append(f"has an expression that never matches: {reason}")
    return found + _captures(condition)


def _unfit(expression: str) -> str:
    """Return why PCRE does not compile an expression, as far as that is certain."""
    if not _judged(expression):
        return ""
    for letter in ESCAPED.findall(expression):
        if letter.isascii() and letter.isalpha() and letter not in ESCAPES:
            return f"\\{letter} means nothing"
    _, reason = _compiled(expression)
    return reason if reason.startswith(BROKEN) else ""


def _judged(expression: str) -> bool:
    """Tell whether a call changes nothing of it, and it quotes nothing."""
    return "${" not in expression and "\\Q" not in expression


def _compiled(expression: str) -> tuple[int, str]:
    """Return how many groups an expression has, and why it has none if it does not compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            return re.compile(expression).groups, ""
    except (re.error, RecursionError, OverflowError) as err:
        return 0, getattr(err, "msg", "nested too deep")


def _action(action: object) -> list[str]:
    if not action.attrib.get("application"):
        return ["has an action without an application; name one"]
    data = action.attrib.get("data", "")
    if data.count("${") > data.count("}"):
        return [f"gives {action.attrib['application']} a '${{' without its '}}'"]
    return []


def _captures(condition: object) -> list[str]:
    """A `$3` where the expression has two groups becomes nothing at all, silently."""
    expression = condition.attrib.get("expression", "")
    groups, reason = _compiled(expression)
    nested = any(child.name in TESTS for child in condition.children)
    if reason or nested or not _judged(expression):
        return []
    asked = [
        int(number)
        for action in condition.all("action")
        for number in CAPTURED.findall(action.attrib.get("data", ""))
    ]
    if asked and max(asked) > groups:
        return [f"uses ${max(asked)} where its expression has {groups} groups"]
    return []


def _at(node: object) -> str:
    return f"{node.file}:{node.line}"
