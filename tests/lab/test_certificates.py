"""A certificate's way from pillar to what a lab's proxy serves, again and again under calls."""

import json
import os
from collections.abc import Iterator

import pytest

from lab.names import LabError
from lab.prerequisites import check
from tests.functional.certificates.authority import Authority
from tests.lab.rotations import Rotated, rotate

ROTATIONS = int(os.environ.get("GUARDIAN_LAB_ROTATIONS", "0"))
pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600 + 120 * ROTATIONS),
    pytest.mark.skipif(not ROTATIONS, reason="a lab of its own: GUARDIAN_LAB_ROTATIONS=20"),
]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def region(authority: Authority) -> Iterator[Rotated]:
    try:
        check()
    except LabError as err:
        pytest.skip(str(err))
    region = Rotated(os.environ.get("GUARDIAN_LAB", "rotation"))
    region.down()  # what an interrupted run left
    try:
        region.begin(authority.bundle())
        yield region
    finally:
        region.down()


def test_certificates_of_every_node_rotate_under_calls(
    region: Rotated, authority: Authority
) -> None:
    got = rotate(region, authority, ROTATIONS)
    print(json.dumps({"rotations": got.rotations, "seconds": got.seconds, **got.calls}))
    assert (got.failed, got.wrong, got.lost) == ([], [], [])
    assert (got.calls["dropped"], got.calls["failed"]) == (0, 0)
    assert got.calls["held"] >= 20
