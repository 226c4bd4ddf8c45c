"""Find what is wrong with an OpenSIPS configuration, and say where: file, line and cause.

``problems`` finds what OpenSIPS itself passes over in silence. ``explain`` picks the cause out of
what it says, and finds the place in the tree where it names none. Both measured on 3.4.18.
"""

from __future__ import annotations

import ipaddress
import re

SHOWN = 3
LENGTH = 240
MOST_PORT = 65535
DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "sctp": 5060, "tls": 5061, "ws": 80, "wss": 443,
                 "bin": 5555}  # fmt: skip
# Who shares a port space: one UDP, all others TCP.
DATAGRAM = ("udp", "sctp")
DRIVERS = {"mysql": "db_mysql", "postgres": "db_postgres", "sqlite": "db_sqlite",
           "text": "db_text", "http": "db_http", "unixodbc": "db_unixodbc"}  # fmt: skip
# What a daemon says that stays up all the same, and yet does not do what the tree asks of it.
BROKEN_THOUGH_UP = re.compile(
    r"unable to start http daemon|bad uri|is not local to opensips|failed to (?:add|load|insert)"
    r"|no valid |cannot bind|could not bind|failed to bind|error at row=|TLS domain .* not"
)
# From 3.6 on a socket whose name has no address is left out, and the others serve.
_LEFT_OUT = re.compile(r"could not resolve [^\s:]+$")
_SOCKET = re.compile(r"^[ \t]*socket[ \t]*=[ \t]*(\w+):([^\s:]+)(?::([0-9*]+))?", re.MULTILINE)
_INCLUDE = re.compile(r'^[ \t]*(?:include_file|import_file)[ \t]+"([^"\n]*)"', re.MULTILINE)
_URL = re.compile(r'"(\w+)://[^"\n]*"')
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s\"]*:)[^@\s\"]+@")
_LOADED = re.compile(r'^[ \t]*loadmodule[ \t]+"(\w+)\.so"', re.MULTILINE)
_SAID = re.compile(r"\b(ERROR|CRITICAL|ALERT|EMERG|BUG|WARNING):([\w-]+):([\w<>-]+): *(.*)")
_PARSE = re.compile(r"parse error in (?P<file>\S+?):(?P<line>\d+):\d+(?:-\d+)?: *(?P<cause>.*)")
_AT = re.compile(r"(?: at|>,) (?P<file>\S+?):(?P<line>\d+)(?::\d+)?\.?$")
_SEVERE = ("ERROR", "CRITICAL", "ALERT", "EMERG", "BUG")
# What says only that something else failed.
_ECHO = re.compile(
    r"bad config file|failed to parse config|fixing failed|error while trying to (?:fix|init)"
    r"|failed to initialize|initializing .* failed|failed to init|aborting|errors? in config"
    r"|[Ff]ailed to fix configuration|error while (?:initializing|loading) modules|exiting"
    r"|failed to (?:validate|flatten|resolve file imports)|Failed to fix|check failed$"
    r"|returned with error|pre-fork function failed|init failed$|fix_socket_list|failed to load mod"
    r"|failed to (?:solve module dependencies|fork module processes)|table version check"
    r"|write\(-1\) failed|failed to send -1 status"
)
# A warning that is the only word of a fault.
_FATAL_WARNING = re.compile(r"module \w+ depends on ")
# Who speaks for another: a database driver and the core do not name the module that asked.
_SERVANT = re.compile(r"core|db_\w+")
# The true word comes before a parse error that tells something else.
_TRUER = re.compile(
    r"type mismatch|module '.*' not found|same module twice|could not open|cannot open"
    r"|failed to open|no .* module .*loaded|module dependencies"
)
_VAGUE = re.compile(r"failed to load module|^Parameter <\w+> not found")


def problems(tree: dict[str, bytes]) -> list[str]:
    """Return what OpenSIPS would not notice, ``file:line: cause`` each."""
    found = [told for path, text in _scripts(tree).items() for told in _open_ends(path, text)]
    if found:
        return found  # what follows an open comment is not what it looks like
    bare = _bare(tree)
    return [_clean(told) for told in [*_includes(bare), *_sockets(bare), *_drivers(bare)]]


