"""What the running daemon was last told, and whether the disk changed under it."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

FILES = {"freeswitch.xml": b"<document/>\n", "sip_profiles/a.xml": "grüße".encode()}
SYSTEM = {"/etc/default/freeswitch": "0" * 64}


@pytest.fixture(scope="session")
def record():
    return load("_utils/running_record.py")


@pytest.fixture
def written(record, tmp_path):
    """A function that writes a note, changed as the test wants, and returns its path."""

    def write(**changes):
        note = json.loads(record.encode("life-1", FILES, SYSTEM, 3))
        path = tmp_path / "freeswitch.running.json"
        path.write_text(json.dumps({**note, **changes}))
        return str(path)

    return write


def test_what_was_told_is_read_back(record, written):
    assert record.read(written(), "life-1") == {"files": FILES, "system": SYSTEM, "reloads": 3}


def test_another_life_was_told_nothing(record, written):
    assert record.read(written(), "life-2") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"life": None},
        {"files": None},
        {"files": ["a"]},
        {"files": {"a": 1}},
        {"files": {"a": "\udc80"}},
        {"system": 7},
        {"system": "ab"},
        {"reloads": "many"},
        {"reloads": None},
        {"reloads": float("inf")},
    ],
    ids=str,
)
def test_note_of_another_shape_is_none(record, written, changes):
    assert record.read(written(**changes), "life-1") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"7", b"{}", b"\xff\xfe", b'{"life": "life-1"}', b"[" * 100_000],
    ids=lambda content: repr(content[:10]),
)
def test_note_that_is_none(record, tmp_path, content):
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert record.read(str(path), "life-1") is None
    assert record.read(str(tmp_path), "life-1") is None
    assert record.read(str(tmp_path / "missing"), "life-1") is None


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20)), st.integers(0, 9))
def test_any_tree_comes_back(record, tmp_path_factory, files, reloads):
    path = tmp_path_factory.getbasetemp() / "any.json"
    try:
        tree = {name: text.encode() for name, text in files.items()}
    except UnicodeEncodeError:
        return
    path.write_bytes(record.encode("x", tree, {}, reloads))
    assert record.read(str(path), "x") == {"files": tree, "system": {}, "reloads": reloads}


def test_changes_are_seen_at_any_depth(record, tmp_path):
    """By the time of the change of status: a copy that keeps its old date is a change too."""
    deep = tmp_path / "conf" / "sip_profiles"
    deep.mkdir(parents=True)
    file = deep / "a.xml"
    file.write_text("x")
    alone = tmp_path / "default"
    alone.write_text("x")
    paths = [str(tmp_path / "conf"), str(alone), str(tmp_path / "missing")]
    newest = max(path.lstat().st_ctime for path in (deep.parent, deep, file, alone))
    assert record.untouched_since(newest + 1, paths)
    assert not record.untouched_since(newest, paths)
    os.utime(file, (0, 0))
    assert not record.untouched_since(file.lstat().st_ctime, paths)


def test_nothing_to_watch_is_untouched(record, tmp_path):
    assert record.untouched_since(0.0, [])
    assert record.untouched_since(0.0, [str(tmp_path / "missing")])
