"""Exchanging trees: at every failure the live tree is whole, old or new, and nothing strays."""

import errno
import grp
import os
import pwd
import shutil
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
    for owner in ({**ME, "owner": "nobody-here"}, {**ME, "group": "nobody-here"}):
        for use in (
            lambda owner=owner: staged.stage(dest, NEW, **owner),
            lambda owner=owner: staged.wrong_attributes(dest, **owner),
            lambda owner=owner: staged.set_attributes(dest, ["a.xml"], **owner),
        ):
            told = f"no user {owner['owner']} or group {owner['group']} on this node"
            with pytest.raises(staged.StagedError, match=told):
                use()
    assert staged.read(dest) == OLD
    assert strays(dest) == []


def modes(dest):
    root = Path(dest)
    return {
        str(path.relative_to(root)): oct(path.lstat().st_mode & 0o777)
        for path in [root, *root.rglob("*")]
        if not path.is_symlink()
    }


def test_modes_are_told_and_set_right(dest, staged):
    right = modes(dest)
    assert set(right.values()) == {"0o750", "0o640"}
    Path(dest, "a.xml").chmod(0o666)
    Path(dest, "sub").chmod(0o777)
    Path(dest).chmod(0o755)
    Path(dest, "link").symlink_to("a.xml")
    wrong = staged.wrong_attributes(dest, **ME)
    assert wrong == [".", "a.xml", "sub"]
    staged.set_attributes(dest, wrong, **ME)
    assert modes(dest) == right
    assert staged.wrong_attributes(dest, **ME) == []
    assert staged.wrong_attributes(f"{dest}-missing", **ME) == []


def test_what_others_own_keeps_its_modes(dest, staged):
    Path(dest, "tls").mkdir(mode=0o700)
    Path(dest, "tls", "key").write_bytes(b"")
    assert staged.wrong_attributes(dest, **ME, keep=("tls",)) == []
    assert staged.wrong_attributes(dest, **ME) == ["tls", "tls/key"]


def test_modes_of_what_is_gone(dest, staged):
    with pytest.raises(staged.StagedError, match=r"cannot set the owner in .+/gone does not exist"):
        staged.set_attributes(dest, ["gone"], **ME)


def test_content_that_is_none_leaves_nothing_behind(dest, staged):
    """Not an error of the system: ours. It still must not leave half a tree."""
    with pytest.raises(TypeError):
        staged.stage(dest, {**NEW, "z.xml": None}, **ME)
    with pytest.raises(TypeError):
        staged.write_file(f"{dest}.note", None)
    assert staged.read(dest) == OLD
    assert strays(dest) == []


def test_links_and_missing_entries_are_carried_over_as_they_are(dest, staged):
    tls = Path(dest, "tls")
    (tls / "old").mkdir(parents=True)
    (tls / "current").symlink_to("old")
    os.mkfifo(tls / "socket")
    keep = ("tls", "absent", "pem")
    Path(dest, "pem").symlink_to("/nowhere")
    staged.swap(dest, staged.stage(dest, NEW, **ME, keep=keep))
    assert (tls / "current").readlink() == Path("old")
    assert (tls / "old").is_dir()
    assert Path(dest, "pem").readlink() == Path("/nowhere")
    assert sorted(path.name for path in tls.iterdir()) == ["current", "old"]
    assert staged.read(dest, keep) == NEW
    assert not Path(dest, "absent").exists()


