"""FreeSWITCH's log levels, put to work with Python's."""

import logging

DISABLED = -1
NAMES = ("CONSOLE", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG")
_PYTHON = (logging.CRITICAL,) * 3 + (logging.ERROR, logging.WARNING) + (logging.INFO,) * 2
_SILENT = logging.CRITICAL + 1


def number(text: str) -> int | None:
    """The number of a level given by name or number, None for a word that is neither."""
    if text.removeprefix("-").isdecimal():
        return max(0, min(int(text), len(NAMES) - 1))
    name = text.upper()
    return DISABLED if name == "DISABLE" else NAMES.index(name) if name in NAMES else None


def in_python(level: int) -> int:
    return _PYTHON[level] if level < len(_PYTHON) else logging.DEBUG


def apply(level: int) -> None:
    """Let through what is as urgent as the level; nothing at all when disabled."""
    logging.getLogger().setLevel(_SILENT if level == DISABLED else in_python(level))
