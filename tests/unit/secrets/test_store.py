"""The cache: in memory, sealed, ours alone."""

import os
import stat
import subprocess
import sys
import time

import pytest

from guardian.secrets import keyring, place, store
from guardian.secrets.bucket import Bucket
from guardian.secrets.failures import BUSY, NOT_FOUND, SecretError
from guardian.secrets.store import Entry, Store
from tests.support.aws import in_memory

CANARY = "c4nary-value"


@pytest.fixture
def directory():
    with in_memory() as memory:
        yield memory / "run" / "secrets"


@pytest.fixture(params=["kernel", "file"])
def any_key(request, monkeypatch):
    """With the key where the kernel keeps it, and where it keeps none."""
    if request.param == "file":
        monkeypatch.setattr(keyring, "_CALLS", {})
    monkeypatch.setattr(store, "_keys", {})
    return request.param


def entry(name="a", **rest):
    now = time.monotonic()
    return Entry(name, now, now, **{"value": CANARY, **rest})


def contents(directory):
    return b"\n".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())


def test_value_is_sealed_and_its_name_hidden(directory, any_key):
    Store(directory).put(entry("parameter:/voice/x"))
    assert Store(directory).value("parameter:/voice/x").value == CANARY
    assert Store(directory).value("parameter:/voice/y") is None
    seen = contents(directory)
    assert CANARY.encode() not in seen
    assert b"/voice/x" not in seen + b"".join(os.fsencode(f) for f in directory.rglob("*"))
    assert (directory / "key").exists() == (any_key == "file")


def test_all_of_it_is_for_its_owner_alone(directory, any_key):
    Store(directory).put(entry())
    for file in [directory, *directory.rglob("*")]:
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file


def test_another_process_reads_it(directory, any_key):
    Store(directory).put(entry())
    script = (
        "from sys import argv; from guardian.secrets.store import Store as S"
        "; print(S(argv[1]).value('a').value)"
    )
    command = [sys.executable, "-c", script, str(directory)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() == CANARY, found.stderr


@pytest.mark.parametrize("damage", [b"", b"short", bytes(200)])
def test_entry_that_is_damaged_counts_as_none(directory, damage):
    kept = Store(directory)
    kept.put(entry())
    file = next((directory / "items").iterdir())
    file.write_bytes(damage)
    assert kept.value("a") is None


def test_entry_moved_under_another_name_counts_as_none(directory):
    kept = Store(directory)
    kept.put(entry("a"))
    kept.put(entry("b", value="other"))
    first, second = (directory / "items" / kept.digest(name) for name in "ab")
    first.replace(second)
    assert kept.value("b") is None


def test_cache_that_was_removed_begins_anew(directory):
    Store(directory).put(entry())
    subprocess.run(["rm", "-r", str(directory)], check=True)
    assert Store(directory).value("a") is None


def test_disk_is_no_place_for_it(tmp_path):
    with pytest.raises(ValueError) as caught:
        Store(tmp_path / "secrets")
    assert "secrets are cached in memory only; name a directory on tmpfs" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda d: d.mkdir(mode=0o755, parents=True), "must be of user"),
        (lambda d: (d.parent.mkdir(), d.write_text("")), "is no directory"),
        (lambda d: (d.parent.mkdir(), d.symlink_to("/dev/shm")), "is no directory"),
        (lambda d: d.parent.write_text(""), "Not a directory"),
    ],
)
def test_place_that_is_not_ours_alone_is_refused(directory, make, told):
    make(directory)
    with pytest.raises(ValueError, match=told):
        Store(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_directory_of_another_user_is_refused(directory):
    directory.mkdir(parents=True, mode=0o700)
    os.chown(directory, 12345, 12345)
    with pytest.raises(ValueError, match="is of 12345 with 0700; remove it"):
        Store(directory)


def test_miss_is_remembered_for_its_time_and_takes_the_value_away(directory):
    kept = Store(directory)
    kept.put(entry())
    kept.put(entry(value="not there", reason=NOT_FOUND, until=time.monotonic() + 60))
    assert kept.value("a") is None
    assert kept.miss("a").value == "not there"
    kept.put(entry(reason=NOT_FOUND, until=time.monotonic() - 1))
    assert kept.miss("a") is None
    kept.put(entry())
    assert kept.miss("a") is None
    assert kept.value("a")


def test_what_is_too_old_is_removed(directory):
    kept = Store(directory)
    for name in "ab":
        kept.put(entry(name))
        kept.forget(name)
    old = [directory / part / kept.digest("a") for part in ("items", "forgotten")]
    for file in old:
        os.utime(file, (time.time() - 1000,) * 2)
    kept.purge(900)
    assert not any(file.exists() for file in old)
    assert kept.value("b")
    assert kept.forgotten("b") > kept.forgotten("a") == 0


def test_users_are_those_of_the_last_compilation(directory):
    kept = Store(directory)
    kept.note("pbx-01.prod-euw2", ["parameter:a", "parameter:b"])
    kept.note("pbx-02.prod-euw2", ["parameter:a"])
    kept.note("pbx-01.prod-euw2", ["parameter:b"])
    assert kept.users() == {
        "pbx-01.prod-euw2": ["parameter:b"],
        "pbx-02.prod-euw2": ["parameter:a"],
    }


def test_full_memory_leaves_nothing_half_written(directory, monkeypatch):
    kept = Store(directory)
    kept.put(entry())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError):
        kept.put(entry(value="other"))
    monkeypatch.undo()
    assert kept.value("a").value == CANARY
    assert len(list((directory / "items").iterdir())) == 1


def test_lock_is_waited_for_no_longer_than_allowed(directory):
    directory.mkdir(parents=True, mode=0o700)
    with (
        place.locked(directory / "x", time.monotonic() + 5),
        pytest.raises(SecretError) as caught,
        place.locked(directory / "x", time.monotonic() + 0.05),
    ):
        pass
    assert caught.value.reason == BUSY


def test_bucket_gives_a_burst_then_its_rate_and_refuses_what_comes_too_late(directory):
    directory.mkdir(parents=True, mode=0o700)
    bucket = Bucket(directory / "pace", 20)
    began = time.monotonic()
    for _ in range(10):
        bucket.take(began + 10)
    assert 0.2 < time.monotonic() - began < 2
    bucket.drain()
    with pytest.raises(SecretError, match="no turn in time at 20 calls a second") as caught:
        bucket.take(time.monotonic() + 0.01)
    assert caught.value.reason == BUSY
