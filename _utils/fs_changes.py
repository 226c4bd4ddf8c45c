"""What each change of a FreeSWITCH configuration costs, and the least action that applies it.

The table is data: one row a parameter, with the place it was learnt from. Whatever has no row
needs a restart; nothing is ever guessed to be harmless.

Sources: `lab` measured on 1.10.12 with a call up; otherwise the function of the FreeSWITCH
1.10.12 source that reads the value.
"""

from __future__ import annotations

import hashlib
import re

# What applies a change: (verb, disruption). The order is the order in which a plan runs.
ACTIONS = {
    "reloadxml": "reload",
    "load": "reload",
    "reloadacl": "reload",
    "xml_flush_cache": "reload",
    "start": "reload",
    "killgw": "reload",
    "rescan": "reload",
    "fsctl": "reload",
    "reload_event_socket": "reload",
    "restart": "restart",
}

# Parameters of a sofia profile that `rescan` applies to new requests and calls while live calls
# go on: (name, applies when removed, source). A rescan keeps the old value of a parameter that
# is gone, so a removal needs a restart unless config_sofia resets it first.
PROFILE_RESCAN = (
    ("accept-blind-auth", False, "sofia.c config_sofia: flag read per request"),
    ("accept-blind-reg", False, "sofia.c config_sofia: flag read per request"),
    ("aggressive-nat-detection", False, "sofia.c config_sofia: flag read per request"),
    ("apply-inbound-acl", True, "sofia.c config_sofia: acl_count reset; lab"),
    ("apply-nat-acl", True, "sofia.c config_sofia: nat_acl_count reset"),
    ("apply-proxy-acl", True, "sofia.c config_sofia: proxy_acl_count reset"),
    ("apply-register-acl", True, "sofia.c config_sofia: reg_acl_count reset"),
    ("auth-all-packets", False, "sofia.c config_sofia: flag read per request"),
    ("auth-calls", False, "sofia.c config_sofia: flag read per request; lab"),
    ("auth-messages", True, "sofia.c config_sofia: set again after the loop"),
    ("auth-require-user", False, "sofia.c config_sofia: flag read per request"),
    ("auth-subscriptions", True, "sofia.c config_sofia: set again after the loop"),
    ("caller-id-type", False, "sofia.c config_sofia: read per call"),
    ("challenge-realm", False, "sofia_reg.c sofia_reg_auth_challenge: read per request"),
    ("codec-prefs", False, "sofia_media.c: copied by each new call; lab"),
    ("context", False, "sofia.c sofia_handle_sip_i_invite: read per call; lab"),
    ("debug", False, "sofia.c config_sofia: read per event"),
    ("dialplan", False, "sofia.c sofia_handle_sip_i_invite: read per call"),
    ("disable-transcoding", False, "sofia.c config_sofia: media flag copied per call"),
    ("dtmf-duration", False, "sofia.c config_sofia: read per call"),
    ("dtmf-type", False, "sofia_glue.c sofia_glue_new_pvt: read per call"),
    ("force-register-db-domain", False, "sofia_reg.c: read per request"),
    ("force-register-domain", False, "sofia_reg.c: read per request"),
    ("force-subscription-domain", False, "sofia_presence.c: read per request"),
    ("hold-music", False, "sofia.c: read when a call is held"),
    ("inbound-bypass-media", False, "sofia.c: flag copied per call"),
    ("inbound-codec-negotiation", False, "sofia.c: copied per call"),
    ("inbound-codec-prefs", False, "sofia_media.c: copied per call; lab"),
    ("inbound-late-negotiation", False, "sofia.c: flag copied per call"),
    ("inbound-proxy-media", False, "sofia.c: flag copied per call"),
    ("log-auth-failures", False, "sofia_reg.c: flag read per request"),
    ("max-auth-validity", False, "sofia_reg.c: read per request"),
    ("max-registrations-per-extension", False, "sofia_reg.c: read per request"),
    ("multiple-registrations", False, "sofia_reg.c: flag read per request"),
    ("nat-options-ping", False, "sofia_reg.c: flag read per ping"),
    ("nonce-ttl", False, "sofia_reg.c: read per challenge"),
    ("outbound-codec-prefs", False, "sofia_media.c: copied per call; lab"),
    ("record-path", False, "sofia.c: read per recording"),
    ("record-template", False, "sofia.c: read per recording"),
    ("rtp-hold-timeout-sec", False, "sofia_media.c: read at media start"),
    ("rtp-timeout-sec", False, "sofia_media.c: read at media start"),
    ("sip-expires-max-deviation", False, "sofia_reg.c: read per request"),
    ("sip-force-expires", False, "sofia_reg.c: read per request"),
    ("sip-force-expires-max", False, "sofia_reg.c: read per request"),
    ("sip-force-expires-min", False, "sofia_reg.c: read per request"),
    ("sip-options-respond-503-on-busy", False, "sofia.c: flag read per OPTIONS"),
    ("username", False, "sofia_media.c: SDP user name, read per call"),
)

