"""No bundle that a server or a caller would stumble over reaches the disk; the old one stays."""

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.bundles import GOOD, renewed
from tests.unit.certificates.bad_bundles import BAD


@pytest.fixture(scope="module")
def old():
    return renewed()


@pytest.mark.parametrize("fault", BAD)
def test_bad_bundle_is_one_line_without_a_secret_and_the_old_one_is_live(shelf, old, fault):
    bad = BAD[fault]
    serial = shelf.deploy(old)["changes"]["certificate"]["new"]["serial"]
    before = shelf.tree()
    with pytest.raises(CommandExecutionError) as caught:
        shelf.deploy({"chain": bad.chain, "key": bad.key, **bad.asked})
    told = str(caught.value)
    assert bad.told in told
    assert told.startswith("certificate default: ")
    assert told.endswith(f"; kept serial {serial}")
    assert told.isprintable()
    assert len(told) < 400
    assert not any(line in told for line in secrets_of(bad.key))
    assert shelf.tree() == before
    assert (shelf.live / "chain.pem").read_text() == old["chain"]
    assert (shelf.live / "key.pem").read_text() == old["key"]


def secrets_of(key):
    lines = [line.strip() for line in str(key).splitlines()]
    return [line for line in lines if len(line) > 20 and not line.startswith("-----")]


def test_every_bad_bundle_has_a_line_of_its_own(shelf):
    lines = {}
    for fault, bad in BAD.items():
        with pytest.raises(CommandExecutionError) as caught:
            shelf.deploy({"chain": bad.chain, "key": bad.key, **bad.asked})
        lines.setdefault(str(caught.value), []).append(fault)
    assert [faults for faults in lines.values() if len(faults) > 1] == []
    assert len(lines) >= 60
    assert not shelf.directory.exists()


def test_a_good_bundle_passes(shelf):
    assert shelf.deploy(GOOD)["result"] is True
