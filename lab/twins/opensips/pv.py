"""Variables of the script: how they are written, and strings that hold some."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sip
from catalogue import CORE, MODULES

_SPEC = re.compile(r"\$(?:(?P<plain>[\w.]*\w)(?P<bracket>\(.*\))?|\((?P<whole>.*)\))\Z", re.DOTALL)
_WHOLE = re.compile(
    r"(?P<name>[\w.]+)(?:\((?P<inner>.*?)\))?(?:\[(?P<index>[^\]]*)\])?(?P<changes>(?:\{[^}]*\})*)\Z",
    re.DOTALL,
)
_IN_TEXT = re.compile(r"\$(?:\$|\((?:[^()]|\([^()]*\))*\)|[\w.]*\w(?:\((?:[^()]|\([^()]*\))*\))?)")
_NEED_INNER = frozenset(
    ("avp", "var", "shv", "hdr", "hdrcnt", "param", "dlg_val", "rl_count", "cluster.sh_tag", "env",
     "stat", "msg.flag", "branch.flag")
)  # fmt: skip
# What is known of each class of transformation; the real one knows more.
_CHANGES = {
    "s": ("len int md5 substr select encode.hexa decode.hexa encode.7bit decode.7bit escape.common"
          " unescape.common escape.user unescape.user escape.param unescape.param tolower toupper"
          " index rindex fill.left fill.right width trim trimr triml reverse dec2hex hex2dec"
          " b64encode b64decode xor eval date_format sha1 strip striptail"),
    "uri": ("user username host domain passwd password port params param headers transport ttl"
            " uparam maddr method lr r2 schema scheme method"),
    "param": "value valueat name count exist",
    "nameaddr": "name uri len param params",
    "csv": "count value",
    "ip": "family version ntop pton isip isprivate matches resolve",
    "via": ("name version transport host port comment params param branch received rport"),
    "re": "subst",
    "sdp": "line stream stream-delete",
}  # fmt: skip


@dataclass(frozen=True)
class Variable:
    """$(name(inner)[index]{change,argument})."""

    name: str
    inner: str = ""
    index: str = ""
    transformations: tuple[tuple[str, str], ...] = ()  # name, arguments


Format = tuple[str | Variable, ...]


def known(modules: Sequence[str]) -> dict[str, bool]:
    """Every variable there is with these modules, and whether it may be written."""
    found = dict(CORE.variables)
    for module in modules:
        found |= MODULES[module].variables
    return found


def parse(text: str, modules: Sequence[str]) -> Variable:
    """Read one variable; ValueError in the words of the real one."""
    match = _SPEC.match(text)
    if not match:
        raise ValueError(f"ERROR:core:pv_parse_spec: wrong char in [{text}]")
    if match["whole"] is not None:
        whole = _WHOLE.match(match["whole"])
        if not whole:
            raise ValueError(f"ERROR:core:pv_parse_spec: wrong char in [{text}]")
        name, inner, index = whole["name"], whole["inner"], whole["index"] or ""
        changes = re.findall(r"\{([^}]*)\}", whole["changes"])
    else:
        name, index, changes = match["plain"], "", []
        inner = match["bracket"][1:-1] if match["bracket"] else None
    if name not in known(modules) or (name in _NEED_INNER and not inner):
        brackets = "()" if inner is not None else ""
        raise ValueError(
            f"ERROR:core:pv_parse_spec: unknown script var ${name}{brackets},"
            " maybe a 'loadmodule' statement is missing?"
        )
    return Variable(name, inner or "", index, tuple(_change(name, change) for change in changes))


def _change(name: str, text: str) -> tuple[str, str]:
    what, _, arguments = text.partition(",")
    kind, _, function = what.partition(".")
    if function not in _CHANGES.get(kind, "").split():
        if kind in _CHANGES:
            told = f"unknown transformation: {function}/{function}/{len(function)}!"
        else:
            told = f"unknown transformation: in [{{{text}}}]"
        raise ValueError(
            f"ERROR:core:parse_transformation: {told}\n"
            f'ERROR:core:pv_parse_spec: ERROR:bad tr in pvar name "{name}"'
        )
    return what, arguments


def writable(variable: Variable, modules: Sequence[str]) -> bool:
    return known(modules).get(variable.name, False)


def parse_format(text: str, modules: Sequence[str]) -> Format:
    """A string with the variables in it taken apart; ValueError for one nobody knows."""
    parts: list[str | Variable] = []
    at = 0
    for match in _IN_TEXT.finditer(text):
        parts.append(text[at : match.start()])
        parts.append("$" if match[0] == "$$" else parse(match[0], modules))
        at = match.end()
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


# transformations


def transform(value: str | int | None, name: str, arguments: str) -> str | int | None:
    """Apply one transformation; None for what cannot be had."""
    if value is None:
        return None
    kind, _, function = name.partition(".")
    text = str(value)
    try:
        match kind:
            case "s":
                return _string(text, function, arguments)
            case "uri":
                return _uri(text, function, arguments)
            case "param":
                return _parameter(text, function, arguments)
            case "nameaddr":
                return _name_address(text, function, arguments)
            case "csv":
                parts = [part.strip() for part in text.split(",")]
                return len(parts) if function == "count" else parts[int(arguments)]
    except (ValueError, IndexError):
        return None
    return None


def can_transform(name: str) -> bool:
    """Whether this twin does it."""
    kind = name.partition(".")[0]
    return kind in ("uri", "param", "nameaddr", "csv") or name in (
        "s.len", "s.int", "s.tolower", "s.toupper", "s.substr", "s.select", "s.trim", "s.strip",
        "s.striptail", "s.index",
    )  # fmt: skip


def _string(text: str, function: str, arguments: str) -> str | int | None:
    match function:
        case "len":
            return len(text)
        case "int":
            number = re.match(r"[-+]?\d+", text)
            return int(number[0]) if number else 0
        case "tolower":
            return text.lower()
        case "toupper":
            return text.upper()
        case "trim":
            return text.strip()
        case "index":
            return text.find(arguments)
        case "strip":
            return text[int(arguments) :]
        case "striptail":
            return text[: len(text) - int(arguments)]
        case "substr":
            start, _, length = arguments.partition(",")
            first = int(start) if int(start) >= 0 else len(text) + int(start)
            return text[first : first + int(length)] if int(length or 0) else text[first:]
        case "select":
            number, _, separator = arguments.partition(",")
            return text.split(separator)[int(number)]
    return None


def _uri(text: str, function: str, arguments: str) -> str | int | None:
    uri = sip.Uri.parse(text)
    match function:
        case "user" | "username":
            return uri.user.split(":")[0] or None
        case "host" | "domain":
            return uri.host
        case "port":
            return uri.port if re.search(rf"{re.escape(uri.host)}:\d", text) else None
        case "params":
            return uri.parameters.lstrip(";")
        case "param" | "uparam":
            return _parameter(uri.parameters.lstrip(";"), "value", arguments)
        case "transport" | "ttl" | "maddr" | "method" | "lr":
            return _parameter(uri.parameters.lstrip(";"), "value", function)
        case "schema" | "scheme":
            return text.partition(":")[0]
    return None


def _parameter(text: str, function: str, arguments: str) -> str | int | None:
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    match function:
        case "count":
            return len(pairs)
        case "exist":
            return int(any(name.strip() == arguments for name, _, _ in pairs))
        case "valueat":
            return pairs[int(arguments)][2]
        case "name":
            return pairs[int(arguments)][0].strip()
    found = (value for name, _, value in pairs if name.strip() == arguments)
    return next(found, None)


def _name_address(text: str, function: str, arguments: str) -> str | int | None:
    match function:
        case "uri":
            return text.split("<", 1)[1].split(">")[0] if "<" in text else text.split(";")[0]
        case "name":
            return text.split("<", 1)[0].strip() if "<" in text else None
        case "param":
            return sip.parameter(text, arguments) or None
        case "len":
            return len(text)
    return text.rpartition(">")[2].lstrip(";") or None
