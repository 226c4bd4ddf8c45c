"""Running commands, with an error that says what the command said."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.names import LabError

_TELLING_LINES = 3


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: str | None = None,
    timeout: float = 300,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it; LabError with its last lines when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not installed: run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(words[:4])} … did not end within {timeout:.0f} s") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-_TELLING_LINES:]
        raise LabError(
            f"{' '.join(words[:6])} failed ({done.returncode}): {' | '.join(said) or 'no output'}"
        )
    return done
