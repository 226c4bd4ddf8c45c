"""SIP messages as RFC 3261 writes them: parse, cut off a stream, build. No transactions here."""

import random
import re
from dataclasses import dataclass, field

_COMPACT = {
    "v": "Via", "f": "From", "t": "To", "i": "Call-ID", "m": "Contact", "l": "Content-Length",
    "c": "Content-Type", "k": "Supported", "s": "Subject",
}  # fmt: skip
_MAX_BYTES = 65_535
_MAX_HEADERS = 200
_LENGTH = re.compile(rb"\r\n(?:Content-Length|l)\s*:\s*([0-9]{1,9})\s*\r\n", re.IGNORECASE)
_URI = re.compile(
    r"^<?(?P<scheme>sips?):(?:(?P<user>[^@;?<>\s]+)@)?"
    r"(?P<host>\[[^\]]+\]|[^:;?<>\s@]+)(?::(?P<port>\d{1,5}))?(?P<parameters>[^>?]*)"
)


class SipError(ValueError):
    """A datagram that is not a SIP message, in one line."""


@dataclass(frozen=True)
class Uri:
    """The parts of a SIP URI that routing needs; port defaults to 5060."""

    user: str
    host: str
    port: int = 5060
    parameters: str = ""

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Read `sip:user@host:port;params`, in angle brackets or with a display name or bare."""
        if "<" in text:
            text = text[text.index("<") + 1 :].split(">")[0]
        match = _URI.match(text.strip())
        if not match:
            raise SipError(f"not a SIP URI: {text[:60]!r}")
        port = int(match["port"] or 5060)
        if not 0 < port < 65_536:
            raise SipError(f"port {port} is out of range")
        return cls(match["user"] or "", match["host"], port, match["parameters"])

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"sip:{user}{self.host}:{self.port}{self.parameters}"


@dataclass
class Message:
    """A request (`method`, `uri`) or a response (`status`, `reason`) with its headers in order."""

    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def is_request(self) -> bool:
        return bool(self.method)

    def get(self, name: str) -> str:
        """The first value of a header, empty when absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")

    def get_all(self, name: str) -> list[str]:
        """Every value of a header, comma lists taken apart."""
        wanted = name.lower()
        values: list[str] = []
        for key, value in self.headers:
            if key.lower() == wanted:
                values += split_list(value)
        return values

    def add(self, name: str, value: str) -> None:
        self.headers.append((name, value))

    def insert(self, name: str, value: str) -> None:
        """Put a header above all others of its kind."""
        self.headers.insert(0, (name, value))

    def set(self, name: str, value: str) -> None:
        self.remove(name)
        self.headers.append((name, value))

    def remove(self, name: str) -> None:
        wanted = name.lower()
        self.headers = [(key, value) for key, value in self.headers if key.lower() != wanted]

    def replace_list(self, name: str, values: list[str]) -> None:
        """Set a header to one line a value, in place of all its lines; none when empty."""
        self.remove(name)
        self.headers = [(name, value) for value in values] + self.headers

    @property
    def call_id(self) -> str:
        return self.get("Call-ID")

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.get("CSeq").partition(" ")
        return int(number), method.strip()

    @property
    def to_tag(self) -> str:
        return parameter(self.get("To"), "tag")

    @property
    def from_tag(self) -> str:
        return parameter(self.get("From"), "tag")

    @property
    def branch(self) -> str:
        vias = self.get_all("Via")
        return parameter(vias[0], "branch") if vias else ""

    def build(self) -> bytes:
        start = (
            f"{self.method} {self.uri} SIP/2.0"
            if self.is_request
            else f"SIP/2.0 {self.status} {self.reason}"
        )
        lines = [start]
        lines += [f"{k}: {v}" for k, v in self.headers if k.lower() != "content-length"]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body

    def copy(self) -> "Message":
        return Message(
            self.method, self.uri, self.status, self.reason, list(self.headers), self.body
        )


def split_list(value: str) -> list[str]:
    """Take a comma list apart, leaving commas inside <> and quotes alone."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, char in enumerate(value):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in "<>":
            depth += 1 if char == "<" else -1
        elif char == "," and not quoted and depth <= 0:
            parts.append(value[start:at].strip())
            start = at + 1
    parts.append(value[start:].strip())
    return [part for part in parts if part]


def parameter(value: str, name: str) -> str:
    """A header parameter's value (those behind the closing bracket), empty when absent."""
    tail = value[value.rindex(">") + 1 :] if ">" in value else value
    match = re.search(rf";\s*{re.escape(name)}\s*=\s*\"?([^;,\s\"]+)", tail, re.IGNORECASE)
    return match[1] if match else ""


