"""One line a step, with the seconds since the lab began to move."""

import sys
import time

_started = time.monotonic()


def say(what: str) -> None:
    """Print a line of progress to stderr, as stdout is for data."""
    print(f"[{time.monotonic() - _started:5.1f}s] {what}", file=sys.stderr, flush=True)
