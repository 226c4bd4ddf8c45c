"""Read a FreeSWITCH configuration tree the way FreeSWITCH does, and say what is wrong with it.

FreeSWITCH glues its files together line by line before any XML is parsed, with rules that no
XML tool knows (src/switch_xml.c, preprocess). This file follows those rules, so that a line
FreeSWITCH would silently drop is reported instead.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from xml.parsers import expat

ROOT = "freeswitch.xml"
CONF_DIR = "/etc/freeswitch"
DEPTH_LIMIT = 64
INCLUDE_LIMIT = 100
READ_LIMIT = 5000
NODE_LIMIT = 200_000
TEXT_LIMIT = 16 * 1024 * 1024
VALUE_LIMIT = 64 * 1024  # what the variables of one line expand to
LINE_COST = 64  # what a line counts besides its characters

# Set by the daemon itself at start (switch_core.c, switch_nat.c); everything else needs a `set`.
# fmt: off
BUILT_IN = frozenset({
    "base_dir", "cache_dir", "certs_dir", "conf_dir", "core_uuid", "data_dir", "db_dir",
    "fonts_dir", "grammar_dir", "hostname", "htdocs_dir", "images_dir", "local_ip_v4",
    "local_ip_v6", "local_mask_v4", "localstate_dir", "log_dir", "mod_dir", "nat_private_addr",
    "nat_public_addr", "nat_type", "recordings_dir", "run_dir", "script_dir", "sound_prefix",
    "sounds_dir", "storage_dir", "switch_serial", "temp_dir",
})
# fmt: on

DIRECTIVE = re.compile(r"x-pre-process", re.IGNORECASE)
DIRECTIVE_ALONE = re.compile(
    r"""<X-PRE-PROCESS\s+cmd\s*=\s*"([^"]*)"\s+data\s*=\s*"([^"]*)"\s*/>""", re.IGNORECASE
)
DROPPED = ("<include>", "</include>", "<?")
REFERENCE = re.compile(r"\$\$\{([^{}]*)\}")
BARE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
INSTRUCTION = re.compile(r"<\?.*?(\?>|\Z)")
PORT = re.compile(r"[0-9]{1,5}")
GATEWAY_NAME = re.compile(r"[\w.\-]+", re.ASCII)


class Node:
    """An element of the expanded document and the file and line it came from."""

    __slots__ = ("attrib", "children", "file", "line", "name", "text")

    def __init__(self, name: str, attrib: dict[str, str], file: str, line: int) -> None:
        self.name = name
        self.attrib = attrib
        self.children: list[Node] = []
        self.text = ""
        self.file = file
        self.line = line

    def all(self, *names: str) -> list[Node]:
        """Return the descendants reached by following the element ``names`` one level each."""
        found = [self]
        for name in names:
            found = [child for node in found for child in node.children if child.name == name]
        return found

    def params(self) -> list[tuple[str, str, Node]]:
        """Return the ``param`` children as (name in lower case, value, element)."""
        return [
            (child.attrib.get("name", "").lower(), child.attrib.get("value", ""), child)
            for child in self.children
            if child.name == "param"
        ]

    def param(self, name: str, default: str = "") -> str:
        """Return the value FreeSWITCH ends up with for one ``param``: the last one wins."""
        value = default
        for key, found, _ in self.params():
            if key == name:
                value = found
        return value

    def canonical(self) -> tuple:
        """Return a value that is equal for elements FreeSWITCH cannot tell apart."""
        return (
            self.name,
            tuple(sorted(self.attrib.items())),
            self.text.strip(),
            tuple(child.canonical() for child in self.children),
        )


class Document:
    """An expanded tree: ``root`` (None if it does not parse), ``variables``, ``problems``."""

    __slots__ = ("files", "problems", "root", "set_by", "used", "variables")

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.root: Node | None = None
        self.variables: dict[str, str] = {}
        self.set_by: dict[str, str] = {}
        self.used: set[str] = set()
        self.problems: list[str] = []

    def section(self, name: str) -> list[Node]:
        """Return the children of every section ``name``."""
        if self.root is None:
            return []
        return [
            child
            for section in self.root.all("section")
            if section.attrib.get("name") == name
            for child in section.children
        ]

    def configuration(self, name: str) -> Node | None:
        """Return the configuration FreeSWITCH would open for ``name``: the first of that name."""
        for node in self.section("configuration"):
            if node.name == "configuration" and node.attrib.get("name") == name:
                return node
        return None


def load(files: dict[str, bytes], root: str = ROOT) -> Document:
    """Expand and parse a tree given as relative path -> content.

    Never raises for bad input: what is wrong is in ``problems``, one line each, as
    ``file:line: what``.
    """
    document = Document(files)
    if root not in files:
        document.problems.append(f"{root}: missing; FreeSWITCH cannot start without it")
        return document
    preprocessor = _Preprocessor(document)
    preprocessor.run(root, [])
    _parse(document, preprocessor)
    return document


def lint(files: dict[str, bytes], root: str = ROOT) -> list[str]:
    """Return everything wrong with a tree, one line each as ``file:line: what``; [] is good."""
    return check(load(files, root))


def check(document: Document) -> list[str]:
    """Return the problems of a loaded document, those of its meaning included."""
    problems = list(document.problems)
    for name in sorted(document.files):
        if name.endswith(".xml") and name not in document.used:
            problems.append(f"{name}: no include reaches it, so FreeSWITCH never reads it")
    if document.root is not None:
        problems += _duplicates(document)
        problems += _sofia(document)
        problems += _media_ports(document)
        problems += _event_socket(document)
        problems += _modules(document)
    return problems


def event_socket(files: dict[str, bytes]) -> dict[str, str | int]:
    """Return ``{"host", "port", "password"}`` of the event socket a tree configures.

    Raises ``ValueError`` naming the file when the tree does not say.
    """
    name = "autoload_configs/event_socket.conf.xml"
    content = files.get(name, b"")
    if b"$${" in content or not content:
        node = load(files).configuration("event_socket.conf")
    else:
        alone = Document({name: content})
        preprocessor = _Preprocessor(alone)
        preprocessor.run(name, [])
        _parse(alone, preprocessor)
        node = alone.root
    settings = node.all("settings") if node is not None else []
    password = settings[0].param("password") if settings else ""
    if not password:
        raise ValueError(f"{name}: no password; FreeSWITCH would fall back to the public default")
    port = settings[0].param("listen-port", "8021")
    if not PORT.fullmatch(port):
        raise ValueError(f"{name}: listen-port is not a port number; write digits")
    host = settings[0].param("listen-ip", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    return {"host": host, "port": int(port), "password": password}


def parse(text: str, what: str = "answer") -> Node:
    """Return the root of one XML text that FreeSWITCH sent. Raises ``ValueError``, one line.

    FreeSWITCH forgets to escape some values (`sofia xmlstatus`: a user name with `&`).
    """
    text = BARE_AMPERSAND.sub("&amp;", CONTROL.sub("?", text))
    document = Document({})
    source = _Preprocessor(document)
    for number, line in enumerate(text.split("\n"), 1):
        if not source.fits(line, what, number):
            break
        source.emit(line, what, number)
    _parse(document, source)
    if document.root is None:
        raise ValueError(document.problems[0])
    return document.root


def differs(wanted: Node, found: Node) -> str:
    """Return where two elements differ for FreeSWITCH, as ``file:line``; "" if nowhere.

    A value that holds a variable only the daemon knows matches anything.
    """
    same = wanted.name == found.name and len(wanted.children) == len(found.children)
    same = same and wanted.attrib.keys() == found.attrib.keys()
    same = same and _alike(wanted.text.strip(), found.text.strip())
    same = same and all(_alike(value, found.attrib[key]) for key, value in wanted.attrib.items())
    if not same:
        return _at(wanted)
    for child, other in zip(wanted.children, found.children, strict=True):
        place = differs(child, other)
        if place:
            return place
    return ""


def _alike(wanted: str, found: str) -> bool:
    return wanted == found or "$${" in wanted


class _Preprocessor:
    """Follow switch_xml.c's preprocess(): expansion, dropped lines, directives, includes."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.lines: list[str] = []
        self.origins: list[tuple[str, int]] = []
        self.size = 0
        self.read = 0
        self.told: set[str] = set()

    def run(self, name: str, stack: list[str]) -> None:
        if name in stack or len(stack) > INCLUDE_LIMIT:
            self.problem(stack[-1], 0, f"include loop through {name}")
            return
        self.read += 1
        if self.read > READ_LIMIT:  # files that include one another twice over grow without end
            if self.read == READ_LIMIT + 1:
                self.problem(name, 0, f"{READ_LIMIT} files are included before it; include once")
            return
        self.document.used.add(name)
        if self.size > TEXT_LIMIT:
            return
        content = self.document.files[name]
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            self.problem(name, 0, "not UTF-8; save it as UTF-8")
            return
        if "\0" in text or text.startswith("\ufeff"):
            self.problem(name, 0, "has a NUL or a byte order mark; remove it")
            return
        commented = False
        hidden = False
        for number, raw in enumerate(text.split("\n"), 1):
            line, undefined = self.expand(raw, name, number)
            if not self.fits(line, name, number):
                return
            commented, starts_in_comment = _comment_state(raw, commented), commented
            if any(mark in raw for mark in DROPPED):
                self.check_dropped(raw, name, number)
                continue
            if hidden:  # inside a `<!--#command` that did not end on its line
                end = line.find("-->")
                if end < 0:
                    continue
                hidden, line = False, line[end + 3 :]
            if DIRECTIVE.search(line):
                self.directive(line, raw, name, number, starts_in_comment, stack)
                continue
            if "<!--#" in line:
                self.problem(name, number, "'<!--#' is a directive; put a space after '<!--'")
                hidden = "-->" not in line[line.index("<!--#") :]
                continue
            for reference in undefined:
                if not commented and not starts_in_comment:
                    self.problem(name, number, f"$${{{reference}}} is not set before this line")
            self.emit(line, name, number)

    def fits(self, line: str, name: str, number: int) -> bool:
        """Count a line that was read; once they are too many, nothing more is."""
        if self.size <= TEXT_LIMIT:
            self.size += len(line) + LINE_COST
            if self.size > TEXT_LIMIT:
                self.problem(name, number, "the text up to here is larger than any real one")
        return self.size <= TEXT_LIMIT

    def emit(self, line: str, name: str, number: int) -> None:
        self.lines.append(line)
        self.origins.append((name, number))

    def expand(self, line: str, name: str, number: int) -> tuple[str, list[str]]:
        """Return the line with its ``$${…}`` replaced, and the names that were not set."""
        if "$${" not in line:
            return line, []
        undefined: list[str] = []
        room = VALUE_LIMIT

        def value(match: re.Match) -> str:
            nonlocal room
            variable = match.group(1)
            if variable in self.document.variables:
                found = self.document.variables[variable]
                room -= len(found)
                return found if room >= 0 else ""
            if variable in BUILT_IN:
                return CONF_DIR if variable == "conf_dir" else match.group(0)
            undefined.append(variable)
            return ""

        expanded = REFERENCE.sub(value, line)
        if room < 0:
            self.problem(
                name, number, f"its variables expand to more than {VALUE_LIMIT} characters"
            )
        rest = REFERENCE.sub("", line)
        if "$${" in rest:
            self.problem(name, number, "'$${' without its '}'")
        return expanded, undefined

    def check_dropped(self, raw: str, name: str, number: int) -> None:
        rest = raw
        for mark in ("<include>", "</include>"):
            rest = rest.replace(mark, "")
        rest = INSTRUCTION.sub(lambda match: "" if match[1] else match[0], rest)
        if rest.strip():
            self.problem(
                name, number, "FreeSWITCH drops a line with <include> or <? whole; split it"
            )

    def directive(
        self, line: str, raw: str, name: str, number: int, commented: bool, stack: list[str]
    ) -> None:
        match = DIRECTIVE_ALONE.search(line)
        if "<!--" in raw or commented:
            self.problem(name, number, "X-PRE-PROCESS runs although commented out; delete it")
        elif match is None:
            self.problem(
                name, number, "X-PRE-PROCESS needs cmd and data, in that order, on one line"
            )
        elif match.group(0) != line.strip():
            self.problem(name, number, "X-PRE-PROCESS must be alone on its line; the rest is lost")
        if match is None or line[: match.start()].endswith("</"):
            return
        command, data = match.group(1).lower(), match.group(2)
        for reference in REFERENCE.findall(raw):
            if reference not in self.document.variables and reference not in BUILT_IN:
                self.problem(name, number, f"$${{{reference}}} is not set before this line")
        if command == "set":
            variable, equals, value = data.partition("=")
            if not equals:
                self.problem(name, number, "set needs name=value")
                return
            self.document.variables[variable.rstrip(" ")] = value.lstrip(" ")
            self.document.set_by[variable.rstrip(" ")] = name
        elif command == "include":
            self.include(data, name, number, stack)
        elif command in ("exec", "exec-set", "stun-set", "env-set"):
            self.problem(
                name, number, f"{command} makes a start depend on the outside; use set from pillar"
            )
        else:
            self.problem(name, number, f"X-PRE-PROCESS cmd {command!r} is not one FreeSWITCH knows")

    def include(self, pattern: str, name: str, number: int, stack: list[str]) -> None:
        if pattern.startswith(CONF_DIR + "/"):
            pattern = pattern[len(CONF_DIR) + 1 :]
        elif pattern.startswith("/") or "$${" in pattern:
            self.problem(name, number, f"include of {pattern} leads out of the tree")
            return
        else:
            pattern = posixpath.join(posixpath.dirname(name), pattern)
        pattern = posixpath.normpath(pattern)
        if pattern.startswith(".."):
            self.problem(name, number, "include leads out of the tree")
            return
        found = _glob(self.document.files, pattern)
        directory = posixpath.dirname(pattern)
        if not found and not any(mark in pattern for mark in "*?["):
            self.problem(name, number, f"included file {pattern} does not exist")
        elif directory and not any(
            file.startswith(f"{directory}/") for file in self.document.files
        ):
            # glob(3) fails on a directory that is missing, and FreeSWITCH logs an error
            self.problem(name, number, f"included directory {directory} does not exist")
        for included in found:
            self.run(included, [*stack, name])

    def problem(self, name: str, number: int, what: str) -> None:
        where = f"{name}:{number}" if number else name
        line = f"{where}: {what}"
        if line not in self.told:
            self.told.add(line)
            self.document.problems.append(line)


def _parse(document: Document, source: _Preprocessor) -> None:
    """Build the element tree with expat; document types and entities are refused."""
    if source.size > TEXT_LIMIT:
        return
    parser = expat.ParserCreate("UTF-8")
    stack: list[Node] = []
    count = 0

    def origin() -> tuple[str, int]:
        index = min(parser.CurrentLineNumber, len(source.origins)) - 1
        return source.origins[index] if source.origins else (ROOT, 0)

    def start(name: str, attrib: dict[str, str]) -> None:
        nonlocal count
        count += 1
        file, line = origin()
        if len(stack) >= DEPTH_LIMIT or count > NODE_LIMIT:
            raise ValueError(f"{file}:{line}: nested deeper or larger than any real configuration")
        node = Node(name, attrib, file, line)
        if stack:
            stack[-1].children.append(node)
        else:
            document.root = node
        stack.append(node)

    def end(_: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        if stack:
            stack[-1].text += data

    def refuse(*_: object) -> None:
        file, line = origin()
        raise ValueError(f"{file}:{line}: document types and entities are not allowed")

    text_source = "\n".join(source.lines).encode("utf-8", "replace")
    parser.buffer_text = True
    parser.buffer_size = 256 * 1024
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text_source, True)
    except expat.ExpatError as err:
        index = min(err.lineno, len(source.origins)) - 1
        file, line = source.origins[index] if source.origins else (ROOT, 0)
        unclosed = f" (<{stack[-1].name}> of {stack[-1].file}:{stack[-1].line})" if stack else ""
        reason = expat.errors.messages.get(err.code, "not well-formed")
        document.problems.append(f"{file}:{line}: {reason}{unclosed}")
        document.root = None
    except ValueError as err:
        document.problems.append(str(err))
        document.root = None


def _glob(files: dict[str, bytes], pattern: str) -> list[str]:
    """Return what glob(3) would: path components match one by one, in byte order."""
    parts = pattern.split("/")
    found = []
    for name in files:
        pieces = name.split("/")
        if len(pieces) == len(parts) and all(
            fnmatch.fnmatchcase(piece, part) and (part.startswith(".") or not piece.startswith("."))
            for piece, part in zip(pieces, parts, strict=True)
        ):
            found.append(name)
    return sorted(found)


def _comment_state(line: str, inside: bool) -> bool:
    position = 0
    while True:
        mark = "-->" if inside else "<!--"
        position = line.find(mark, position)
        if position < 0:
            return inside
        position += len(mark)
        inside = not inside


def _at(node: Node) -> str:
    return f"{node.file}:{node.line}"


def _duplicates(document: Document) -> list[str]:
    problems = []
    seen: dict[str, Node] = {}
    for node in document.section("configuration"):
        name = node.attrib.get("name", "")
        if name in seen:
            problems.append(
                f"{_at(node)}: configuration {name} again; FreeSWITCH reads only {_at(seen[name])}"
            )
        seen.setdefault(name, node)
    return problems


def _sofia(document: Document) -> list[str]:
    sofia = document.configuration("sofia.conf")
    if sofia is None:
        return []
    problems = []
    profiles: dict[str, Node] = {}
    gateways: dict[str, Node] = {}
    sockets: dict[tuple[str, str, str], tuple[str, Node]] = {}
    lists = {
        node.attrib.get("name", "")
        for acl in [document.configuration("acl.conf")]
        if acl is not None
        for node in acl.all("network-lists", "list")
    }
    for profile in sofia.all("profiles", "profile"):
        name = profile.attrib.get("name", "")
        if name in profiles:
            problems.append(f"{_at(profile)}: profile {name} again, after {_at(profiles[name])}")
        profiles.setdefault(name, profile)
        for container in ("settings", "gateways", "domains", "aliases"):
            if len(profile.all(container)) > 1:
                problems.append(f"{_at(profile)}: only the first <{container}> is ever read")
        settings = profile.all("settings")
        if not settings:
            problems.append(f"{_at(profile)}: profile {name} has no settings")
            continue
        for gateway in profile.all("gateways", "gateway"):
            label = gateway.attrib.get("name", "")
            if not GATEWAY_NAME.fullmatch(label):
                problems.append(f"{_at(gateway)}: gateway name {label!r} may hold only A-Z0-9_.-")
            if label in gateways:
                problems.append(
                    f"{_at(gateway)}: gateway {label} again, after {_at(gateways[label])}; "
                    "names are shared by all profiles"
                )
            gateways.setdefault(label, gateway)
        for key, socket in _sockets(settings[0]):
            other = sockets.get(socket)
            if other is not None:
                problems.append(
                    f"{_at(settings[0])}: {key} {socket[1]}:{socket[2]} of profile {name} is "
                    f"taken by profile {other[0]}"
                )
            sockets.setdefault(socket, (name, settings[0]))
        for key, value, node in settings[0].params():
            if (
                key in ("apply-inbound-acl", "apply-nat-acl", "apply-register-acl")
                and value
                and value != "none"
                and not value.endswith(".auto")
                and not re.fullmatch(r"[0-9a-fA-F.:/]+", value)
                and value not in lists
            ):
                problems.append(f"{_at(node)}: {key} names list {value!r}, which acl.conf lacks")
    return problems


def _sockets(settings: Node) -> list[tuple[str, tuple[str, str, str]]]:
    """Return (parameter, (transport, address, port)) of each socket a profile would open."""
    address = settings.param("sip-ip", "*")
    found = []
    tls = settings.param("tls", "false").lower() in ("true", "yes", "on", "1")
    if settings.param("tls-only", "false").lower() not in ("true", "yes", "on", "1"):
        found.append(("sip-port", ("sip", address, settings.param("sip-port", "5060"))))
    if tls:
        found.append(("tls-sip-port", ("sip", address, settings.param("tls-sip-port", "5061"))))
    for key in ("ws-binding", "wss-binding"):
        value = settings.param(key)
        if value:
            host, _, port = value.rpartition(":")
            found.append((key, ("sip", host or address, port)))
    return found


def _media_ports(document: Document) -> list[str]:
    """A profile's UDP port among those for media is taken from it by a call, or the reverse."""
    switch, sofia = map(document.configuration, ("switch.conf", "sofia.conf"))
    settings = switch.all("settings") if switch is not None else []
    ends = [settings[0].param(f"rtp-{end}-port") for end in ("start", "end")] if settings else []
    if sofia is None or not ends or not all(map(PORT.fullmatch, ends)):
        return []
    first, last = map(int, ends)
    problems = []
    if first >= last:
        problems.append(f"{_at(settings[0])}: rtp-start-port {first} is not below rtp-end-port")
    for profile in sofia.all("profiles", "profile"):
        for node in profile.all("settings")[:1]:
            for key, (_, _, port) in _sockets(node):
                if key == "sip-port" and PORT.fullmatch(port) and first <= int(port) <= last:
                    problems.append(
                        f"{_at(node)}: sip-port {port} of profile {profile.attrib.get('name', '')} "
                        f"is one of the media ports {first}-{last}"
                    )
    return problems


def _event_socket(document: Document) -> list[str]:
    node = document.configuration("event_socket.conf")
    if node is None:
        return []
    settings = (node.all("settings") or [Node("settings", {}, node.file, node.line)])[0]
    problems = []
    password = settings.param("password")
    if password in ("", "ClueCon"):
        problems.append(
            f"{_at(node)}: event socket password is absent or the public default; "
            "set freeswitch:esl_password in pillar"
        )
    if settings.param("listen-ip", "::") not in ("127.0.0.1", "::1"):
        problems.append(f"{_at(node)}: event socket must listen on 127.0.0.1 or ::1 only")
    return problems


def _modules(document: Document) -> list[str]:
    node = document.configuration("modules.conf")
    if node is None:
        return ["autoload_configs/modules.conf.xml: missing; no module would be loaded"]
    problems = []
    seen: set[str] = set()
    for module in node.all("modules", "load"):
        name = module.attrib.get("module", "")
        if name in seen:
            problems.append(f"{_at(module)}: {name} is loaded twice")
        seen.add(name)
    return problems
