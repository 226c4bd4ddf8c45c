"""Certificates that are not taken up: by whom, and that nobody notices."""

import re
from pathlib import Path

import pytest

from tests.functional.certificates.authority import Bundle
from tests.functional.certificates.held_calls import holding


@pytest.fixture
def bad(authority):
    """Bundles that may not be served, and what is said of each."""
    good, other = authority.bundle(), authority.bundle()
    leaf = good.chain.partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    return {
        "key does not match": Bundle(good.chain, other.key, ""),
        "expired": authority.bundle(days=-1),
        "the leaf alone": Bundle(leaf, good.key, ""),
        "is empty": Bundle("", good.key, ""),
    }


def settled(returned):
    for one in returned:
        assert one["result"] is True, one["comment"]
    return returned


def unharmed(held):
    held.prove("after")
    held.hang_up()
    assert (held.lost, held.wrong) == ([], [])


def files(node):
    """All that a state may have written."""
    found = {}
    for place in (node.conf, node.root / "tls", node.root / "sofia"):
        for path in place.rglob("*"):
            found[path] = path.readlink() if path.is_symlink() else _content(path)
    return found


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_bundle_that_may_not_be_served_changes_nothing(node, bad):
    shown, there = node.shown(), files(node)
    with holding(node.kinds(), 1) as held:
        for told, bundle in bad.items():
            *_, last = node.rotate(bundle)
            assert last["result"] is False
            assert told in last["comment"]
            assert "\n" not in last["comment"]
            assert last["changes"] == {}
            assert (node.shown(), files(node)) == (shown, there)
        unharmed(held)


def test_what_is_predicted_is_done(node, authority):
    shown, there = node.shown(), files(node)
    bundle = authority.bundle()
    node.give(bundle)
    predicted = node.apply(test=True)
    assert [one["result"] for one in predicted] == [None] * len(predicted), predicted
    assert (node.shown(), files(node)) == (shown, there)
    done = settled(node.apply())
    assert [one["changes"] for one in done] == [one["changes"] for one in predicted]
    assert node.shown() == dict.fromkeys(node.tls, bundle.fingerprint)
    assert [one["changes"] for one in settled(node.apply())] == [{}] * len(done)
    assert "PRIVATE KEY" not in str((predicted, done))


def test_daemon_that_says_ok_and_serves_the_old_one_keeps_it_and_takes_the_next(node, authority):
    shown = node.shown()
    with holding(node.kinds(), 1) as held:
        bundle = authority.bundle()
        node.give(bundle)
        with node.deaf():
            *_, last = node.apply(directly=True)
            assert last["result"] is False
            assert re.search(r"serves (another|the) certificate", last["comment"]), last["comment"]
            assert "the previous configuration is back" in last["comment"]
            assert "\n" not in last["comment"]
        assert node.shown() == shown
        settled(node.apply())
        assert node.shown() == dict.fromkeys(node.tls, bundle.fingerprint)
        unharmed(held)


def test_release_that_needs_a_restart_keeps_the_old_one_until_it_is_drained(restarted, authority):
    node, shown, bundle = restarted, restarted.shown(), authority.bundle()
    with holding(node.kinds(), 1) as held:
        deployed, refused = node.rotate(bundle)
        assert deployed["result"] is True, deployed["comment"]
        assert refused["result"] is False
        assert "restart needed: " in refused["comment"]
        assert "run `guardian deploy lab-local`" in refused["comment"]
        assert node.shown() == shown
        assert node.running()["changes"] == {}
        held.prove("in service")
        (old,) = set(shown.values())
        held.renew(old, "in service")
        unharmed(held)
    node.drain()
    settled([*node.apply(), node.running()])
    assert node.shown() == dict.fromkeys(node.tls, bundle.fingerprint)
    node.undrain()
    with holding(node.kinds(), 1) as held:
        held.renew(bundle.fingerprint, "after its restart")
        unharmed(held)