# Parameters of a profile that a rescan reads but the sockets, the SIP stack or running calls do
# not follow. They need no row to be classed `restart`; they are named so that the plan can say why.
PROFILE_RESTART = {
    "sip-ip": "binds the socket; lab: rescan advertises what is not bound",
    "sip-port": "binds the socket; lab: rescan advertises what is not bound",
    "rtp-ip": "calls keep the address they started with",
    "ext-sip-ip": "is part of the profile's URLs",
    "ext-rtp-ip": "is resolved when the profile starts",
    "bind-params": "binds the socket",
    "tls": "opens the TLS socket",
    "tls-sip-port": "binds the TLS socket",
    "tls-version": "is given to the TLS context at start",
    "tls-cert-dir": "is given to the TLS context at start",
    "ws-binding": "binds the socket",
    "wss-binding": "binds the socket",
    "user-agent-string": "is given to the SIP stack at start; lab: rescan does not apply it",
    "dbname": "names the database opened at start",
    "odbc-dsn": "names the database opened at start",
    "outbound-proxy": "is given to the SIP stack at start",
    "max-recv-requests-per-second": "is given to the SIP stack at start",
}

# sofia.conf global_settings that config_sofia applies on every rescan.
SOFIA_GLOBAL_RESCAN = ("log-level", "tracelevel", "debug-presence", "debug-sla")

# switch.conf settings and the fsctl word that applies them at once: (name, word, source).
SWITCH_FSCTL = (
    ("max-sessions", "max_sessions", "mod_commands.c ctl_function; lab"),
    ("sessions-per-second", "sps", "mod_commands.c ctl_function; lab"),
    ("loglevel", "loglevel", "mod_commands.c ctl_function; lab"),
    ("min-idle-cpu", "min_idle_cpu", "mod_commands.c ctl_function"),
    ("max-dtmf-duration", "max_dtmf_duration", "mod_commands.c ctl_function"),
    ("min-dtmf-duration", "min_dtmf_duration", "mod_commands.c ctl_function"),
    ("default-dtmf-duration", "default_dtmf_duration", "mod_commands.c ctl_function"),
)

# Sections whose content is looked up for every call or request: (section, action, source).
LOOKED_UP = (
    ("dialplan", ("reloadxml",), "mod_dialplan_xml.c: found per call; lab"),
    ("directory", ("reloadxml", "xml_flush_cache"), "switch_xml.c: found per request, cached"),
    ("chatplan", ("reloadxml",), "mod_sms.c: found per message"),
    ("languages", ("reloadxml",), "switch_ivr_say.c: found per phrase"),
    ("phrases", ("reloadxml",), "switch_ivr_say.c: found per phrase"),
)

