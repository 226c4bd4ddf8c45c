"""A deployment that is killed or finds the disk full leaves a whole bundle live.

``GUARDIAN_CRASH_POINTS`` says at how many points it is killed, ``GUARDIAN_CRASH_SEED`` at which.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.bundles import GOOD, renewed
from tests.unit.certificates.conftest import Shelf

POINTS = int(os.environ.get("GUARDIAN_CRASH_POINTS", "40"))
SEED = int(os.environ.get("GUARDIAN_CRASH_SEED", "8"))
OLD, NEW, OTHER = GOOD, renewed(), renewed()
PAST = [renewed() for _ in range(2)]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def memory():
    """A directory in memory where there is one: thousands of syncs take their time elsewhere."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)


class Scene:
    """A shelf before a deployment, the deployment, and what may be live once it has ended."""

    def __init__(self, root, layout="sofia"):
        self.shelf, self.layout = Shelf(root), layout
        self.allowed = [NEW]

    def begin(self):
        """Nothing is there yet."""
        self.allowed = [None, NEW]

    def act(self):
        self.shelf.deploy(NEW, layout=self.layout)

    def live(self):
        """The bundle that is live, None for none; a failure if it is not whole."""
        if not os.path.lexists(self.shelf.live):
            return None
        for bundle in (OLD, NEW, OTHER, *PAST):
            if (self.shelf.live / "key.pem").read_text() != bundle["key"]:
                continue
            if (self.shelf.live / "chain.pem").read_text() == bundle["chain"]:
                wanted = {"chain.pem", "key.pem", "agent.pem", "cafile.pem", "wss.pem"}
                assert {path.name for path in self.shelf.live.iterdir()} == wanted
                assert (self.shelf.live / "wss.pem").read_text() == bundle["chain"] + bundle["key"]
                return bundle
        raise AssertionError("what is live is none of the bundles")

    def strays(self):
        """What is neither the link nor a version, and versions beyond the three."""
        if not self.shelf.home.exists():
            return []
        hidden = [path.name for path in self.shelf.home.iterdir() if path.name.startswith(".")]
        return hidden + self.shelf.versions()[3:]


class Rotation(Scene):
    """Three are there, so that the oldest is pruned."""

    def begin(self):
        for bundle in (*PAST, OLD):
            self.shelf.deploy(bundle, layout=self.layout)
        self.allowed = [OLD, NEW]


class FlipBack(Rotation):
    """The service cannot be reloaded, so the old one is taken back."""

    def act(self):
        self.shelf.services = {"web"}
        self.shelf.reload = lambda: False
        with pytest.raises(CommandExecutionError, match="could not be reloaded"):
            self.shelf.deploy(NEW, layout=self.layout, service="web")


class Repair(Rotation):
    """An earlier run was killed, and its leftovers are removed."""

    def begin(self):
        super().begin()
        home = self.shelf.home
        shutil.copytree(self.shelf.live, home / f".{'0' * 16}.staged")
        shutil.copytree(self.shelf.live, home / ("1" * 16))
        os.utime(home / ("1" * 16), (0, 0))
        (home / ".current.staged").symlink_to("nowhere")


SCENES = [Scene, Rotation, FlipBack, Repair]


# -- killed --------------------------------------------------------------------------------------