def parse(datagram: bytes) -> Message:
    """Parse one datagram; SipError for anything that is not a whole SIP message."""
    if len(datagram) > _MAX_BYTES:
        raise SipError(f"{len(datagram)} bytes are too many for a datagram")
    head, separator, body = datagram.partition(b"\r\n\r\n")
    if not separator:
        raise SipError("no empty line ends the headers")
    lines = head.decode("utf-8", "replace").split("\r\n")
    message = _start_line(lines[0])
    for line in lines[1:]:
        if line[:1] in (" ", "\t") and message.headers:
            name, value = message.headers[-1]
            message.headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name or " " in name:
            raise SipError(f"header {line[:40]!r} has no name")
        message.headers.append((_COMPACT.get(name.lower(), name), value.strip()))
        if len(message.headers) > _MAX_HEADERS:
            raise SipError(f"more than {_MAX_HEADERS} headers")
    for required in ("Via", "From", "To", "Call-ID", "CSeq"):
        if not message.get(required):
            raise SipError(f"{required} is missing")
    if not re.match(r"^\d{1,10} +[A-Z]+$", message.get("CSeq")):
        raise SipError("CSeq is not a number and a method")
    length = message.get("Content-Length")
    if length:
        if not length.isdecimal() or int(length) > len(body):
            raise SipError(f"Content-Length {length[:20]!r} does not fit the body")
        body = body[: int(length)]
    message.body = body
    return message


def cut(buffer: bytearray) -> bytes | None:
    """Take the first message off a stream's buffer; None while it is not whole.

    SipError when its end cannot be known: over a stream Content-Length is not optional.
    """
    while buffer[:2] == b"\r\n":  # a keep-alive
        del buffer[:2]
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _MAX_BYTES:
            raise SipError("no empty line ends the headers")
        return None
    length = _LENGTH.search(buffer, 0, end + 2)
    if not length or int(length[1]) > _MAX_BYTES:
        raise SipError("no Content-Length that makes sense")
    whole = end + 4 + int(length[1])
    if len(buffer) < whole:
        return None
    message = bytes(buffer[:whole])
    del buffer[:whole]
    return message


def _start_line(line: str) -> Message:
    first, _, rest = line.partition(" ")
    if first == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not (code.isdecimal() and code.isascii() and 100 <= int(code) <= 699):
            raise SipError(f"status {code[:10]!r} is not 100 to 699")
        return Message(status=int(code), reason=reason)
    uri, _, version = rest.partition(" ")
    if version != "SIP/2.0" or not re.fullmatch(r"[A-Z]+", first) or not uri:
        raise SipError(f"not a SIP start line: {line[:40]!r}")
    return Message(method=first, uri=uri)


def respond(request: Message, status: int, reason: str, *, to_tag: str = "") -> Message:
    """A response to `request`: its Vias, Record-Routes, From, To, Call-ID and CSeq."""
    response = Message(status=status, reason=reason)
    kept = {"via", "from", "call-id", "cseq"} | ({"record-route"} if 100 < status < 300 else set())
    for name, value in request.headers:
        lowered = name.lower()
        if lowered in kept:
            response.add(name, value)
        elif lowered == "to":
            tagged = to_tag and not parameter(value, "tag")
            response.add(name, f"{value};tag={to_tag}" if tagged else value)
    return response


def reply_address(request: Message, source: tuple[str, int]) -> tuple[str, int]:
    """Where a response to `request` goes: its source if rport asks for that, else the Via's.

    Over TCP and TLS that is always the source: the connection it came by.
    """
    via = request.get_all("Via")[0]
    if re.search(r";\s*rport\b", via) or via.upper().startswith(("SIP/2.0/TCP", "SIP/2.0/TLS")):
        return source
    sent_by = via.split(None, 1)[1].split(";")[0] if " " in via else ""
    _, _, port = sent_by.rpartition(":")
    return source[0], int(port) if port.isdecimal() and 0 < int(port) < 65_536 else 5060


def stamp_via(request: Message, source: tuple[str, int]) -> None:
    """Note in the topmost Via where the request really came from (received, rport)."""
    for at, (name, value) in enumerate(request.headers):
        if name.lower() == "via":
            first, *rest = split_list(value)
            first = re.sub(r";\s*rport\b(?!=)", f";rport={source[1]}", first)
            if "received=" not in first:
                first += f";received={source[0]}"
            request.headers[at] = (name, ", ".join([first, *rest]))
            return


def new_branch() -> str:
    return f"z9hG4bK{random.getrandbits(64):016x}"


def new_tag() -> str:
    return f"{random.getrandbits(48):012x}"
