"""Say what each change of a FreeSWITCH configuration costs, and the least action that applies it.

What is known stands in ``_utils/fs_table.py``; whatever it has no row for needs a restart.
"""

from __future__ import annotations

import hashlib
import re
from itertools import chain

TRUE = {"yes", "on", "true", "t", "enabled", "active", "allow"}


def classify(old: object, new: object, rules: dict) -> dict:
    """Compare two loaded documents (``fsxml.load``) and return the plan that leads across.

    ``rules`` is ``fs_table.rules()``. The answer is ``{"disruption": "none"|"reload"|"restart",
    "why": [sentence…], "actions": [{"do", …}…], "steps": [{"what", "do", "files"}…]}``; values of
    secrets appear as digests.
    """
    plan = _Plan(old, new, rules)
    if old.root is None or new.root is None:
        plan.add("a tree that does not parse", "restart", ())
        return plan.result()
    _variables(plan)
    _sections(plan)
    _configurations(plan)
    _directory_elsewhere(plan)
    return plan.result()


def forgotten(document: object, row: object) -> list[str]:
    """Return what the action after a rescan makes some profile forget, since it reaches them all.

    ``row`` is one of ``fs_table.rules()["profile"]``.
    """
    sofia = document.configuration("sofia.conf")
    profiles = sofia.all("profiles", "profile") if sofia is not None and row.forgets else []
    settings = [node for profile in profiles for node in profile.all("settings")[:1]]
    return [name for name in row.forgets if any(node.param(name) for node in settings)]


class _Plan:
    def __init__(self, old: object, new: object, rules: dict) -> None:
        self.old = old
        self.new = new
        self.rules = rules
        self.steps: list[dict] = []
        self.actions: list[dict] = []

    def add(
        self, what: str, do: str, files: tuple[str, ...], *, about: str = "", **arguments: str
    ) -> None:
        """Note one change, its files and what applies it; every change reloads the XML first.

        ``about`` names a gateway that must run after a rescan, and must not after a killgw.
        """
        step = {"what": what, "do": do, "files": sorted(set(files))}
        self.steps.append({**step, "gateway": about} if about else step)
        wanted = [{"do": do, **arguments}]
        if do not in ("reloadxml", "restart"):
            wanted.insert(0, {"do": "reloadxml"})
        for action in wanted:
            if action not in self.actions:
                self.actions.append(action)

    def result(self) -> dict:
        costs = self.rules["actions"]
        order = list(costs)
        needed = sorted(self.actions, key=lambda action: order.index(action["do"]))
        classes = {costs[action["do"]] for action in needed}
        worst = next((name for name in ("restart", "reload") if name in classes), "none")
        if worst == "restart":
            needed = [{"do": "restart"}]
        # A restart is explained by what needs it; the rest comes along.
        told = [step for step in self.steps if costs[step["do"]] == worst]
        return {
            "disruption": worst,
            "why": list(dict.fromkeys(step["what"] for step in told)),
            "actions": needed,
            "steps": self.steps,
        }


def _variables(plan: _Plan) -> None:
    """Global variables: a reload sets what is there, and forgets nothing that was there."""
    old, new = plan.old, plan.new
    for name in sorted(set(old.variables) | set(new.variables)):
        before, after = old.variables.get(name), new.variables.get(name)
        if before == after:
            continue
        files = (old.set_by.get(name, ""), new.set_by.get(name, ""))
        files = tuple(file for file in files if file)
        if name in plan.rules["start_variables"]:
            what = f"variable {_change(plan, name, before, after)}: read at a start only"
            plan.add(what, "restart", files)
        elif after is None and _mentions(new.root, name):
            plan.add(f"variable {name} removed but still used at run time", "restart", files)
        else:
            plan.add(f"variable {_change(plan, name, before, after)}", "reloadxml", files)


def _mentions(node: object, name: str) -> bool:
    wanted = (f"${{{name}}}", f"global_getvar {name}", f"global_getvar({name}")
    texts = [node.text, *node.attrib.values()]
    if any(mark in text for text in texts for mark in wanted):
        return True
    return any(_mentions(child, name) for child in node.children)