def explain(said: str, tree: dict[str, bytes], *roots: str, up: bool = False) -> list[str]:
    """Return the causes in OpenSIPS's output, ``file:line: cause`` each, at most three.

    ``roots`` are the directories the tree was read from. With ``up``, only what must be right
    even though the daemon stayed up.
    """
    lines = [(m[1], m[2], m[4].strip()) for m in map(_SAID.search, said.splitlines()) if m]
    scripts = _bare(tree)
    if up:
        broken = [
            _placed(module, text, tree, scripts)
            for level, module, text in lines
            if level in _SEVERE
            and (BROKEN_THOUGH_UP.search(text) or (module == "core" and _LEFT_OUT.match(text)))
        ]
        return _unique(broken)
    causes: list[str] = []
    pending: list[tuple[str, str]] = []
    heard: list[str] = []
    for level, module, text in lines:
        parsed = _PARSE.search(text)
        if parsed:
            truer = [earlier for earlier in heard if _TRUER.search(earlier)]
            if _VAGUE.search(parsed["cause"]):
                truer = truer or [earlier for _, earlier in pending if not _ECHO.search(earlier)]
            cause = truer[-1] if truer else parsed["cause"]
            place = f"{_stripped(parsed['file'], roots)}:{parsed['line']}"
            causes.append(f"{place}: {cause}")
            break  # it quotes the file from here on, and what is in it
        at = _AT.search(text)
        if at and pending:
            place = f"{_stripped(at['file'], roots)}:{at['line']}"
            told = [earlier for _, earlier in pending if not _ECHO.search(earlier)]
            command = re.search(r"(?:command|function) (<\w+>)", f"{text} {pending[-1][1]}")
            whose = f", in {command[1]}" if command and told and command[1] not in told[0] else ""
            causes.append(f"{place}: {(told or [pending[-1][1]])[0]}{whose}")
            pending.clear()
        else:
            heard.append(text)
            if text and (level in _SEVERE or _FATAL_WARNING.search(text)):
                pending.append((module, text))
    if not causes:
        causes = [
            _placed(_asking(pending[number:]), text, tree, scripts)
            for number, (_, text) in enumerate(pending)
            if not _ECHO.search(text)
        ]
    if not causes:
        causes = [_placed(module, text, tree, scripts) for _, module, text in lines if text]
    if not causes:
        last = said.strip().splitlines()[-1:] or ["without a word"]
        causes = [f"opensips does not start with it: {last[0]}"]
    return _unique([_stripped(cause, roots) for cause in causes])


def _asking(lines: list[tuple[str, str]]) -> str:
    """Return the module that the first of these lines is about: who asked complains next."""
    if not _SERVANT.fullmatch(lines[0][0]):
        return lines[0][0]
    return next((name for name, _ in lines if not _SERVANT.fullmatch(name)), lines[0][0])


def _unique(causes: list[str]) -> list[str]:
    return list(dict.fromkeys(map(_clean, causes)))[:SHOWN]


def _clean(cause: str) -> str:
    """Return a cause as one short line without the password of a URL."""
    return _URL_PASSWORD.sub(r"\1***@", " ".join(cause.split()))[:LENGTH]


def _stripped(text: str, roots: tuple[str, ...]) -> str:
    for root in sorted(roots, key=len, reverse=True):
        text = text.replace(f"{root.rstrip('/')}/", "")
    return text


def _placed(module: str, text: str, tree: dict[str, bytes], scripts: dict[str, str]) -> str:
    """Put the place before a cause that has none, as far as the tree tells it."""
    place = _place(module, text, tree, scripts)
    return f"{place}: {text}" if place else f"{module}: {text}"


