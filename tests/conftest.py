"""The order of a whole run, and what it left out."""

from collections import Counter

import pytest

_LONGEST = ("tests/lab/", "tests/integration/", "tests/functional/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits longest: files that run side by side then end together."""

    def rank(item: pytest.Item) -> int:
        room = (number for number, name in enumerate(_LONGEST) if item.nodeid.startswith(name))
        return next(room, len(_LONGEST))

    items.sort(key=rank)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip: hundreds of tests share a missing daemon."""
    reports = terminalreporter.getreports("skipped")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    for reason, count in reasons.most_common():
        terminalreporter.line(f"not run: {count} tests, {reason}")
