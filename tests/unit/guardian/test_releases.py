"""Commits on a master: what is taken, what is refused, which one is served."""

import base64
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from guardian.fleet import releases

COMMIT = "0123456789abcdef" * 2 + "01234567"
OTHER = "f" * 40


def archive(fill: Callable[[tarfile.TarFile], None], commit: str = COMMIT) -> bytes:
    raw = io.BytesIO()
    headers = {"comment": commit}
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        fill(tar)
    return raw.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", mode: int = 0o664) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    tar.addfile(entry)


def send(root: Path, raw: bytes, commit: str = COMMIT, part: int = 4096) -> None:
    for offset in range(0, len(raw), part):
        data = base64.b64encode(raw[offset : offset + part]).decode()
        releases.upload(str(root), commit, offset, data)
    releases.unpack(str(root), commit, hashlib.sha256(raw).hexdigest())


def tree(tar: tarfile.TarFile) -> None:
    add(tar, "_modules/voice.py", b"code")
    add(tar, "bin/run", b"#!/bin/sh\n", 0o775)
    link(tar, "salt/_modules", "../_modules")


def test_a_commit_arrives_whole_and_is_served(tmp_path: Path) -> None:
    send(tmp_path, archive(tree))
    releases.select(str(tmp_path), COMMIT)
    assert releases.current(str(tmp_path)) == COMMIT
    assert (tmp_path / "current/salt/_modules/voice.py").read_bytes() == b"code"
    assert os.access(tmp_path / "current/bin/run", os.X_OK)
    assert sorted(one.name for one in tmp_path.iterdir()) == [COMMIT, "current"]


def test_a_part_that_is_sent_twice_lands_where_it_was(tmp_path: Path) -> None:
    raw = archive(tree)
    halves = [base64.b64encode(raw[:700]).decode(), base64.b64encode(raw[700:]).decode()]
    releases.upload(str(tmp_path), COMMIT, 0, halves[0])
    releases.upload(str(tmp_path), COMMIT, 0, halves[0])
    releases.upload(str(tmp_path), COMMIT, 700, halves[1])
    assert releases.upload(str(tmp_path), COMMIT, 700, halves[1]) == len(raw)
    releases.unpack(str(tmp_path), COMMIT, hashlib.sha256(raw).hexdigest())
    assert (tmp_path / COMMIT / "bin/run").is_file()


@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (lambda tar: add(tar, "../outside"), "leads out of the archive"),
        (lambda tar: add(tar, "/etc/shadow"), "leads out of the archive"),
        (lambda tar: link(tar, "salt", "/etc"), "leads out of the archive"),
        (lambda tar: link(tar, "a/salt", "../../etc"), "leads out of the archive"),
        (lambda tar: link(tar, "a", "b", tarfile.LNKTYPE), "neither file, directory nor link"),
        (lambda tar: link(tar, "a", "", tarfile.FIFOTYPE), "neither file, directory nor link"),
        (lambda tar: (link(tar, "a", "b"), add(tar, "a/x"))[0], "lies behind a link"),
        (lambda tar: (add(tar, "a/x"), link(tar, "a", "b"))[0], "lies behind a link"),
    ],
)
def test_what_leads_out_of_the_tree_is_refused(
    tmp_path: Path, fill: Callable[[tarfile.TarFile], None], told: str
) -> None:
    root = tmp_path / "releases"
    with pytest.raises(ValueError, match=told):
        send(root, archive(fill))
    assert list(root.iterdir()) == []
    assert [one.name for one in tmp_path.iterdir()] == ["releases"]


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "BYTES", 20_000)
    with pytest.raises(ValueError, match="more than 20000 bytes"):
        send(tmp_path, archive(lambda tar: add(tar, "big", b"0" * 30_000)))
    monkeypatch.setattr(releases, "MEMBERS", 1)
    with pytest.raises(ValueError, match="more than 1 files"):
        send(tmp_path, archive(tree))


def test_half_an_archive_or_another_commits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did not arrive whole"):
        releases.unpack(str(tmp_path), COMMIT, "0" * 64)
    with pytest.raises(ValueError, match="is of another commit"):
        send(tmp_path, archive(tree, OTHER))
    with pytest.raises(ValueError, match="not a full commit id"):
        releases.upload(str(tmp_path), "../../x", 0, "")
    assert not (tmp_path / COMMIT).exists()


def test_the_last_five_and_the_one_that_is_served_stay(tmp_path: Path) -> None:
    commits = [f"{number:040x}" for number in range(8)]
    for number, commit in enumerate(commits):
        (tmp_path / commit).mkdir()
        os.utime(tmp_path / commit, (number, number))
    releases.select(str(tmp_path), commits[0])
    left = sorted(one.name for one in tmp_path.iterdir() if one.name != "current")
    assert left == [commits[0], *commits[4:]]
    assert releases.current(str(tmp_path)) == commits[0]


def test_the_live_tree_is_served_again(tmp_path: Path) -> None:
    live = tmp_path / "srv"
    live.mkdir()
    root = tmp_path / "releases"
    send(root, archive(tree))
    releases.select(str(root), COMMIT)
    releases.select(str(root), str(live))
    assert releases.current(str(root)) == str(live)
    with pytest.raises(ValueError, match="is not there"):
        releases.select(str(root), OTHER)
    assert (root / "current").resolve() == live


def test_a_master_that_serves_something_else_is_refused(tmp_path: Path) -> None:
    releases.served("/srv/releases", ["/srv/releases/current/salt"])
    with pytest.raises(ValueError, match=r"serves /srv/guardian/salt, .*docs/masters\.md"):
        releases.served("/srv/releases", ["/srv/releases/current/pillar", "/srv/guardian/salt"])