def _place(module: str, text: str, tree: dict[str, bytes], scripts: dict[str, str]) -> str:
    row = re.search(r"error at row=(\d+)", text)
    table = re.search(r"\btable '?\"?([a-z_]+)'?\"?", text)
    if row:
        # The message of the table itself follows; db_text loads what it is asked for by name.
        named = [path for path in tree if path.startswith("dbtext/")]
        bad = next((path for path in sorted(named) if _row_is_odd(tree[path], int(row[1]))), "")
        if bad:
            return f"{bad}:{row[1]}"
    if table and "version" in text:
        lines = tree.get("dbtext/version", b"").decode("utf-8", "replace").split("\n")
        told = [number for number, line in enumerate(lines, 1) if line.startswith(f"{table[1]}:")]
        named = _last(scripts, rf'^\s*modparam\(.*"{table[1]}"')
        return named or f"dbtext/version:{told[0] if told else 1}"
    if table and f"dbtext/{table[1]}" in tree:
        return f"dbtext/{table[1]}:1"
    twice = re.search(r"route <([^>]+)> is redefined", text)
    if twice:
        return _nth(scripts, rf"^\s*\w*route\s*\[\s*\"?{re.escape(twice[1])}\"?\s*\]", 2)
    if "default request routing table" in text:
        return _nth(scripts, r"^\s*route\s*\{", 2)
    bare_event = re.search(r"event_route used", text)
    if bare_event:
        return _nth(scripts, r"^\s*event_route", 1)
    protocol = re.search(r"listeners found for protocol (\w+)", text)
    if protocol:
        return _nth(scripts, rf"^\s*socket\s*=\s*{protocol[1]}:", 1)
    for word in _hosts(text):
        found = _nth(scripts, rf"^\s*socket\s*=.*{re.escape(word)}", 1)
        if found:
            return found
    column = re.search(r"no such column: (\w+)", text)
    if column:
        found = _last(scripts, rf'^\s*modparam\(.*"{column[1]}"')
        if found:
            return found
    for word in _named(text):  # as it stands in a script: an expression, a parameter, a URL
        found = _nth(scripts, re.escape(word), 1)
        if found:
            return found
    missing = re.search(r"(?:failed to initialize module|module) '?\"?(\w+?)(?:\.so)?'?\"?\b", text)
    for name in dict.fromkeys([missing[1] if missing else module, module]):
        found = _last(scripts, rf"^\s*modparam\(\s*\"{re.escape(name)}\"") or _nth(
            scripts, rf"^\s*loadmodule\s+\"{re.escape(name)}\.so\"", 1
        )
        if found:
            return found
    return ""


def _hosts(text: str) -> list[str]:
    """Return the addresses and names of hosts in a message."""
    addresses = re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text)
    return [*addresses, *re.findall(r"could not resolve (\S+)", text)]


def _named(text: str) -> list[str]:
    """Return what a message quotes, the longest first; what is in double quotes with them."""
    inner = [f'"{word}"' for word in re.findall(r'"(.+)"', text)]
    quoted = re.findall(r"[<\[(']([^<>\[\]\"'()]{4,})[>\])']", text)
    bare = re.findall(r'"([^"]{4,})"', text)
    return sorted({*inner, *quoted, *bare}, key=lambda word: (-len(word), word))


def _nth(scripts: dict[str, str], pattern: str, number: int) -> str:
    expression = re.compile(pattern, re.MULTILINE)
    for path, text in scripts.items():
        for match in expression.finditer(text):
            number -= 1
            if number == 0:
                start = match.start() + len(match[0]) - len(match[0].lstrip())
                return f"{path}:{text.count(chr(10), 0, start) + 1}"
    return ""


def _last(scripts: dict[str, str], pattern: str) -> str:
    found = ""
    for path, text in scripts.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            found = f"{path}:{text.count(chr(10), 0, match.end()) + 1}"
    return found


def _row_is_odd(content: bytes, number: int) -> bool:
    lines = content.decode("utf-8", "replace").split("\n")
    if not 1 < number <= len(lines):
        return False
    fields = re.split(r"(?<!\\):", lines[number - 1])
    kinds = [word.partition("(")[2] for word in lines[0].split()]
    return len(fields) != len(kinds) or any(
        kind.startswith("int") and field and not field.lstrip("-").isdigit()
        for kind, field in zip(kinds, fields, strict=False)
    )


