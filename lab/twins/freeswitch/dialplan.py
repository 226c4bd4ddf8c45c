"""The XML dialplan: from a context and a destination to the applications to run."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One application with its data."""

    application: str
    data: str


def route(dialplan: ET.Element, context: str, fields: dict[str, str]) -> list[Action]:
    """The actions of the first extension that matches (and of those before it that continue)."""
    contexts = dialplan.findall("./context")
    found = next((entry for entry in contexts if entry.get("name") == context), None)
    if found is None:
        return []
    actions: list[Action] = []
    for extension in found.findall("extension"):
        matched, chosen = _match(extension, fields)
        actions += chosen
        if matched and extension.get("continue") != "true":
            break
    return actions


def _match(extension: ET.Element, fields: dict[str, str]) -> tuple[bool, list[Action]]:
    actions: list[Action] = []
    for condition in extension.findall("condition"):
        ok, groups = _test(condition, fields)
        for child in condition.findall("action" if ok else "anti-action"):
            data = _filled(child.get("data", ""), groups)
            actions.append(Action(child.get("application", ""), data))
        stop = condition.get("break", "on-false")
        if not ok and stop in ("on-false", "always"):
            return False, actions
        if ok and stop in ("on-true", "always"):
            break
    return True, actions


def _test(condition: ET.Element, fields: dict[str, str]) -> tuple[bool, tuple[str, ...]]:
    field = condition.get("field")
    if field is None:
        return True, ()
    name = field.removeprefix("${").removesuffix("}")
    try:
        match = re.search(condition.get("expression", ""), fields.get(name, ""))
    except re.error:
        return False, ()
    return bool(match), (match[0], *match.groups("")) if match else ()


def _filled(data: str, groups: tuple[str, ...]) -> str:
    """Put the expression's groups in place of $0 to $9; those it lacks are empty."""

    def group(match: re.Match[str]) -> str:
        return groups[int(match[1])] if int(match[1]) < len(groups) else ""

    return re.sub(r"\$(\d)", group, data)
