"""FreeSWITCH's configuration as FreeSWITCH reads it, line by line, traps included.

Measured on 1.10.12: a line holding <include>, </include> or <? is dropped whole, text around an
X-PRE-PROCESS on its line is lost, a commented X-PRE-PROCESS still runs, and an undefined $${name}
becomes nothing.
"""

import glob
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat

_DROPPED = ("<include>", "</include>", "<?")
_COMMAND = re.compile(r"<X-PRE-PROCESS\b", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(cmd|data)\s*=\s*(\"[^\"]*\"|'[^']*')")
_VARIABLE = re.compile(r"\$\$\{([^}]*)\}")
_MAX_DEPTH = 100
_MAX_BYTES = 64 * 1024 * 1024


class TreeError(ValueError):
    """The text between the brackets of `reloadxml`'s failure reply."""


class Tree:
    """A loaded configuration: `root` element, `variables`, `text` as in freeswitch.xml.fsxml."""

    def __init__(self, conf: Path, variables: dict[str, str]) -> None:
        self.variables = dict(variables)
        self._lines: list[str] = []
        self._size = 0
        main = conf / "freeswitch.xml"
        try:
            self._read(main, 0)
        except OSError as err:
            raise TreeError(f"Cannot Open {main}: {err.strerror}") from None
        self.text = "".join(self._lines)
        self.root = self._parse()

    def _read(self, file: Path, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise TreeError(f"include depth exceeds {_MAX_DEPTH} at {file}")
        for line in file.read_text(errors="replace").splitlines(keepends=True):
            if any(mark in line for mark in _DROPPED):
                continue
            if _COMMAND.search(line):
                self._obey(line, file, depth)
                continue
            self._lines.append(self._expand(line))
            self._size += len(line)
            if self._size > _MAX_BYTES:
                raise TreeError(f"more than {_MAX_BYTES} bytes at {file}")

    def _expand(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self.variables.get(match[1], ""), text)

    def _obey(self, line: str, file: Path, depth: int) -> None:
        """Run one X-PRE-PROCESS; whatever else stands on its line is lost."""
        attributes = {name: quoted[1:-1] for name, quoted in _ATTRIBUTE.findall(line)}
        data = self._expand(attributes.get("data", ""))
        match attributes.get("cmd", ""):
            case "set" | "stun-set" | "env-set":
                name, equals, value = data.partition("=")
                if equals:
                    self.variables[name] = value
            case "include":
                pattern = data if data.startswith("/") else str(file.parent / data)
                for found in sorted(glob.glob(pattern)):  # noqa: PTH207 (pattern may be absolute)
                    self._read(Path(found), depth + 1)
            case "exec":
                ran = subprocess.run(data.split(), capture_output=True, text=True, timeout=10)
                self._lines.append(ran.stdout)

    def _parse(self) -> ET.Element:
        builder = ET.TreeBuilder()
        parser = expat.ParserCreate()
        open_tags: list[str] = []

        def start(tag: str, attributes: dict[str, str]) -> None:
            open_tags.append(tag)
            builder.start(tag, attributes)

        def end(tag: str) -> None:
            open_tags.pop()
            builder.end(tag)

        def refuse(*_: object) -> None:
            raise TreeError(f"[error near line {parser.CurrentLineNumber}]: entities are not read")

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = builder.data
        parser.EntityDeclHandler = refuse
        try:
            parser.Parse(self.text, True)
        except expat.ExpatError as err:
            raise TreeError(
                f"[error near line {err.lineno}]: {self._reason(err, open_tags)}"
            ) from None
        return builder.close()

    def _reason(self, err: expat.ExpatError, open_tags: list[str]) -> str:
        """The real daemon's words for what expat found."""
        if err.code == expat.errors.codes[expat.errors.XML_ERROR_TAG_MISMATCH]:
            line = self.text.splitlines()[err.lineno - 1]
            closing = re.match(r"\s*([^>\s]+)", line[max(0, err.offset) :])
            return f"unexpected closing tag </{(closing[1] if closing else '').lstrip('</')}>"
        if err.code == expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS] and open_tags:
            return f"unclosed tag <{open_tags[-1]}>"
        return expat.ErrorString(err.code)

    def configuration(self, name: str) -> ET.Element | None:
        """The <configuration name="…"> element, None when there is none."""
        return self.root.find(f"./section[@name='configuration']/configuration[@name='{name}']")

    def settings(self, name: str) -> dict[str, str]:
        """The <settings> params of a configuration as a dict."""
        found = self.configuration(name)
        return params(found.find("settings")) if found is not None else {}

    def section(self, name: str) -> ET.Element:
        found = self.root.find(f"./section[@name='{name}']")
        return found if found is not None else ET.Element("section")


def params(parent: ET.Element | None) -> dict[str, str]:
    """{name: value} of the <param> children."""
    if parent is None:
        return {}
    return {p.get("name", ""): p.get("value", "") for p in parent.findall("param")}
