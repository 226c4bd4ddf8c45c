"""FreeSWITCH's configuration as FreeSWITCH reads it, line by line, traps included.

Measured on 1.10.12: a line holding <include>, </include> or <? is dropped whole, so is all else on
the line of an X-PRE-PROCESS, a commented X-PRE-PROCESS still runs (and a comment that only names
it loses that line), an undefined $${name} becomes nothing, a variable once set outlives its line.
"""

import glob
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import xmlparse

_DROPPED = ("<include>", "</include>", "<?")
_COMMAND = re.compile(r"x-pre-process", re.IGNORECASE)
_ARGUMENTS = re.compile(r'cmd.*?=.*?"([^"]*)"?.*?data.*?=.*?"([^"]*)', re.IGNORECASE | re.DOTALL)
_COMMENTED = re.compile(r"<!--#([\w-]+)\s+(.*?)\s*(?:-->(.*)|$)", re.DOTALL)
_VARIABLE = re.compile(r"\$\$\{([^{}]*)\}")
_MAX_DEPTH = 100
_MAX_BYTES = 64 * 1024 * 1024
_MAX_FILES = 10_000
_EXEC_SECONDS = 10


class TreeError(ValueError):
    """The text between the brackets of `reloadxml`'s failure reply."""


class Tree:
    """A loaded configuration: `root` element, `text` as in freeswitch.xml.fsxml.

    `variables` are the switch's own: what the files set stays set, whether or not they parse.
    """

    def __init__(self, conf: Path, variables: dict[str, str]) -> None:
        self.variables = variables
        self._lines: list[str] = []
        self._size = self._read_files = 0
        if not self._read(conf / "freeswitch.xml", conf, 0):
            raise TreeError("Cannot Open log directory or XML Root!")
        self.text = "".join(self._lines)
        try:
            self.root = xmlparse.parse(self.text)
        except xmlparse.XmlError as err:
            raise TreeError(str(err)) from None

    def _read(self, file: Path, directory: Path, depth: int) -> bool:
        """Preprocess one file; False when it cannot be read, which only matters for the first."""
        if depth > _MAX_DEPTH:
            return False
        self._read_files += 1
        if self._read_files > _MAX_FILES:
            raise TreeError(f"more than {_MAX_FILES} includes: files that include one another?")
        try:
            with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                in_comment = False
                for line in lines:
                    in_comment = self._line(line, directory, depth, in_comment)
        except OSError:
            return False
        return True

    def _line(self, raw: str, directory: Path, depth: int, in_comment: bool) -> bool:
        """Deal with one line; whether a <!--# comment goes on behind it."""
        line = self._expand(raw)
        if any(mark in raw for mark in _DROPPED):
            return in_comment
        if in_comment:
            before, ends, line = line.partition("-->")
            if not ends:
                return True
        command = _COMMAND.search(line)
        if command:
            if line[: command.start()].endswith("<"):
                arguments = _ARGUMENTS.search(line[command.end() :].split("/>")[0])
                if arguments:
                    self._obey(arguments[1], arguments[2], directory, depth)
            return False
        before, marked, _ = line.partition("<!--#")
        if not marked:
            self._write(line)
            return False
        comment = _COMMENTED.match(line, len(before))
        self._write(before + ((comment[3] or "") if comment else ""))
        if comment:
            self._obey(comment[1], comment[2].strip('"'), directory, depth)
        return "-->" not in line[len(before) :]

    def _write(self, text: str) -> None:
        self._lines.append(text)
        self._size += len(text)
        if self._size > _MAX_BYTES:
            raise TreeError(f"more than {_MAX_BYTES} bytes: an include that includes itself?")

    def _expand(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self.variables.get(match[1], ""), text)

    def _obey(self, command: str, data: str, directory: Path, depth: int) -> None:
        name, equals, value = data.partition("=")
        match command.lower():
            case "set" if equals:
                self._set(name, value)
            case "env-set" if equals:
                self._set(name, os.environ.get(value.removeprefix("$"), ""))
            case "exec-set" if equals:
                self._set(name, self._run(value).strip())
            case "include":
                pattern = data if data.startswith("/") else f"{directory}/{data}"
                for found in sorted(glob.glob(pattern)):  # noqa: PTH207 (it may be absolute)
                    self._read(Path(found), Path(found).parent, depth + 1)
            case "exec":
                self._write(self._run(data))

    def _set(self, name: str, value: str) -> None:
        value = value.lstrip(" ")
        if value:
            self.variables[name.rstrip(" ")] = value
        else:
            self.variables.pop(name.rstrip(" "), None)

    def _run(self, command: str) -> str:
        try:
            ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True,
                                 errors="replace", timeout=_EXEC_SECONDS)  # fmt: skip
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return ""
        return ran.stdout

    def configuration(self, name: str) -> ET.Element | None:
        """The <configuration name="…"> element, None when there is none."""
        for found in self.root.iterfind("./section[@name='configuration']/configuration"):
            if found.get("name") == name:
                return found
        return None

    def settings(self, name: str) -> dict[str, str]:
        """The <settings> params of a configuration as a dict."""
        found = self.configuration(name)
        return params(found.find("settings")) if found is not None else {}

    def section(self, name: str) -> ET.Element:
        for found in self.root.iterfind("./section"):
            if found.get("name") == name:
                return found
        return ET.Element("section")


def params(parent: ET.Element | None) -> dict[str, str]:
    """{name: value} of the <param> children."""
    if parent is None:
        return {}
    return {p.get("name", ""): p.get("value", "") for p in parent.findall("param")}