def _open_ends(path: str, text: str) -> list[str]:
    """Return the comment or string of a file that no end follows, by the line it begins in."""
    at = 0
    while at < len(text):
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                return [f"{path}:{_line(text, at)}: comment without an end"]
            at = end + 2
        elif text[at] == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text[at] in "\"'":
            end = re.compile(rf"(?:\\.|[^\\{text[at]}])*{text[at]}", re.DOTALL).match(text, at + 1)
            if end is None:
                return [f"{path}:{_line(text, at)}: syntax error: string without an end"]
            at = end.end()
        else:
            at += 1
    return []


def _scripts(tree: dict[str, bytes]) -> dict[str, str]:
    return {
        path: content.decode("utf-8", "replace")
        for path, content in sorted(tree.items())
        if path.endswith(".cfg")
    }


def _bare(tree: dict[str, bytes]) -> dict[str, str]:
    """Return the scripts without their comments."""
    return {path: _without_comments(text) for path, text in _scripts(tree).items()}


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _without_comments(text: str) -> str:
    """Return a script whose comments are blank, every line where it was."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0][0] in "\"'" else re.sub(r"[^\n]", " ", match[0])

    pattern = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|#[^\n]*|/\*.*?\*/'
    return re.sub(pattern, blank, text, flags=re.DOTALL)


def _includes(scripts: dict[str, str]) -> list[str]:
    """Return includes of what is not in the tree, and of what is included already."""
    found, seen = [], {"opensips.cfg": "opensips.cfg:1"}
    for path, text in scripts.items():
        for match in _INCLUDE.finditer(text):
            at = f"{path}:{_line(text, match.start(1))}"
            name = match[1]
            if name in seen:
                found.append(f"{at}: {name} is included already, see {seen[name]}")
            elif name not in scripts:
                found.append(f"{at}: {name} is no file of this tree")
            seen.setdefault(name, at)
    return found


def _sockets(scripts: dict[str, str]) -> list[str]:
    """Return sockets that share a port, or have none there is: OpenSIPS starts with them."""
    found, taken = [], {}
    for path, text in scripts.items():
        for match in _SOCKET.finditer(text):
            line = _line(text, match.start(1))
            protocol, address = match[1], match[2]
            port = (
                int(match[3]) if (match[3] or "").isdigit() else DEFAULT_PORTS.get(protocol, 5060)
            )
            if not 0 < port <= MOST_PORT:
                found.append(
                    f"{path}:{line}: socket has port {port}; ports go from 1 to {MOST_PORT}"
                )
                continue
            key = ("udp" if protocol in DATAGRAM else "tcp", _address(address), port)
            if key in taken:
                found.append(f"{path}:{line}: socket {address}:{port} twice, see {taken[key]}")
            taken.setdefault(key, f"{path}:{line}")
        for match in re.finditer(r'modparam\("httpd",\s*"port",\s*(\d+)\)', text):
            line, port = _line(text, match.start()), int(match[1])
            clash = next(
                (at for (kind, _, p), at in taken.items() if (kind, p) == ("tcp", port)), ""
            )
            if clash:
                found.append(f"{path}:{line}: httpd port {port} is taken, see {clash}")
    return found


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _drivers(scripts: dict[str, str]) -> list[str]:
    """Return database URLs whose driver is not loaded; the trial boot replaces remote ones."""
    loaded = {name for text in scripts.values() for name in _LOADED.findall(text)}
    return [
        f"{path}:{_line(text, match.start())}: a database of {match[1]},"
        f" but {DRIVERS[match[1]]}.so is not loaded"
        for path, text in scripts.items()
        for match in _URL.finditer(text)
        if match[1] in DRIVERS
        and DRIVERS[match[1]] not in loaded
        and "db_url" in text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    ]
