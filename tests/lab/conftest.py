"""One lab for all tests that need real hosts; it is taken down at the end, also after a failure."""

import os
from collections.abc import Iterator

import pytest

from lab.names import LabError
from lab.prerequisites import check
from lab.region import Region


@pytest.fixture(scope="session")
def region() -> Iterator[Region]:
    """The lab `test`, up and highstated."""
    if os.geteuid() != 0:
        pytest.skip("hosts need root")
    try:
        check()
    except LabError as err:
        pytest.skip(str(err))
    # What an interrupted run left is not what these tests are about.
    Region("test").down()
    with Region("test") as region:
        yield region
