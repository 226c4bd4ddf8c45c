"""Progress in three dresses: a table on a terminal, plain lines with a heartbeat, JSON lines.

Progress goes to stderr, results to stdout, so that a pipe gets the result alone; JSON lines carry
both, on stdout, each with `v` and `type`.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

VERSION = 1
_HEARTBEAT = 30.0


class _Steady:
    """A stream that outlives its reader: a deploy does not end because `| head` has."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        # What is buffered goes nowhere, too, or the interpreter would stumble over it at its end.
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
            self._stream.flush()


class Progress:
    """Plain lines: one a transition, and one every 30 s of silence, for a log that is watched."""

    def __init__(self, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
        self._out, self._err = cast(TextIO, _Steady(out)), cast(TextIO, _Steady(err))
        self._last = self._start = time.monotonic()
        self._doing = "starting"
        self._shown: dict[str, str] = {}
        self._closed = threading.Event()

    def __enter__(self) -> "Progress":
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()

    def say(self, text: str) -> None:
        """What is being done now."""
        self._doing = text
        self._line(text)

    def stack(self, stack: str, state: str, detail: str = "") -> None:
        """A transition of a stack."""
        self._doing = f"stack {stack} {state}"
        self._line(f"stack {stack}: {state}{_tail(detail)}")

    def node(self, minion: str, step: str, detail: str = "") -> None:
        """A transition of a node; a wait that only counts down is a line every few seconds."""
        name = minion.partition(".")[0]
        self._doing = f"{name} {step}{_tail(detail)}"
        if self._shown.get(minion) == step and time.monotonic() - self._last < 5:
            return
        self._shown[minion] = step
        self._line(f"{name}: {step}{_tail(detail)}")

    def result(self, kind: str, lines: list[str], **data: Any) -> None:
        """A result: lines for a person, data for a program."""
        print("\n".join(lines), file=self._out, flush=True)

    def ask(self, question: str) -> bool:
        """A yes or no from the person at the terminal; end of input is a no."""
        print(f"{question} [y/N] ", end="", file=self._err, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._err, flush=True)

    def _beat(self) -> None:
        while not self._closed.wait(1.0):
            if time.monotonic() - self._last >= _HEARTBEAT:
                passed = int(time.monotonic() - self._start)
                self._line(f"still at it after {passed} s: {self._doing}")


class JsonLines(Progress):
    """One JSON object a line on stdout."""

    def say(self, text: str) -> None:
        self._object("say", text=text)

    def stack(self, stack: str, state: str, detail: str = "") -> None:
        self._object("stack", stack=stack, state=state, detail=detail)

    def node(self, minion: str, step: str, detail: str = "") -> None:
        self._object("node", minion=minion, step=step, detail=detail)

    def result(self, kind: str, lines: list[str], **data: Any) -> None:
        self._object(kind, **data)

    def _object(self, kind: str, **data: Any) -> None:
        self._last = time.monotonic()
        line = {"v": VERSION, "type": kind, "ts": round(time.time(), 3), **data}
        print(json.dumps(line, separators=(",", ":")), file=self._out, flush=True)

    def _beat(self) -> None:
        """A program that reads lines needs no heartbeat."""


class Table(Progress):
    """One table on a terminal, redrawn; rich is imported here and nowhere else."""

    def __enter__(self) -> "Table":
        from rich.console import Console
        from rich.live import Live

        self._rows: dict[str, tuple[str, str, float]] = {}
        self._ending: list[str] = []
        self._live = Live(
            console=Console(file=self._err), refresh_per_second=4, get_renderable=self._table
        )
        self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.stop()
        # The last screen comes last: below the table, not above it.
        print("\n".join(self._ending), file=self._out, flush=True)

    def say(self, text: str) -> None:
        self._doing = text

    def stack(self, stack: str, state: str, detail: str = "") -> None:
        self._row(f"stack {stack}", state, detail)

    def node(self, minion: str, step: str, detail: str = "") -> None:
        if not minion:
            self._doing = f"{step}: {detail}"
            return
        self._doing = f"{minion.partition('.')[0]} {step}"
        self._row(minion.partition(".")[0], step, detail)

    def result(self, kind: str, lines: list[str], **data: Any) -> None:
        from rich.text import Text

        if kind in ("end", "plan"):
            self._ending += lines
            return
        # Text, not markup: a state's comment may hold square brackets.
        self._live.console.print(Text("\n".join(lines)))

    def ask(self, question: str) -> bool:
        self._live.stop()
        try:
            return super().ask(question)
        finally:
            self._live.start()

    def _row(self, name: str, step: str, detail: str) -> None:
        old = self._rows.get(name)
        since = old[2] if old and old[0] == step else time.monotonic()
        self._rows[name] = (step, detail, since)

    def _table(self) -> Any:
        from rich.table import Table as Grid
        from rich.text import Text

        now = time.monotonic()
        grid = Grid(box=None, padding=(0, 2, 0, 0), title=None, expand=False)
        for heading in ("", "step", "for", ""):
            grid.add_column(heading, style="dim" if heading == "for" else None)
        for name, (step, detail, since) in sorted(self._rows.items()):
            style = _STYLE.get(step, "cyan")
            ended = step in _STYLE
            passed = "" if ended else f"{int(now - since)} s"
            grid.add_row(name, Text(step, style=style), passed, Text(detail[:90]))
        grid.add_row("", "", "", "")
        grid.caption = Text(f"{int(now - self._start)} s  {self._doing}")
        return grid


_STYLE = {
    "done": "green",
    "applied": "green",
    "unchanged": "dim",
    "held": "yellow",
    "failed": "bold red",
    "unknown": "bold red",
}


def choose(as_json: bool) -> Progress:
    """JSON when asked for, a table on a terminal, plain lines otherwise."""
    if as_json:
        return JsonLines()
    return Table() if sys.stderr.isatty() and sys.stdout.isatty() else Progress()


def _tail(detail: str) -> str:
    return f" ({detail})" if detail else ""
