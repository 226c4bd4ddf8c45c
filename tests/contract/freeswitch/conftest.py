"""The facts run on the twin, and on the real daemon where there is one on PATH."""

import shutil

import pytest
from fs_daemon import Daemon

from tests.support.phone import Phone

_REAL = pytest.param(
    "real",
    marks=[
        pytest.mark.real,
        pytest.mark.skipif(not shutil.which("freeswitch"), reason="no freeswitch on PATH"),
    ],
)


@pytest.fixture(scope="session", params=["twin", _REAL])
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