# Configurations that are read again by reloadxml itself or at each use: (name, action, source).
CONFIGURATIONS = (
    ("acl.conf", ("reloadxml", "reloadacl"), "switch_core.c switch_load_network_lists; lab"),
    ("timezones.conf", ("reloadxml",), "switch_time.c event_handler on RELOADXML"),
    ("conference.conf", ("reloadxml",), "mod_conference.c: opened per conference"),
    ("ivr.conf", ("reloadxml",), "mod_dptools.c ivr_application_function: opened per call"),
)

SECRET = re.compile(r"pass(word|wd|phrase)?$|password|secret|token|a1-hash|cred|dsn$|(^|-)pin$")


def classify(old: object, new: object) -> dict:
    """Compare two loaded documents (``fsxml.load``) and return the plan that leads across.

    ``{"disruption": "none"|"reload"|"restart", "why": [sentence…], "actions": [{"do", …}…],
    "steps": [{"what", "do", "files"}…]}``; values of secrets appear as digests.
    """
    plan = _Plan(old, new)
    if old.root is None or new.root is None:
        plan.add("a tree that does not parse", "restart", ())
        return plan.result()
    _variables(plan)
    _sections(plan)
    _configurations(plan)
    return plan.result()


class _Plan:
    def __init__(self, old: object, new: object) -> None:
        self.old = old
        self.new = new
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
        order = list(ACTIONS)
        needed = sorted(self.actions, key=lambda action: order.index(action["do"]))
        classes = {ACTIONS[action["do"]] for action in needed}
        worst = next((name for name in ("restart", "reload") if name in classes), "none")
        if worst == "restart":
            needed = [{"do": "restart"}]
        # A restart is explained by what needs it; the rest comes along.
        told = [step for step in self.steps if ACTIONS[step["do"]] == worst]
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
        if after is None and _mentions(new.root, name):
            plan.add(f"variable {name} removed but still used at run time", "restart", files)
        else:
            plan.add(f"variable {_change(name, before, after)}", "reloadxml", files)


def _mentions(node: object, name: str) -> bool:
    wanted = (f"${{{name}}}", f"global_getvar {name}", f"global_getvar({name}")
    texts = [node.text, *node.attrib.values()]
    if any(mark in text for text in texts for mark in wanted):
        return True
    return any(_mentions(child, name) for child in node.children)


def _sections(plan: _Plan) -> None:
    looked_up = {name: actions for name, actions, _ in LOOKED_UP}
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
    handlers = {
        "sofia.conf": _sofia,
        "switch.conf": _switch,
        "modules.conf": _modules,
        "post_load_modules.conf": _modules,
        "event_socket.conf": _event_socket,
    }
    simple = {name: actions for name, actions, _ in CONFIGURATIONS}
    names = {
        node.attrib.get("name", "")
        for document in (plan.old, plan.new)
        for node in document.section("configuration")
    }
    fresh = _loaded(plan.new) - _loaded(plan.old)
    for name in sorted(names):
        before, after = plan.old.configuration(name), plan.new.configuration(name)
        if before is not None and after is not None and before.canonical() == after.canonical():
            continue
        files = _files([node for node in (before, after) if node is not None])
        if name in handlers and before is not None and after is not None:
            handlers[name](plan, before, after)
        elif name in simple:
            for action in simple[name]:
                plan.add(f"{name} changed", action, files)
        elif before is None and f"mod_{name.removesuffix('.conf')}" in fresh:
            plan.add(f"{name} comes with its module", "reloadxml", files)
        else:
            plan.add(f"{name} changed, which has no rule", "restart", files)


def _sofia(plan: _Plan, before: object, after: object) -> None:
    _params(
        plan,
        _first(before, "global_settings"),
        _first(after, "global_settings"),
        "sofia global settings",
        dict.fromkeys(SOFIA_GLOBAL_RESCAN, ("rescan_all", False)),
        {},
    )
    _others(plan, before, after, ("global_settings", "profiles"), "sofia.conf")
    _others(plan, _first(before, "profiles"), _first(after, "profiles"), ("profile",), "profiles")
    old, new = _named(before, "profiles", "profile"), _named(after, "profiles", "profile")
    for name in sorted(set(old) | set(new)):
        if name not in new:
            plan.add(f"profile {name} removed", "restart", _files([old[name]]))
        elif name not in old:
            plan.add(f"profile {name} added", "start", _files([new[name]]), profile=name)
        elif old[name].canonical() != new[name].canonical():
            _profile(plan, name, old[name], new[name])