def _sections(plan: _Plan) -> None:
    looked_up = plan.rules["sections"]
    names = {
        section.attrib.get("name", "")
        for document in (plan.old, plan.new)
        for section in document.root.all("section")
    }
    for name in sorted(names - {"configuration"}):
        before, after = plan.old.section(name), plan.new.section(name)
        changed = _differing(before, after)
        if not changed:
            continue
        if name not in looked_up:
            plan.add(f"section {name} has no rule", "restart", _files(changed))
            continue
        for action in looked_up[name]:
            plan.add(f"{name} changed ({_labels(changed)})", action, _files(changed))


def _configurations(plan: _Plan) -> None:
    sides = [document.section("configuration") for document in (plan.old, plan.new)]
    strays = _differing(*([n for n in side if n.name != "configuration"] for side in sides))
    if strays:
        what = f"elements outside of any configuration changed ({_labels(strays)})"
        plan.add(what, "restart", _files(strays))
    names = {n.attrib.get("name", "") for n in chain(*sides) if n.name == "configuration"}
    for name in sorted(names):
        before, after = plan.old.configuration(name), plan.new.configuration(name)
        if before is not None and after is not None and before.canonical() == after.canonical():
            continue
        told = len(plan.steps)
        _configuration(plan, name, before, after)
        if len(plan.steps) == told:
            plan.add(
                f"{name} changed in a way that has no rule", "restart", _files([before or after])
            )


def _configuration(plan: _Plan, name: str, before: object | None, after: object | None) -> None:
    handlers = {
        "sofia.conf": _sofia,
        "switch.conf": _switch,
        "modules.conf": _modules,
        "post_load_modules.conf": _modules,
        "event_socket.conf": _event_socket,
        "callcenter.conf": _callcenter,
    }
    files = _files([node for node in (before, after) if node is not None])
    parts, actions = plan.rules["configurations"].get(name, ((), ()))
    modules = {action["module"] for action in actions if "module" in action}
    modules = modules or {f"mod_{name.removesuffix('.conf')}"}
    if before is None and modules & (_loaded(plan.new) - _loaded(plan.old)):
        plan.add(f"{name} comes with its module", "reloadxml", files)
    elif name in handlers and before is not None and after is not None:
        handlers[name](plan, before, after)
    elif not actions or after is None:
        plan.add(f"{name} changed, which has no rule", "restart", files)
    elif name in (needs := plan.rules["module_needs"]) and not after.all(*needs[name]):
        plan.add(f"{name} left without any {needs[name][-1]}", "restart", files)
    else:
        if before is not None:
            _others(plan, before, after, parts, name)
        for action in actions:
            if "module" in action and action["module"] not in _loaded(plan.old):
                continue  # nobody has read it yet
            plan.add(f"{name} changed", **action, files=files)


def _sofia(plan: _Plan, before: object, after: object) -> None:
    old, new = _named(before, "profiles", "profile"), _named(after, "profiles", "profile")
    _params(
        plan,
        (_first(before, "global_settings"), _first(after, "global_settings")),
        "sofia global settings",
        plan.rules["sofia_global"],
        {},
        sorted(set(old) & set(new)),
    )
    _others(plan, before, after, ("global_settings", "profiles"), "sofia.conf")
    _others(plan, _first(before, "profiles"), _first(after, "profiles"), ("profile",), "profiles")
    for name in sorted(set(old) | set(new)):
        if name not in new:
            plan.add(f"profile {name} removed", "restart", _files([old[name]]))
        elif name not in old:
            plan.add(f"profile {name} added", "start", _files([new[name]]), profile=name)
        elif old[name].canonical() != new[name].canonical():
            told = len(plan.steps)
            _profile(plan, name, old[name], new[name])
            if len(plan.steps) == told:
                what = f"profile {name} changed in a way that has no rule"
                plan.add(what, "restart", _files([old[name], new[name]]))
    if list(old) != list(new) and set(old) == set(new):
        plan.add("order of the profiles changed, read at a start only", "reloadxml", ())


def _profile(plan: _Plan, name: str, before: object, after: object) -> None:
    if before.attrib != after.attrib:
        plan.add(f"attributes of profile {name} changed", "restart", _files([before, after]))
    _params(
        plan,
        (_first(before, "settings"), _first(after, "settings")),
        name,
        plan.rules["profile"],
        plan.rules["profile_restart"],
        [name],
    )
    _gateways(plan, name, before, after)
    _others(plan, before, after, ("settings", "gateways", "aliases"), f"profile {name}")
    old, new = _named(before, "aliases", "alias"), _named(after, "aliases", "alias")
    for alias in sorted(set(old) - set(new)):
        plan.add(f"alias {alias} of {name} removed", "restart", _files([before]))
    for alias in sorted(set(new) - set(old)):
        plan.add(f"alias {alias} of {name} added", "rescan", _files([after]), profile=name)


