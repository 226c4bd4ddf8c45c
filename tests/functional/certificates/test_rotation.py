"""One certificate after the other, and no call over TLS or WSS is the worse for it."""

import json
import os

import pytest

from tests.functional.certificates.rotation import rotate

ROTATIONS = int(os.environ.get("GUARDIAN_ROTATIONS", "5"))
pytestmark = pytest.mark.timeout(120 + 20 * ROTATIONS)


def test_calls_outlive_certificates_and_new_ones_see_the_new(node, authority):
    got = rotate(node, authority, ROTATIONS)
    print(json.dumps(got.summary()))
    assert (got.failed, got.wrong, got.lost) == ([], [], [])
    assert got.rotations == ROTATIONS
