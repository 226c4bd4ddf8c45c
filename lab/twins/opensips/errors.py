"""What a table or a management command can be refused with."""

from typing import Any


class TableError(ValueError):
    """A table that cannot be used, in one line."""


class MiError(Exception):
    """An error reply: code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"code": code, "message": message}