def _gateways(plan: _Plan, name: str, before: object, after: object) -> None:
    """lab: rescan adds a gateway, ignores an edit, and leaves a removed one alive."""
    containers = (_first(before, "gateways"), _first(after, "gateways"))
    _others(plan, *containers, ("gateway",), f"gateways of {name}")
    old, new = _named(before, "gateways", "gateway"), _named(after, "gateways", "gateway")
    for label in sorted(set(old) | set(new)):
        if label not in old:
            files = _files([new[label]])
            plan.add(f"gateway {label} added", "rescan", files, about=label, profile=name)
        elif label not in new:
            files = _files([old[label]])
            what = f"gateway {label} removed"
            plan.add(what, "killgw", files, about=label, profile=name, gateway=label)
        elif old[label].canonical() != new[label].canonical():
            files = _files([old[label], new[label]])
            what = f"gateway {label}: {_param_changes(plan, old[label], new[label])}"
            plan.add(what, "killgw", files, profile=name, gateway=label)
            plan.add(what, "rescan", files, about=label, profile=name)
    if list(old) != list(new) and set(old) == set(new):
        plan.add(f"order of the gateways of {name} changed", "reloadxml", ())


def _switch(plan: _Plan, before: object, after: object) -> None:
    words = plan.rules["switch"]
    sides = _first(before, "settings"), _first(after, "settings")
    for name, old, new, nodes in _param_pairs(*sides):
        what = f"{_change(plan, name, old, new)} (switch.conf)"
        if name in words and new:
            plan.add(what, "fsctl", _files(nodes), word=words[name], value=new)
        else:
            plan.add(what, "restart", _files(nodes))
    if _reordered(*sides):
        plan.add("order of switch.conf changed, read at a start only", "reloadxml", ())
    _others(plan, before, after, ("settings",), "switch.conf")


def _modules(plan: _Plan, before: object, after: object) -> None:
    _others(plan, _first(before, "modules"), _first(after, "modules"), ("load",), "modules")
    old = _named(before, "modules", "load", "module")
    new = _named(after, "modules", "load", "module")
    for name in sorted(set(old) | set(new)):
        if name not in new:
            plan.add(f"module {name} no longer loaded", "restart", _files([old[name]]))
        elif name not in old:
            plan.add(f"module {name} added", "load", _files([new[name]]), module=name)
        elif old[name].canonical() != new[name].canonical():
            plan.add(f"how module {name} loads changed", "restart", _files([new[name]]))
    if [name for name in old if name in new] != [name for name in new if name in old]:
        plan.add("order of the modules changed, read at a start only", "reloadxml", ())
    _others(plan, before, after, ("modules",), "modules.conf")


def _event_socket(plan: _Plan, before: object, after: object) -> None:
    """The module rereads its file when it is reloaded, which ends the calls it controls."""
    controls_calls = any(
        _has_application(node, "socket")
        for document in (plan.old, plan.new)
        for node in document.section("dialplan")
    )
    sides = _first(before, "settings"), _first(after, "settings")
    for name, old, new, nodes in _param_pairs(*sides):
        what = f"{_change(plan, name, old, new)} (event socket)"
        if controls_calls:
            plan.add(f"{what} while the dialplan hands calls to it", "restart", _files(nodes))
        else:
            plan.add(what, "reload_event_socket", _files(nodes))
    if _reordered(*sides):
        plan.add("order of event_socket.conf changed", "reloadxml", ())
    _others(plan, before, after, ("settings",), "event_socket.conf")


