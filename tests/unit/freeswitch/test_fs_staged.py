"""Exchanging trees: at every failure the live tree is whole, old or new, and nothing strays."""

import errno
import grp
import os
import pwd
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ME = {
    "owner": pwd.getpwuid(os.geteuid()).pw_name,
    "group": grp.getgrgid(os.getegid()).gr_name,
}
OLD = {"a.xml": b"old", "sub/b.xml": b"old", "gone.xml": b"old"}
NEW = {"a.xml": b"new", "sub/b.xml": b"new", "sub/deep/c.xml": b"new"}


@pytest.fixture
def dest(tmp_path, staged):
    path = str(tmp_path / "etc" / "freeswitch")
    Path(path).parent.mkdir()
    staged.swap(path, staged.stage(path, OLD, **ME))
    return path


def strays(dest):
    return sorted(entry.name for entry in Path(dest).parent.iterdir() if entry != Path(dest))


def test_compare_stage_swap_restore_discard(dest, staged):
    assert staged.compare(dest, NEW) == {
        "added": ["sub/deep/c.xml"],
        "changed": ["a.xml", "sub/b.xml"],
        "removed": ["gone.xml"],
    }
    made = staged.stage(dest, NEW, **ME)
    assert staged.read(dest) == OLD
    previous = staged.swap(dest, made)
    assert staged.read(dest) == NEW
    assert staged.read(previous) == OLD
    assert not any(staged.compare(dest, NEW).values())
    assert staged.wrong_attributes(dest, **ME) == []
    staged.restore(dest)
    assert staged.read(dest) == OLD
    staged.stage(dest, NEW, **ME)
    staged.discard(dest)
    assert strays(dest) == [".freeswitch.previous"]


def test_what_others_own_is_carried_over(dest, staged):
    keys = Path(dest, "tls")
    keys.mkdir(mode=0o700)
    (keys / "agent.pem").write_bytes(b"key")
    (keys / "agent.pem").chmod(0o600)
    assert not any(staged.compare(dest, OLD, ("tls",)).values())
    staged.swap(dest, staged.stage(dest, NEW, **ME, keep=("tls",)))
    assert Path(dest, "tls", "agent.pem").read_bytes() == b"key"
    assert Path(dest, "tls", "agent.pem").stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_a_file_is_a_change(dest, staged):
    Path(dest, "a.xml").unlink()
    Path(dest, "a.xml").symlink_to("/etc/passwd")
    assert staged.compare(dest, OLD)["changed"] == ["a.xml"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", "a/../../x", "."])
def test_paths_stay_inside(dest, staged, name):
    with pytest.raises(ValueError, match="inside the tree"):
        staged.stage(dest, {name: b""}, **ME)
    assert staged.read(dest) == OLD


def test_unknown_owner(dest, staged):
    with pytest.raises(staged.StagedError, match="no user nobody-here"):
        staged.stage(dest, NEW, owner="nobody-here", group=ME["group"])


def run(staged, dest):
    staged.swap(dest, staged.stage(dest, NEW, **ME))


def calls(staged, monkeypatch, dest, fail_at, number, staged_only=True):
    """Run with the ``fail_at``-th system call failing; return how many were made."""
    made = {"count": 0}

    def wrap(original):
        def wrapped(*arguments, **keywords):
            made["count"] += 1
            if made["count"] == fail_at:
                raise OSError(number, os.strerror(number))
            return original(*arguments, **keywords)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("open", "write", "fsync", "fchown", "fchmod", "chown"):
            patch.setattr(staged.os, name, wrap(getattr(os, name)))
        patch.setattr(staged.Path, "mkdir", wrap(Path.mkdir))
        patch.setattr(staged, "_rename", wrap(staged._rename))
        error = None
        try:
            run(staged, dest)
        except OSError as err:
            error = err
    return made["count"], error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_failure_at_every_system_call(tmp_path, staged, monkeypatch, number):
    total = None
    point = 0
    while total is None or point < total:
        point += 1
        dest = str(tmp_path / f"{point}" / "freeswitch")
        Path(dest).parent.mkdir()
        staged.swap(dest, staged.stage(dest, OLD, **ME))
        count, error = calls(staged, monkeypatch, dest, point, number)
        total = count if error is None else None if total is None else total
        if error is None:
            break
        assert isinstance(error, staged.StagedError), error
        assert "\n" not in str(error)
        live = staged.read(dest)
        assert live in (OLD, NEW)
        staged.discard(dest)
        assert set(strays(dest)) <= {".freeswitch.previous"}
        run(staged, dest)
        assert staged.read(dest) == NEW
    assert point > 15


KILLED = """
import os, sys
sys.path.insert(0, {utils!r})
import staged
left = [int(sys.argv[2])]
def dying(original):
    def wrapped(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return original(*arguments, **keywords)
    return wrapped
for name in ("open", "write", "fsync", "fchown"):
    setattr(staged.os, name, dying(getattr(os, name)))
staged._rename = dying(staged._rename)
staged._remove = dying(staged._remove)
dest = sys.argv[1]
staged.swap(dest, staged.stage(dest, {files!r}, owner={owner!r}, group={group!r}))
"""


@pytest.mark.parametrize("point", [0, 1, 3, 6, 9, 12, 15, 16, 17, 18, 19, 20, 22])
def test_kill_leaves_a_whole_tree_and_the_next_run_cleans_up(dest, staged, point):
    utils = str(Path(__file__).resolve().parents[3] / "_utils")
    program = textwrap.dedent(KILLED).format(utils=utils, files=NEW, **ME)
    done = subprocess.run([sys.executable, "-c", program, dest, str(point)], check=False)
    assert done.returncode in (0, -9)
    assert staged.read(dest) in (OLD, NEW)
    run(staged, dest)
    assert staged.read(dest) == NEW
    assert strays(dest) == [".freeswitch.previous"]


def test_exchange_errors_say_what_to_do(dest, staged, monkeypatch):
    made = staged.stage(dest, NEW, **ME)
    for number, told in ((errno.EXDEV, "mount"), (errno.EINVAL, "cannot exchange directories")):

        def refuse(*_, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(staged, "_rename", refuse)
            with pytest.raises(staged.StagedError, match=told):
                staged.swap(dest, made)
    assert staged.read(dest) == OLD


def test_a_live_path_that_is_no_directory_is_left_alone(tmp_path, staged):
    dest = tmp_path / "freeswitch"
    dest.symlink_to(tmp_path)
    made = staged.stage(str(dest), NEW, **ME)
    with pytest.raises(staged.StagedError, match="not a directory"):
        staged.swap(str(dest), made)
    assert dest.is_symlink()


def test_restore_without_a_previous_tree(tmp_path, staged):
    with pytest.raises(staged.StagedError, match="nothing to restore"):
        staged.restore(str(tmp_path / "freeswitch"))


def test_one_file_is_replaced_or_not_at_all(tmp_path, staged, monkeypatch):
    path = tmp_path / "note.json"
    staged.write_file(str(path), b"one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(staged.os, "fsync", full)
        with pytest.raises(staged.StagedError, match="no space left"):
            staged.write_file(str(path), b"two")
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.json"]
