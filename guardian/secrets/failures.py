"""Why a secret cannot be had; the text is one line and never holds a value."""

import re

NOT_FOUND = "not found"
DENIED = "denied"
BUSY = "busy"  # throttled, or AWS cannot be reached: it may work in a moment
UNFIT = "unfit"  # it is there, but must not be written to a file

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class SecretError(ValueError):
    """A secret cannot be had; ``reason`` says of which class that is."""

    def __init__(self, reason: str, says: str) -> None:
        super().__init__(_CONTROL.sub(" ", says))
        self.reason = reason
