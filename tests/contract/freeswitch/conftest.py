"""The facts run on the twin, and on the real daemon where there is one on PATH.

Those marked `versions` are about what 1.11 does otherwise, and run on a twin of it, too.
"""

import shutil

import pytest
from fs_daemon import TWINS, Daemon

from tests.support.phone import Phone

_REAL = pytest.param(
    "real",
    marks=[
        pytest.mark.real,
        pytest.mark.skipif(not shutil.which("freeswitch"), reason="no freeswitch on PATH"),
    ],
)


def pytest_configure(config):
    config.addinivalue_line("markers", "versions: what one version does otherwise than another")


def pytest_generate_tests(metafunc):
    if "flavour" in metafunc.fixturenames:
        twins = list(TWINS if metafunc.definition.get_closest_marker("versions") else ("twin",))
        metafunc.parametrize("flavour", [*twins, _REAL], indirect=True, scope="session")


@pytest.fixture(scope="session")
def flavour(request):
    return request.param


@pytest.fixture
def stopped(flavour, tmp_path):
    """A daemon that is not started yet: its tree can still be changed."""
    daemon = Daemon(flavour, tmp_path)
    yield daemon
    daemon.close()


@pytest.fixture
def daemon(stopped):
    return stopped.start()


@pytest.fixture(scope="module")
def shared(flavour, tmp_path_factory):
    """One daemon a file, for facts that leave it as they found it."""
    daemon = Daemon(flavour, tmp_path_factory.mktemp("shared"))
    yield daemon.start()
    daemon.close()


@pytest.fixture
def phone(request):
    name = "shared" if "shared" in request.fixturenames else "daemon"
    with Phone(request.getfixturevalue(name).sip) as phone:
        yield phone
