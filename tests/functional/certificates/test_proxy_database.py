"""The proxy's sqlite while others write it, as every rotation does."""

import contextlib
import sqlite3
import threading

import pytest

from tests.functional.certificates import rotating
from tests.functional.certificates.held_calls import Phone
from tests.functional.opensips.conftest import flavours

WRITING_SECONDS = 2.0  # as a commit on a slow disk takes


@pytest.fixture(params=[one for one in flavours() if one.values[0] == "real"])
def proxy(request, tmp_path, authority):
    with rotating.proxy(tmp_path, request.param, authority, rotating.ROTATED["proxy"]) as node:
        if not (node.root / "var/opensips.sqlite").exists():
            pytest.skip("this OpenSIPS has no sqlite")
        yield node


def test_who_registers_while_others_write_is_served_and_leaves_the_database_open(proxy):
    """From 3.6 on OpenSIPS waits half a second by itself, then fails and never lets go."""
    file = proxy.root / "var/opensips.sqlite"
    with contextlib.closing(Phone(proxy.tls["tls"], "TLS")) as phone:
        assert phone.login("tls-user") == 200
        with contextlib.closing(
            sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        ) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            timer = threading.Timer(WRITING_SECONDS, writer.execute, ["COMMIT"])
            timer.start()
            assert phone.login("wss-user") == 200
            timer.join()
        with contextlib.closing(sqlite3.connect(file, 5.0, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
