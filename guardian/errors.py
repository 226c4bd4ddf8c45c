"""What guardian may say when it stops, and the exit code that goes with it."""

OK = 0
FAILED = 1
USAGE = 2
CHANGES = 10
APPROVAL = 20
LOCKED = 21
HALTED = 30
INTERRUPTED = 130

EXIT_CODES = """\
\b
Exit codes:
  0    done, or nothing to do
  1    failed; nothing was left half way
  2    usage: unknown workspace or option, malformed guardian.yaml
  10   plan: changes are present
  20   waiting for approval (run it with --yes, or on a terminal), or for the change window
  21   locked: another run, or another terraform, holds the workspace
  30   halted or held, partly applied; `guardian resume` goes on
  130  interrupted; `guardian resume` goes on
"""


class GuardianError(Exception):
    """A refusal in one line: where, what is wrong, what mends it; `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


class UsageError(GuardianError):
    """The caller or guardian.yaml is wrong; nothing was started."""

    def __init__(self, message: str) -> None:
        super().__init__(message, USAGE)
