"""A token bucket that all processes of a master share, below what AWS grants the account."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from guardian.secrets import place
from guardian.secrets.failures import BUSY, SecretError

_STATE = struct.Struct("dd")


class Bucket:
    """``rate`` calls a second, and a quarter of that at once after a pause."""

    def __init__(self, file: Path, rate: float) -> None:
        self._file, self._rate, self._burst = file, rate, max(1.0, rate / 4)

    def take(self, deadline: float) -> None:
        """Wait for one's turn; SecretError (busy) at once when that is after ``deadline``."""
        with place.locked(self._file, deadline):
            tokens = self._tokens()
            wait = max(0.0, 1 - tokens) / self._rate
            if time.monotonic() + wait > deadline:
                raise SecretError(BUSY, f"no turn in time at {self._rate:g} calls a second")
            self._store(tokens - 1)
        time.sleep(wait)

    def drain(self) -> None:
        """Take all tokens away: AWS says that everybody is too fast."""
        with place.locked(self._file, time.monotonic() + 1):
            self._store(min(self._tokens(), 0.0))

    def _tokens(self) -> float:
        content = self._file.read_bytes()
        if len(content) != _STATE.size:
            return self._burst
        tokens, at = _STATE.unpack(content)
        return float(min(self._burst, tokens + (time.monotonic() - at) * self._rate))

    def _store(self, tokens: float) -> None:
        handle = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(handle, _STATE.pack(tokens, time.monotonic()), 0)
        finally:
            os.close(handle)