def test_a_link_in_the_place_of_a_directory_is_a_change(dest, staged, tmp_path):
    """And nothing behind it is ours to read or to change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.xml").write_bytes(b"kept")
    shutil.rmtree(Path(dest, "sub"))
    Path(dest, "sub").symlink_to(outside)
    assert staged.read(dest)["sub"] is None
    assert staged.compare(dest, OLD) == {"added": ["sub/b.xml"], "changed": [], "removed": ["sub"]}
    staged.swap(dest, staged.stage(dest, OLD, **ME))
    assert staged.read(dest) == OLD
    assert (outside / "b.xml").read_bytes() == b"kept"


def test_a_link_in_the_place_of_the_staged_tree_is_removed_alone(dest, staged, tmp_path):
    (tmp_path / "kept").write_bytes(b"x")
    Path(staged.staged_path(dest)).symlink_to(tmp_path)
    staged.discard(dest)
    assert strays(dest) == []
    assert (tmp_path / "kept").read_bytes() == b"x"
    Path(staged.staged_path(dest)).write_bytes(b"a file")
    run(staged, dest)
    assert staged.read(dest) == NEW


def test_tree_that_cannot_be_read(tmp_path, staged, dest, monkeypatch):
    assert staged.read(str(tmp_path / "missing")) == {}
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(staged.StagedError, match=rf"^cannot read {file}: Not a directory$"):
        staged.read(str(file))
    original = Path.read_bytes

    def taken_away(path):
        path.unlink()
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", taken_away)
        with pytest.raises(staged.StagedError, match=rf"^{dest}: changed while it was read"):
            staged.read(dest)


def test_one_digest_a_tree(staged):
    told = {
        staged.digest(files)
        for files in (OLD, NEW, {}, {"a": b"b"}, {"ab": b""}, {"a": None}, {"a": b"", "b": b""})
    }
    assert len(told) == 7
    assert staged.digest(OLD) == staged.digest(dict(reversed(OLD.items())))
    assert all(len(one) == 64 for one in told)


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


def test_restore_in_the_place_of_nothing(dest, staged):
    run(staged, dest)
    shutil.rmtree(dest)
    with pytest.raises(
        staged.StagedError, match=rf"^cannot restore {dest}: {dest} does not exist$"
    ):
        staged.restore(dest)
    assert staged.read(staged.previous_path(dest)) == OLD


def test_staged_tree_that_cannot_be_removed(dest, staged, monkeypatch):
    staged.stage(dest, NEW, **ME)

    def denied(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(staged.shutil, "rmtree", denied)
        with pytest.raises(staged.StagedError, match=r"^cannot discard .+ denied; run as root$"):
            staged.discard(dest)
    staged.discard(dest)
    assert strays(dest) == []
    assert staged.read(dest) == OLD


def test_file_outside_of_the_tree_comes_and_goes(tmp_path, staged):
    path = tmp_path / "etc" / "systemd" / "guardian.conf"
    staged.put_file(str(path), b"one", 0o644)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    for _ in "ab":
        staged.put_file(str(path), None)
        assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"new", None])
def test_file_whose_parent_is_none(tmp_path, staged, content):
    (tmp_path / "file").write_bytes(b"kept")
    path = f"{tmp_path}/file/guardian.conf"
    with pytest.raises(staged.StagedError, match=rf"^cannot write {path}: (Not a d|File e)[a-z ]+"):
        staged.put_file(path, content)
    assert (tmp_path / "file").read_bytes() == b"kept"


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


def test_small_file_stays_whose_it_was(staged, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = tmp_path / "small"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    staged.write_file(str(path), b"new", 0o640)
    assert path.read_text() == "new"
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)
    staged.write_file(str(tmp_path / "fresh"), b"new", 0o600)
    assert (tmp_path / "fresh").stat().st_uid == os.geteuid()


# -- a symlink -----------------------------------------------------------------------------------


@pytest.fixture
def link(tmp_path, staged):
    """A link to ``old`` in a directory of its own."""
    path = tmp_path / "links" / "current"
    path.parent.mkdir()
    staged.point(str(path), "old")
    return path


def alone(link):
    return [entry.name for entry in link.parent.iterdir()] == ["current"]


def test_link_names_the_new_target_and_leaves_nothing(link, staged):
    assert link.readlink() == Path("old")
    (link.parent / ".current.staged").symlink_to("of-a-crash")
    staged.point(str(link), "new")
    assert link.readlink() == Path("new")
    assert alone(link)


@pytest.mark.parametrize("call", ["symlink", "fsync"])
def test_link_that_cannot_be_switched_durably_names_the_old_one(link, staged, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(staged.StagedError, match=r"cannot switch .*/current: no space left"):
        staged.point(str(link), "new")
    assert link.readlink() == Path("old")
    assert alone(link)
    first = link.with_name("first")
    with pytest.raises(staged.StagedError):
        staged.point(str(first), "new")
    assert alone(link)


def test_link_is_never_made_of_a_directory(tmp_path, staged):
    (tmp_path / "current").mkdir()
    with pytest.raises(staged.StagedError, match="current: no symlink; move it away and run again"):
        staged.point(str(tmp_path / "current"), "new")
    assert (tmp_path / "current").is_dir()