def _profile(plan: _Plan, name: str, before: object, after: object) -> None:
    if before.attrib != after.attrib:
        plan.add(f"attributes of profile {name} changed", "restart", _files([before, after]))
    _params(
        plan,
        _first(before, "settings"),
        _first(after, "settings"),
        name,
        {key: ("rescan", removable) for key, removable, _ in PROFILE_RESCAN},
        PROFILE_RESTART,
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
            what = f"gateway {label}: {_param_changes(old[label], new[label])}"
            plan.add(what, "killgw", files, profile=name, gateway=label)
            plan.add(what, "rescan", files, about=label, profile=name)


def _switch(plan: _Plan, before: object, after: object) -> None:
    words = {name: word for name, word, _ in SWITCH_FSCTL}
    for name, old, new, nodes in _param_pairs(
        _first(before, "settings"), _first(after, "settings")
    ):
        what = f"{_change(name, old, new)} (switch.conf)"
        if name in words and new is not None:
            plan.add(what, "fsctl", _files(nodes), word=words[name], value=new)
        else:
            plan.add(what, "restart", _files(nodes))
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
    _others(plan, before, after, ("modules",), "modules.conf")


def _event_socket(plan: _Plan, before: object, after: object) -> None:
    """The module rereads its file when it is reloaded, which ends the calls it controls."""
    controls_calls = any(
        _has_application(node, "socket")
        for document in (plan.old, plan.new)
        for node in document.section("dialplan")
    )
    for name, old, new, nodes in _param_pairs(
        _first(before, "settings"), _first(after, "settings")
    ):
        what = f"{_change(name, old, new)} (event socket)"
        if controls_calls:
            plan.add(f"{what} while the dialplan hands calls to it", "restart", _files(nodes))
        else:
            plan.add(what, "reload_event_socket", _files(nodes))
    _others(plan, before, after, ("settings",), "event_socket.conf")


def _has_application(node: object, name: str) -> bool:
    if node.attrib.get("application") == name:
        return True
    return any(_has_application(child, name) for child in node.children)


def _params(
    plan: _Plan,
    before: object | None,
    after: object | None,
    where: str,
    known: dict[str, tuple[str, bool]],
    reasons: dict[str, str],
) -> None:
    profiles = [
        node.attrib.get("name", "")
        for node in plan.new.configuration("sofia.conf").all("profiles", "profile")
    ]
    for name, old, new, nodes in _param_pairs(before, after):
        what = f"{_change(name, old, new)} ({where})"
        action, applies_when_removed = known.get(name, ("restart", False))
        if action == "restart" or (new is None and not applies_when_removed):
            plan.add(what, "restart", _files(nodes))
        elif action == "rescan_all":
            for profile in profiles:
                plan.add(what, "rescan", _files(nodes), profile=profile)
        else:
            plan.add(what, action, _files(nodes), profile=where)
    if before is not None and after is not None:
        _others(plan, before, after, ("param",), where)


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


def _param_changes(before: object, after: object) -> str:
    pairs = _param_pairs(before, after)
    told = [_change(name, old, new) for name, old, new, _ in pairs]
    return ", ".join(told) or "changed"


def _change(name: str, old: str | None, new: str | None) -> str:
    """Say what a value was and is; of a secret only that it differs."""
    if SECRET.search(name.lower()):
        old, new = (None if value is None else _digest(value) for value in (old, new))
    if old is None:
        return f"{name} set to {new}"
    if new is None:
        return f"{name} {old} removed"
    return f"{name} {old} -> {new}"


def _digest(value: str) -> str:
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:8]
