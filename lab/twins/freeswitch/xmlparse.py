"""XML as FreeSWITCH takes it: lenient where the standard is strict, and its own words for errors.

Measured on 1.10.12: bare ampersands, values without quotes, attributes given twice (the first
counts) and unknown entities pass; tags that do not match, a second root and open comments do not.
"""

import re
import xml.etree.ElementTree as ET

_NAME = re.compile(r"[^\t\r\n />]*")
_SPACE = re.compile(r"\s*")
_ATTRIBUTE = re.compile(r"[^\t\r\n =/>]*")
_EQUALS = re.compile(r"[\t\r\n =]*")
_CLOSING = re.compile(r"[^\t\r\n >]*")
_STARTS_NAME = re.compile(r"[A-Za-z_:\x80-\U0010ffff]")
_ENTITY = re.compile(r"&(?:#([0-9]+)|#x([0-9A-Fa-f]+)|(lt|gt|amp|quot|apos));")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class XmlError(ValueError):
    """What stands between the outer brackets of a failed `reloadxml`."""


def parse(text: str) -> ET.Element:
    """The root element; XmlError with the line and the reason, in the real daemon's words."""
    return _Parser(text).run()


def _decoded(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        decimal, hexadecimal, name = match.groups()
        if name:
            return _NAMED[name]
        digits, base = (decimal, 10) if decimal else (hexadecimal, 16)
        code = int(digits, base) if len(digits) < 10 else 0
        # What no tree can hold stays as it is written.
        valid = code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0x110000
        return chr(code) if valid else match[0]

    return _ENTITY.sub(character, text) if "&" in text else text


class _Parser:
    """One pass over the text; `_open` are the elements not closed yet."""

    def __init__(self, text: str) -> None:
        # The real parser gives up the last character, unless it ends a tag.
        self.text = text if text.endswith(">") else text[:-1]
        self.root: ET.Element | None = None
        self._open: list[ET.Element] = []

    def _error(self, at: int, why: str) -> XmlError:
        return XmlError(f"[error near line {self.text.count(chr(10), 0, at) + 1}]: {why}")

    def run(self) -> ET.Element:
        at = self.text.find("<")
        if at < 0:
            raise self._error(0, "root tag missing")
        after = at
        while 0 <= at < len(self.text):
            after = self._markup(at + 1)
            at = self.text.find("<", after)
            if at >= 0:
                self._characters(_decoded(self.text[after:at]))
        if self._open:
            raise self._error(after, f"unclosed tag <{self._open[-1].tag}>")
        if self.root is None:
            raise self._error(after, "root tag missing")
        return self.root

    def _characters(self, text: str) -> None:
        if not self._open or not text:
            return
        parent = self._open[-1]
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + text
        else:
            parent.text = (parent.text or "") + text

    def _markup(self, at: int) -> int:
        """Read what follows a `<`; the position behind its `>`."""
        text = self.text
        if _STARTS_NAME.match(text, at):
            return self._opening(at)
        if text.startswith("/", at):
            return self._closing(at)
        if text.startswith("!--", at):
            end = text.find("--", at + 3)
            if end < 0 or text[end + 2 : end + 3] != ">":
                raise self._error(at, "unclosed <!--")
            return end + 3
        if text.startswith("![CDATA[", at):
            end = text.find("]]>", at)
            if end < 0:
                raise self._error(at, "unclosed <![CDATA[")
            self._characters(text[at + 8 : end])
            return end + 3
        if text.startswith("!DOCTYPE", at):
            return self._until(at, re.compile(r"[^\[>]*(?:\[[^\]]*\]\s*)?>"), "unclosed <!DOCTYPE")
        if text.startswith("?", at):
            return self._until(at, re.compile(r".*?\?>", re.DOTALL), "unclosed <?")
        raise self._error(at, "unexpected <")

    def _until(self, at: int, end: re.Pattern[str], why: str) -> int:
        match = end.match(self.text, at)
        if not match:
            raise self._error(at, why)
        return match.end()

    def _opening(self, at: int) -> int:
        text, start = self.text, at
        if self.root is not None and not self._open:
            raise self._error(start, "markup outside of root element")
        name = _NAME.match(text, at)
        assert name is not None  # it matches nothing at all, too
        attributes: dict[str, str] = {}
        at = self._skip(_SPACE, name.end())
        while at < len(text) and text[at] not in "/>":
            end = self._skip(_ATTRIBUTE, at)
            key, value, at = text[at:end], "", end
            if at < len(text) and text[at] in "= \t\r\n":
                at = self._skip(_EQUALS, at)
                quote = text[at : at + 1]
                if quote and quote in "\"'":
                    end = text.find(quote, at + 1)
                    if end < 0:
                        raise self._error(start, f"missing {quote}")
                    value, at = re.sub(r"\s", " ", _decoded(text[at + 1 : end])), end + 1
            if key:
                attributes.setdefault(key, value)
            at = self._skip(_SPACE, at)
        empty = text.startswith("/", at)
        if not text.startswith("/>" if empty else ">", at):
            raise self._error(start, "missing >")
        self._enter(ET.Element(name[0], attributes), empty)
        return at + (2 if empty else 1)

    def _skip(self, pattern: re.Pattern[str], at: int) -> int:
        match = pattern.match(self.text, at)
        return match.end() if match else at

    def _enter(self, element: ET.Element, empty: bool) -> None:
        if self._open:
            self._open[-1].append(element)
        else:
            self.root = element
        if not empty:
            self._open.append(element)

    def _closing(self, at: int) -> int:
        end = self._skip(_CLOSING, at + 1)
        name = self.text[at + 1 : end]
        if end >= len(self.text):
            raise self._error(at + 1, "missing >")
        if not self._open or self._open[-1].tag != name:
            raise self._error(end, f"unexpected closing tag </{name}>")
        self._open.pop()
        return self._skip(_SPACE, end) + 1
