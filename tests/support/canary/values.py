"""Canaries: values nobody would write by chance, and how to find them whatever was made of them."""

import base64
import secrets
import string
from collections.abc import Iterator

_LETTERS = string.ascii_letters + string.digits
_EDGE = 8  # characters: a secret that is shortened shows its beginning


class Canaries:
    """Values by name, and what of them would be found in bytes."""

    def __init__(
        self, prefix: str = "", marks: dict[str, list[tuple[str, bytes]]] | None = None
    ) -> None:
        self._prefix = prefix
        self._marks = {} if marks is None else marks

    def named(self, prefix: str) -> "Canaries":
        """Return the same, whose new ones are named ``prefix/name``."""
        return Canaries(f"{prefix}/", self._marks)

    def text(self, name: str) -> str:
        """Return a new value of letters and digits."""
        value = "".join(secrets.choice(_LETTERS) for _ in range(3 * _EDGE))
        self._watch(name, value[:_EDGE], value[-_EDGE:])
        return value

    def digest(self, name: str) -> str:
        """Return a new value of the form of an MD5."""
        value = secrets.token_hex(16)
        # Eight hexadecimal digits occur by chance in logs full of them.
        self._watch(name, value[:12], value[-12:])
        return value

    def pem(self, name: str, text: str) -> str:
        """Watch a private key; return it as it is."""
        lines = [line for line in text.splitlines() if len(line) == 64]
        # Of 2048 bits of RSA, what comes first is in the certificate, too.
        self._watch(name, *(line[20:44] for line in lines[7:]))
        der = base64.b64decode("".join(line for line in text.splitlines() if "-" not in line))
        self._marks[self._prefix + name] += [
            ("hex", der[at : at + 12].hex().encode()) for at in (350, 700, 1000)
        ]
        return text

    def _watch(self, name: str, *parts: str) -> None:
        name = self._prefix + name
        assert name not in self._marks, name
        self._marks[name] = [mark for part in parts for mark in _forms(part)]

    def found(self, data: bytes) -> set[str]:
        """Return which canaries are in there and how, ``name (form)``; never a value."""
        return {
            f"{name} ({form})" if form != "plain" else name
            for name, marks in self._marks.items()
            for form, mark in marks
            if mark in data
        }

    def places(self, data: bytes) -> set[str]:
        """Return the same with the line it is first in."""
        told = set()
        for name, marks in self._marks.items():
            for form, mark in marks:
                at = data.find(mark)
                if at >= 0:
                    told.add(f"line {data.count(10, 0, at) + 1}: {name} ({form})")
        return told

    def names(self) -> list[str]:
        return sorted(self._marks)


def _forms(part: str) -> Iterator[tuple[str, bytes]]:
    raw = part.encode()
    yield "plain", raw
    yield "reversed", raw[::-1]
    yield "hex", raw.hex().encode()
    yield "hex", raw.hex().upper().encode()
    for shift in range(3):
        # What stands before shifts the grid; what it shares a group with is not ours to know.
        whole = base64.b64encode(b"\0" * shift + raw)
        first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        yield "base64", whole[first:last]
