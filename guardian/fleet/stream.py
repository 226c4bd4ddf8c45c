"""The stream to an agent: a process of ours, requests and answers in JSON lines, started again.

Returns of jobs come between answers, and are handed on one at a time.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guardian.errors import HALTED, GuardianError


class Stream:
    """A started agent; who uses it says what to do with returns, and after a lost connection."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = _resolved(command)
        self._kept: deque[dict[str, Any]] = deque()
        self._numbers = 0
        self._start()

    def _returned(self, jid: str, minion: str, value: Any, retcode: Any) -> None:
        raise NotImplementedError

    def _reconnected(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close the stream, on which the agent ends; kill what does not."""
        if self._agent.stdin:
            with_suppressed(self._agent.stdin.close)
        try:
            self._agent.wait(5)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()

    def _start(self, patience: float = 30.0) -> None:
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=20)
        package = str(Path(__file__).resolve().parent.parent.parent)
        paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        try:
            self._agent = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
        except OSError as error:
            raise GuardianError(f"master: {self._command[0]}: {error.strerror}") from None
        threading.Thread(target=_read, args=(self._agent, self._lines), daemon=True).start()
        lines = self._agent.stderr or ()
        errors = threading.Thread(target=self._stderr.extend, args=(lines,), daemon=True)
        errors.start()
        until = time.monotonic() + patience
        while True:
            try:
                message = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                self._agent.kill()
                raise GuardianError(
                    f"master: no answer within {patience:g} s; {self._reach()}"
                ) from None
            if message is None:
                errors.join(2)
                why = self._stderr[-1].strip() if self._stderr else "the agent ended at once"
                raise GuardianError(f"master unreachable: {why[:300]}; {self._reach()}")
            if message.get("event") == "ready":
                return

    def _reach(self) -> str:
        return f"try: {' '.join(self._command[:6])} …"

    def _ask(self, operation: str, **fields: Any) -> Any:
        """One request and its answer; events that come between are kept."""
        self._numbers += 1
        number = self._numbers
        line = json.dumps({"id": number, "op": operation, **fields})
        try:
            assert self._agent.stdin is not None
            self._agent.stdin.write(line + "\n")
            self._agent.stdin.flush()
        except OSError:
            self._reconnect()
            return self._ask(operation, **fields)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            answer = self._take(1.0, number)
            if answer is None:
                continue
            if answer.get("lost"):
                return self._ask(operation, **fields)
            if answer.get("ok"):
                return answer["result"]
            raise GuardianError(f"master: {operation}: {answer.get('error')}")
        raise GuardianError(f"master: {operation}: no answer within 60 s")

    def _take(self, timeout: float, number: int | None = None) -> dict[str, Any] | None:
        """Handle one message; returned when it is the answer to request `number`.

        Whoever waits for an answer leaves returns for later: handling one may ask again, and the
        answers to two requests would be taken for one another.
        """
        if number is None and self._kept:
            message: dict[str, Any] | None = self._kept.popleft()
        else:
            try:
                message = self._lines.get(timeout=timeout)
            except queue.Empty:
                return None
        if message is None:
            self._reconnect()
            return {"lost": True} if number is not None else None
        if message.get("event") == "return":
            if number is not None:
                self._kept.append(message)
                return None
            self._returned(
                str(message.get("jid")),
                str(message.get("minion")),
                message.get("value"),
                message.get("retcode"),
            )
            return None
        return message if number is not None and message.get("id") == number else None

    def _reconnect(self) -> None:
        """Start another agent; the job cache has what was missed."""
        self.close()
        for pause in (0, 1, 2, 4, 8, 15):
            time.sleep(pause)
            try:
                self._start()
            except GuardianError as error:
                last = error
            else:
                self._reconnected()
                return
        raise GuardianError(f"{last}; the link was lost, nothing more was started", HALTED)


def with_suppressed(action: Callable[[], object]) -> None:
    """Do it, whatever an already broken pipe says."""
    try:
        action()
    except OSError:
        return


def _read(
    agent: "subprocess.Popen[str]", lines: "queue.SimpleQueue[dict[str, Any] | None]"
) -> None:
    for line in agent.stdout or ():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a banner of ssh or of a container
        if isinstance(message, dict):
            lines.put(message)
    lines.put(None)


def _resolved(command: Sequence[str]) -> list[str]:
    # `guardian lab exec …` must be this guardian, whether or not its script is on PATH.
    if command[:1] == ["guardian"]:
        return [sys.executable, "-m", "guardian", *command[1:]]
    return list(command)
