"""Words of an opensips.cfg with the place each stands at, includes laid in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r]+|\#[^\n]*)
    | (?P<comment>/\*.*?\*/)
    | (?P<newline>\n)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<variable>\$)
    | (?P<net>\d+\.\d+\.\d+\.\d+/\d+(?:\.\d+\.\d+\.\d+)?)
    | (?P<address>\d+\.\d+\.\d+\.\d+)
    | (?P<number>0x[0-9a-fA-F]+|\d+)
    | (?P<word>[A-Za-z]\w*)
    | (?P<operator>==|!=|=~|!~|<=|>=|<<|>>|&&|\|\||:=|\+=|-=|/=|\*=|%=|&=|\|=|\^=
        |[-+*/%{}()\[\];,=!<>|&^~.:])
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[\w.]+")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "'": "'", "a": "\a"}
_MAX_DEPTH = 10


class ConfigError(ValueError):
    """A configuration OpenSIPS would refuse, in its own words; some take several lines."""


@dataclass(frozen=True)
class Token:
    """A word, its kind and where it stands."""

    kind: str
    text: str
    file: str
    line: int
    column: int
    width: int
    included: tuple[str, ...] = ()  # the files that led here, the outermost first

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}-{self.column + self.width}"

    def error(self, *reasons: str, before: str = "") -> ConfigError:
        """What OpenSIPS prints: how it came here, the place with each reason, the lines around."""
        lines = [before] if before else []
        lines.append("CRITICAL:Traceback (last included file at the bottom):")
        lines += [f"CRITICAL:{number:2d}. {file}" for number, file in enumerate(self.included)]
        told = [f"CRITICAL:core:yyerror: parse error in {self.place}: {r}" for r in reasons]
        lines += [told[0], *self._around(), *told[1:]]
        lines.append(f"ERROR:core:parse_opensips_cfg: bad config file ({len(reasons)} errors)")
        return ConfigError("\n".join(lines))

    def _around(self) -> list[str]:
        """Two lines before, the line, a mark below it, two lines after."""
        try:
            text = Path(self.file).read_text(errors="replace").split("\n")
        except OSError:
            return []
        here = text[self.line - 1] if self.line <= len(text) else ""
        indent = here[: len(here) - len(here.lstrip())]
        mark = f"{indent}^{'~' * self.width}"
        shown = [*text[max(0, self.line - 3) : self.line], mark, *text[self.line : self.line + 2]]
        return [f"CRITICAL:{line}" for line in shown]


def tokens(file: Path, included: tuple[str, ...] = ()) -> Iterator[Token]:
    """Yield the tokens of a file and of those it includes; an `end` token is the last of all."""
    if len(included) > _MAX_DEPTH:
        raise ConfigError(f"ERROR:core:flatten_opensips_cfg: include loop at {file}")
    try:
        text = file.read_text(errors="replace")
    except OSError as err:
        raise ConfigError(
            f"ERROR:core:__flatten_opensips_cfg: failed to open {file}:"
            f" {err.errno} ({err.strerror})\n"
            f"ERROR:core:parse_opensips_cfg: failed to resolve file imports for {file}"
        ) from None
    path = (*included, str(file))
    found = _Words(text, str(file), path).read()
    token = Token("end", "", str(file), 1, 1, 0, path)
    for token in found:
        if token.kind == "word" and token.text in ("include_file", "import_file"):
            name = next(found, token)
            if name.kind != "string":
                raise name.error("syntax error")
            target = Path(unquote(name.text))
            inner = tokens(target if target.is_absolute() else file.parent / target, path)
            for token in inner:
                yield token
        elif token.kind != "open" or included:
            yield token
        if token.kind == "open":
            break  # a comment nobody closes takes in all that follows, the next files too
    if not included:
        yield Token("end", "", token.file, token.line, 1, token.column, path)


class _Words:
    """Cuts one file into tokens."""

    def __init__(self, text: str, file: str, path: tuple[str, ...]) -> None:
        self._text, self._file, self._path = text, file, path
        self._line = 1
        self._start = 0  # where the line begins; what stands in quotes on it does not count

    def _token(self, kind: str, at: int, end: int) -> Token:
        column, width = at - self._start + 1, end - at
        if kind == "variable" and self._text[end - 1] != ")":
            self._start -= 1  # the character behind is read with it and counts twice
            width += 1
        if kind == "string":  # the real lexer counts the quotes only and points at the closing one
            self._start += width - 2
            column, width = column + 1, 1
        text = self._text[at:end]
        return Token(kind, text, self._file, self._line, column, width, self._path)

    def read(self) -> Iterator[Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if self._text.startswith("/*", at) and (match is None or match["operator"]):
                yield self._token("open", at, at + 2)
                return
            if match is None:
                raise self._strange(at)
            kind = match.lastgroup or ""
            end = self._variable(match.end()) if kind == "variable" else match.end()
            if kind not in ("space", "comment", "newline"):
                yield self._token(kind, at, end)
            if kind != "string" and (newlines := self._text.count("\n", at, end)):
                self._line += newlines
                self._start = self._text.rindex("\n", at, end) + 1
            at = end

    def _strange(self, at: int) -> ConfigError:
        """What no token begins with: an open string or comment among others."""
        here = self._token("other", at, at + 1)
        if self._text[at] in "\"'":
            before = "CRITICAL:core:yylex: unexpected EOF in unclosed string"
            return here.error("syntax error", before=before)
        return here.error("syntax error")

    def _variable(self, at: int) -> int:
        """Where a variable ends: $name, $name(inner) or $(everything)."""
        if name := _NAME.match(self._text, at):
            at = name.end()
            if name[0].endswith("."):
                at -= 1
        return _closing(self._text, at) if self._text[at : at + 1] == "(" else at


def _closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one at `at`, on the same line."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] == "\n":
            break
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return at


def unquote(text: str) -> str:
    """The value of a quoted string."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text[1:-1], flags=re.DOTALL)
