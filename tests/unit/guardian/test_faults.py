"""The fault matrix as operators read it: each row is shown by a test, and each test has a row."""

import ast
import errno
import os
import re
from pathlib import Path

import pytest

from guardian import journal
from guardian.errors import GuardianError
from tests.support.region import REPOSITORY

PAGE = REPOSITORY / "docs" / "faults.md"
FILES = {
    "stacks": "tests/integration/test_faults_stacks.py",
    "salt": "tests/integration/test_faults_salt.py",
    "rollout": "tests/integration/test_faults_rollout.py",
    "unit": "tests/unit/guardian/test_faults.py",
    "records": "tests/unit/guardian/test_records.py",
    "locks": "tests/unit/guardian/test_locks.py",
    "rebuilt": "tests/integration/test_master_rebuilt.py",
}


def rows() -> list[list[str]]:
    """Cells of every row of every table of the page, without the headings."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in found if row[0] != "What happened" and set(row[0]) != {"-"}]


def defined(name: str) -> set[str]:
    tree = ast.parse((REPOSITORY / FILES[name]).read_text())
    found = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    return {one for one in found if one.startswith("test_")}


def named(row: list[str]) -> list[tuple[str, str]]:
    return re.findall(r"(\w+): `(test_\w+)`", row[-1])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_row_says_all_and_names_a_test_that_exists(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    assert named(row)
    for file, test in named(row):
        assert test in defined(file)


def test_every_fault_that_is_tested_is_on_the_page() -> None:
    shown = {pair for row in rows() for pair in named(row)}
    kept = {(file, test) for file in ("stacks", "salt", "rollout") for test in defined(file)}
    assert kept <= shown


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, 0], ids=["full", "broken", "short"])
def test_half_a_line_on_a_full_disk_damages_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    book = journal.Journal(tmp_path / "journal.jsonl", "run", lambda: 1.5)
    book.add("run")
    real = os.write

    def full(handle: int, line: bytes) -> int:
        written = real(handle, line[: len(line) // 2])
        if fault:
            raise OSError(fault, os.strerror(fault))
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(GuardianError, match=r"nothing more was started, (make room|resume)"):
        book.add("intent")
    monkeypatch.setattr(os, "write", real)
    book.add("end")
    book.close()
    assert [entry["type"] for entry in journal.read(book.path)] == ["run", "end"]
