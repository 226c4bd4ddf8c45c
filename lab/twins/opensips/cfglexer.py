"""Words of an opensips.cfg with the place each stands at, includes laid in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r]+|\#[^\n]*|//[^\n]*)
    | (?P<comment>/\*.*?\*/)
    | (?P<newline>\n)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    | (?P<variable>\$(?:\([^()\n]*\)|[A-Za-z_]+(?:\([^()\n]*\))?))
    | (?P<number>\d+(?![\w.:]))
    | (?P<word>[A-Za-z_][\w]*)
    | (?P<operator>==|!=|=~|!~|<=|>=|&&|\|\||[-+*/%{}()\[\];,=!<>|&.:@])
    | (?P<other>\d[\w.]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "'": "'"}
_MAX_DEPTH = 10


class ConfigError(ValueError):
    """A configuration OpenSIPS would refuse, with file, line and column as it prints them."""


@dataclass(frozen=True)
class Token:
    """A word, its kind and where it stands."""

    kind: str
    text: str
    file: str
    line: int
    column: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}-{self.column + len(self.text)}"

    def error(self, reason: str) -> ConfigError:
        return ConfigError(f"CRITICAL:core:yyerror: parse error in {self.place}: {reason}")


def tokens(file: Path, depth: int = 0) -> Iterator[Token]:
    """Yield the tokens of a file and of those it includes, newlines among them."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"ERROR:core:flatten_opensips_cfg: include loop at {file}")
    try:
        text = file.read_text(errors="replace")
    except OSError as err:
        raise ConfigError(
            f"ERROR:core:__flatten_opensips_cfg: failed to open {file}:"
            f" {err.errno} ({err.strerror})"
        ) from None
    found = _tokens_of(text, str(file))
    for token in found:
        if token.kind == "word" and token.text in ("include_file", "import_file"):
            name = next(found, None)
            if name is None or name.kind != "string":
                raise token.error(f"{token.text} needs a file name in quotes")
            target = Path(unquote(name.text))
            yield from tokens(target if target.is_absolute() else file.parent / target, depth + 1)
        else:
            yield token


def _tokens_of(text: str, file: str) -> Iterator[Token]:
    at, line, start = 0, 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        column = at - start + 1
        if match is None:
            bad = Token("other", text[at], file, line, column)
            raise bad.error("syntax error")
        kind = match.lastgroup or ""
        if kind == "newline":
            yield Token(kind, "\n", file, line, column)
            line, start = line + 1, match.end()
        elif kind not in ("space", "comment"):
            yield Token(kind, match[0], file, line, column)
        inside = match[0].count("\n")
        if kind in ("comment", "string") and inside:
            line, start = line + inside, at + match[0].rindex("\n") + 1
        at = match.end()


def unquote(text: str) -> str:
    """The value of a quoted string."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text[1:-1])