def _callcenter(plan: _Plan, before: object, after: object) -> None:
    """Queues, agents and tiers have commands of their own; settings are read at a start."""
    for container, kind, keys, commands in plan.rules["callcenter"]:
        old, new = (_keyed(side, container, kind, keys) for side in (before, after))
        for key in [*new, *(key for key in old if key not in new)]:
            sides = old.get(key), new.get(key)
            if None not in sides and sides[0].canonical() == sides[1].canonical():
                continue
            came, changed, went = commands
            verb = came if sides[0] is None else went if sides[1] is None else changed
            files = _files([side for side in sides if side is not None])
            what = f"{kind} {' '.join(key)} {'added' if sides[0] is None else 'changed'}"
            what = what if sides[1] is not None else f"{kind} {' '.join(key)} removed"
            if verb:
                about = dict(zip(("queue", "agent"), key, strict=False))
                about = {"agent": key[0]} if kind == "agent" else about
                plan.add(what, "callcenter", files, verb=verb, **about)
            else:
                plan.add(f"{what} with the callers who may wait in it", "restart", files)
    containers = tuple(container for container, *_ in plan.rules["callcenter"])
    _others(plan, before, after, containers, "callcenter.conf")


def _directory_elsewhere(plan: _Plan) -> None:
    """The directory also feeds access lists (`cidr`) and profiles (`<domains>`)."""
    changed = _differing(plan.old.section("directory"), plan.new.section("directory"))
    if not changed:
        return
    documents = (plan.old, plan.new)
    lists = [doc.configuration("acl.conf") for doc in documents]
    if any(node is not None and _has_attribute(node, "domain") for node in lists):
        plan.add("directory changed, which access lists name", "reloadacl", _files(changed))
    sofia = [doc.configuration("sofia.conf") for doc in documents]
    if any(node is not None and node.all("profiles", "profile", "domains") for node in sofia):
        named = [
            {node.attrib.get("name") for node in doc.section("directory")} for doc in documents
        ]
        if named[0] != named[1] or any(_has_element(node, "gateway") for node in changed):
            what = "domains or gateways of the directory changed, which a profile takes over"
            plan.add(what, "restart", _files(changed))


def _has_attribute(node: object, name: str) -> bool:
    return name in node.attrib or any(_has_attribute(child, name) for child in node.children)


def _has_element(node: object, name: str) -> bool:
    return node.name == name or any(_has_element(child, name) for child in node.children)


def _has_application(node: object, name: str) -> bool:
    if node.attrib.get("application") == name:
        return True
    return any(_has_application(child, name) for child in node.children)


def _params(
    plan: _Plan,
    sides: tuple[object | None, object | None],
    where: str,
    rows: dict,
    reasons: dict[str, str],
    profiles: list[str],
) -> None:
    """Parameters that a rescan of ``profiles`` applies, as far as they have a row."""
    for name, old, new, nodes in _param_pairs(*sides):
        what = f"{_change(plan, name, old, new)} ({where})"
        row = rows.get(name)
        if row is None:
            reason = reasons.get(name, "").partition(";")[0]
            what = f"{what}: {reason}" if reason else what
        elif _keeps(row, old, new):
            what, row = f"{what}: a rescan keeps something of what it was", None
        elif lost := forgotten(plan.new, row):
            what, row = f"{what}: {row.then} forgets {', '.join(lost)}", None
        if row is None:
            plan.add(what, "restart", _files(nodes))
            continue
        for profile in profiles:
            plan.add(what, "rescan", _files(nodes), profile=profile)
        if row.then:
            plan.add(what, row.then, _files(nodes))
    moved = _reordered(*sides)
    if moved:
        what = f"order of {', '.join(sorted(moved))} changed ({where})"
        files = _files([node for node in sides if node is not None])
        if moved <= set(rows):
            for profile in profiles:
                plan.add(what, "rescan", files, profile=profile)
        else:
            plan.add(what, "restart", files)
    if None not in sides:
        _others(plan, *sides, ("param",), where)


def _keeps(row: object, old: str | None, new: str | None) -> bool:
    """Tell whether the daemon would not be as after a start with the new value."""
    if new is None:
        return not row.reset
    if not new:
        return True  # most empty values are passed over
    values = [value for value in (old, new) if value is not None]
    if row.form and not all(re.fullmatch(row.form, value) for value in values):
        return True
    return old is not None and (_plain(old), _plain(new)) in row.stays


def _plain(value: str) -> str:
    """Return a value as switch_true sees it: every word for yes is one, every other is itself."""
    value = value.lower()
    if value in TRUE or re.fullmatch(r"-?0*[1-9][0-9]*", value):
        return "true"
    no = value in ("no", "off", "false", "f", "disabled") or re.fullmatch(r"-?0+", value)
    return "false" if no else value


