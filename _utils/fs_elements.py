"""Change one element of a FreeSWITCH configuration tree and leave every other line as it is.

Each function takes a tree, relative path -> content, and returns another. ``ValueError`` when the
tree has no place for the element.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import quoteattr

MODULES = "autoload_configs/modules.conf.xml"
SWITCH = "autoload_configs/switch.conf.xml"
LISTS = "autoload_configs/acl.conf.xml"
INCLUDE = """  <gateways>
    <X-PRE-PROCESS cmd="include" data="{}/*.xml"/>
  </gateways>
"""  # as sip_profiles/profile.xml.jinja has it
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
UNFIT = re.compile(r"[\x00-\x1f\x7f]|\$\$\{|x-pre-process", re.IGNORECASE)

Tree = dict[str, bytes]


def with_gateway(tree: Tree, name: str, profile: str, params: dict) -> Tree:
    """Have a gateway with these parameters in a profile, and in no other."""
    lines = [f"<gateway name={_attribute(_name(name))}>"]
    for key, value in params.items():
        lines += [
            f"  <param name={_attribute(key)} value={_attribute(one)}/>"
            for one in (value if isinstance(value, list) else [value])
        ]
    if f"sip_profiles/{_name(profile)}.xml" not in tree:
        raise ValueError(f"profile {profile} is not configured; name one of sip_profiles/")
    content = "\n".join([*lines, "</gateway>", ""]).encode()
    rest = _without_file(tree, name)
    return _with_includes({**rest, f"sip_profiles/{profile}/{name}.xml": content})


def without_gateway(tree: Tree, name: str) -> Tree:
    """Have no gateway of that name."""
    return _with_includes(_without_file(tree, name))


def _without_file(tree: Tree, name: str) -> Tree:
    file = re.compile(rf"sip_profiles/[^/]+/{re.escape(_name(name))}\.xml")
    return {path: content for path, content in tree.items() if not file.fullmatch(path)}


def _with_includes(tree: Tree) -> Tree:
    """Have each profile include its gateways if it has any: a missing directory is an error."""
    changed = dict(tree)
    for path, content in tree.items():
        match = re.fullmatch(r"sip_profiles/([^/]+)\.xml", path)
        if match is None:
            continue
        block = INCLUDE.format(match[1])
        text = content.decode().replace(block, "")
        if any(other.startswith(f"sip_profiles/{match[1]}/") for other in tree):
            head, end, rest = text.partition(">\n")
            text = f"{head}{end}{block}{rest}"
        changed[path] = text.encode()
    return changed


def with_profile(tree: Tree, name: str, params: dict) -> Tree:
    """Have a profile, which must be there already, with these parameters and all its others."""
    path = f"sip_profiles/{_name(name)}.xml"
    head, opening, rest = _text(tree, path).partition("<settings>\n")
    settings, closing, tail = rest.partition("  </settings>")
    if not closing:
        raise ValueError(f"{path}: has no <settings> on lines of their own")
    for key, value in params.items():
        lines = "".join(
            f"    <param name={_attribute(key)} value={_attribute(one)}/>\n"
            for one in (value if isinstance(value, list) else [value])
        )
        given = re.compile(rf'^ *<param name="{re.escape(key)}" value="[^"]*"/>\n', re.MULTILINE)
        at = found.start() if (found := given.search(settings)) else len(settings)
        settings = settings[:at] + lines + given.sub("", settings[at:])
    return {**tree, path: "".join((head, opening, settings, closing, tail)).encode()}


def with_module(tree: Tree, name: str) -> Tree:
    """Have a module loaded, after all others."""
    line = f'<load module="{_name(name)}"/>'
    if line in _text(tree, MODULES):
        return tree
    return _before(tree, MODULES, "</modules>", f"  {line}\n  ")


def without_module(tree: Tree, name: str) -> Tree:
    """Have a module not loaded."""
    line = re.compile(rf'\s*<load module="{re.escape(_name(name))}"/>')
    return {**tree, MODULES: line.sub("", _text(tree, MODULES)).encode()}


def with_setting(tree: Tree, name: str, value: object) -> Tree:
    """Have a setting of switch.conf, which must be there already."""
    pattern = re.compile(rf'(<param name="{re.escape(name)}" value=)"[^"]*"')
    text, count = pattern.subn(lambda m: m[1] + _attribute(value), _text(tree, SWITCH))
    if count != 1:
        raise ValueError(f"{SWITCH}: no setting {name} to change")
    return {**tree, SWITCH: text.encode()}


def with_list(tree: Tree, name: str, allow: list[str], deny: list[str]) -> Tree:
    """Have an access list that denies by default and allows these networks."""
    lines = [f'    <list name={_attribute(_name(name))} default="deny">']
    for kind, networks in (("deny", deny), ("allow", allow)):
        lines += [f'      <node type="{kind}" cidr={_attribute(one)}/>' for one in networks]
    block = "\n".join([*lines, "    </list>"])
    pattern = re.compile(rf' *<list name="{re.escape(name)}"[^>/]*(/>|>.*?</list>)', re.DOTALL)
    text, count = pattern.subn(lambda _: block, _text(tree, LISTS))
    if count:
        return {**tree, LISTS: text.encode()}
    return _before(tree, LISTS, "</network-lists>", f"{block.lstrip()}\n  ", indent="  ")


def _before(tree: Tree, path: str, mark: str, addition: str, indent: str = "") -> Tree:
    text = _text(tree, path)
    if mark not in text:
        raise ValueError(f"{path}: has no {mark}; apply freeswitch.configured first")
    return {**tree, path: text.replace(mark, f"{indent}{addition}{mark}", 1).encode()}


def _text(tree: Tree, path: str) -> str:
    if path not in tree:
        raise ValueError(f"{path}: missing; apply freeswitch.configured first")
    return tree[path].decode()


def _name(name: object) -> str:
    if not NAME.fullmatch(str(name)):
        raise ValueError("a name may hold only letters, digits and ._-")
    return str(name)


def _attribute(value: object) -> str:
    """Return a value between quotes, as FreeSWITCH reads it back."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if UNFIT.search(text):
        raise ValueError("a value holds a control character, '$${' or a directive")
    return quoteattr(text, {'"': "&quot;"})