def lines_in_child(scene, last=None):
    """Run a scene in a child that kills itself before its line ``last``; return how many it ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def traced(_frame, _event, _argument):
            nonlocal count
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return traced

        status = 1
        try:
            sys.settrace(traced)
            scene.act()
            sys.settrace(None)
            os.write(writing, str(count).encode())
            status = 0
        except BaseException:
            sys.settrace(None)
            traceback.print_exc()
        os._exit(status)
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0
    return None if killed else int(told)


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    """How many lines each scene runs."""
    found = {}
    for scene in SCENES:
        made = scene(tmp_path_factory.mktemp("length"))
        made.begin()
        found[scene] = lines_in_child(made)
    return found


def points():
    chosen = random.Random(SEED)
    return [(SCENES[n % len(SCENES)], chosen.random()) for n in range(POINTS)]


@pytest.mark.parametrize(("scene", "where"), points())
def test_killed_anywhere_a_whole_bundle_is_live_and_the_next_run_repairs(
    memory, lengths, scene, where
):
    made = scene(memory)
    made.begin()
    lines_in_child(made, last=int(where * lengths[scene]))
    assert made.live() in made.allowed

    following = random.Random(where).choice([NEW, OTHER])
    predicted = made.shelf.deploy(following, layout=made.layout, test=True)
    done = made.shelf.deploy(following, layout=made.layout)
    assert done["result"] is True
    assert done["changes"] == predicted["changes"]
    assert made.live() == following
    assert made.strays() == []
    assert made.shelf.deploy(following, layout=made.layout)["changes"] == {}
    told = made.shelf.module.versions("default", str(made.shelf.directory))
    assert all(one["since"] for one in told), "none is there that never was live"


def test_two_runs_at_once_wait_for_each_other(memory):
    made = Rotation(memory)
    made.begin()
    children = []
    for bundle in (NEW, OTHER, *PAST):
        child = os.fork()
        if not child:
            status = 1
            with contextlib.suppress(Exception):
                for _ in range(5):
                    assert made.shelf.deploy(bundle, layout=made.layout)["result"] is True
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    assert made.live() in (NEW, OTHER, *PAST)
    assert made.strays() == []


# -- the disk is full ----------------------------------------------------------------------------

CALLS = ["open", "write", "fsync", "mkdir", "symlink", "chmod", "fchown", "utime"]


class FullDisk:
    """Fails the n-th call that may want room, or every one from then on."""

    def __init__(self, monkeypatch, made, n, for_good):
        self.n, self.for_good, self.count = n, for_good, 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        if not for_good:  # once it is full, a name that is there can still be another's
            staged = made.shelf.utils["staged.point"].__globals__
            monkeypatch.setitem(staged, "_rename", self._watched("rename", staged["_rename"]))

    def _watched(self, name, really):
        def call(*arguments, **keywords):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return really(*arguments, **keywords)
            self.count += 1
            if self.count == self.n or (self.for_good and self.count > self.n):
                raise FULL
            return really(*arguments, **keywords)

        return call


def wanting_room(made):
    """How many such calls a scene makes."""
    made.begin()
    with pytest.MonkeyPatch.context() as patched:
        full = FullDisk(patched, made, n=0, for_good=False)
        made.act()
    return full.count


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("scene", SCENES)
def test_full_disk_at_any_call_leaves_the_old_one_and_no_trace(memory, scene, for_good):
    calls = wanting_room(scene(memory / "count"))
    assert calls > 20
    for n in range(1, calls + 1, 1 if POINTS >= 200 else 3):
        made = scene(memory / str(n))
        made.begin()
        before, strays = made.live(), set(made.strays())
        failed = False
        with pytest.MonkeyPatch.context() as patched:
            FullDisk(patched, made, n, for_good)
            try:
                made.act()
            except CommandExecutionError as err:
                failed = True
                assert "o space left" in str(err), n
                assert str(err).isprintable()
            except AssertionError:  # of the scene: it failed in another way than by its service
                failed = True
        taken_back = failed and scene is not FlipBack
        assert made.live() == before if taken_back else made.live() in made.allowed, n
        hidden = {name for name in made.strays() if name.startswith(".")}
        assert (hidden if scene is FlipBack else set(made.strays())) <= strays, n
        assert made.shelf.deploy(NEW, layout=made.layout)["result"] is True
        assert made.live() == NEW
        assert made.strays() == []


@pytest.fixture
def small(tmp_path):
    """A file system of a few pages."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_disk_that_is_really_full(small):
    """However little room is left, either all of it is written or nothing."""
    made = Rotation(small)
    made.begin()
    before = made.shelf.tree()
    filling = small / "filling"
    verdicts = set()
    for pages in range(12):
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        os.truncate(filling, filling.stat().st_size - pages * 4096)
        try:
            made.act()
            verdicts.add("live")
            break
        except CommandExecutionError as err:
            verdicts.add("refused")
            assert "no space left" in str(err)
            assert str(err).endswith("; the old one is live")
        assert made.live() == OLD
        assert made.shelf.tree() == before
    assert verdicts == {"live", "refused"}
    assert made.live() == NEW
    assert made.strays() == []


# -- a power cut ---------------------------------------------------------------------------------


def test_everything_is_synced_before_the_flip_and_the_flip_after_it(tmp_path, monkeypatch):
    """What is not synced may be gone after a power cut, the link to it still there."""
    made = Rotation(tmp_path)
    made.begin()
    events = []
    fsync, rename = os.fsync, made.shelf.utils["staged.point"].__globals__["_rename"]

    def synced(descriptor):
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))  # noqa: PTH115
        fsync(descriptor)

    def renamed(source, target, flags):
        events.append(("rename", Path(target).name))
        rename(source, target, flags)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setitem(made.shelf.utils["staged.point"].__globals__, "_rename", renamed)
    made.act()
    flip = events.index(("rename", "current"))
    before, after = events[:flip], events[flip:]
    for name in ("chain.pem", "key.pem", "agent.pem", "cafile.pem", "wss.pem"):
        assert ("sync", name) in before
    (staged,) = {name for what, name in before if what == "sync" and name.endswith(".staged")}
    assert before.index(("sync", staged)) > before.index(("sync", "wss.pem"))
    assert before[-1] == ("sync", "default"), "the version's own entry"
    assert ("sync", "default") in after