def _reordered(before: object | None, after: object | None) -> set[str]:
    """Return the names of the parameters that stand in another order among those of both sides."""
    if before is None or after is None:
        return set()
    names = [list(dict.fromkeys(name for name, *_ in side.params())) for side in (before, after)]
    common = set(names[0]) & set(names[1])
    orders = [[name for name in side if name in common] for side in names]
    differing = [index for index in range(len(common)) if orders[0][index] != orders[1][index]]
    if not differing:
        return set()
    return set(orders[0][differing[0] : differing[-1] + 1])


def _param_pairs(before: object | None, after: object | None) -> list[tuple]:
    """Return (name, old value, new value, elements) for each parameter that differs.

    A parameter given several times is compared as the list of its values, in order.
    """
    sides: list[dict[str, list]] = []
    for node in (before, after):
        values: dict[str, list] = {}
        for name, value, element in node.params() if node is not None else []:
            values.setdefault(name, []).append((value, element))
        sides.append(values)
    pairs = []
    for name in sorted(set(sides[0]) | set(sides[1])):
        old, new = sides[0].get(name), sides[1].get(name)
        texts = [None if side is None else [value for value, _ in side] for side in (old, new)]
        if texts[0] != texts[1]:
            nodes = [element for side in (old, new) for _, element in side or []]
            shown = [None if text is None else ", ".join(text) for text in texts]
            pairs.append((name, shown[0], shown[1], nodes))
    return pairs


def _others(
    plan: _Plan, before: object | None, after: object | None, known: tuple[str, ...], where: str
) -> None:
    """Whatever below an element is neither known nor equal needs a restart."""
    old, new = (
        [] if side is None else [child for child in side.children if child.name not in known]
        for side in (before, after)
    )
    changed = _differing(old, new)
    if changed:
        labels = sorted({node.name for node in changed})
        plan.add(f"<{'>, <'.join(labels)}> of {where} changed", "restart", _files(changed))


def _first(node: object, name: str) -> object | None:
    """Return the first child ``name``; FreeSWITCH reads no other."""
    found = node.all(name)
    return found[0] if found else None


def _named(node: object, container: str, kind: str, key: str = "name") -> dict[str, object]:
    """Return name -> element of the ``kind`` children of the first ``container``."""
    first = _first(node, container)
    return {} if first is None else {child.attrib.get(key, ""): child for child in first.all(kind)}


def _keyed(node: object, container: str, kind: str, keys: tuple[str, ...]) -> dict[tuple, object]:
    """Return (attributes ``keys``) -> element of the ``kind`` children of ``container``."""
    first = _first(node, container)
    found = [] if first is None else first.all(kind)
    return {tuple(child.attrib.get(key, "") for key in keys): child for child in found}


def _loaded(document: object) -> set[str]:
    return {
        node.attrib.get("module", "")
        for name in ("modules.conf", "post_load_modules.conf")
        for configuration in [document.configuration(name)]
        if configuration is not None
        for node in configuration.all("modules", "load")
    }


def _differing(before: list, after: list) -> list:
    """Return the elements of either side that the other lacks; order matters."""
    old = [node.canonical() for node in before]
    new = [node.canonical() for node in after]
    if old == new:
        return []
    lacking = [node for node, value in zip(before, old, strict=True) if value not in new]
    lacking += [node for node, value in zip(after, new, strict=True) if value not in old]
    return lacking or [*before, *after]


def _files(nodes: list) -> tuple[str, ...]:
    """Return the files the elements and everything below them came from."""
    files: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        files.add(node.file)
        waiting.extend(node.children)
    return tuple(sorted(files))


def _labels(nodes: list) -> str:
    names = sorted({node.attrib.get("name", node.name) for node in nodes})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _param_changes(plan: _Plan, before: object, after: object) -> str:
    pairs = _param_pairs(before, after)
    told = [_change(plan, name, old, new) for name, old, new, _ in pairs]
    return ", ".join(told) or "changed"


def _change(plan: _Plan, name: str, old: str | None, new: str | None) -> str:
    """Say what a value was and is; of a secret only that it differs."""
    if re.search(plan.rules["secret"], name.lower()):
        old, new = (None if value is None else _digest(value) for value in (old, new))
    if old is None:
        return f"{name} set to {new}"
    if new is None:
        return f"{name} {old} removed"
    return f"{name} {old} -> {new}"


def _digest(value: str) -> str:
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:8]
