"""A CA, AWS on loopback and a master that wants a certificate."""

import time
import types

import acme.client
import pytest

from tests.support.acme import Master, pebble
from tests.support.aws import running


@pytest.fixture(scope="session")
def aws():
    with running() as aws:
        yield aws


@pytest.fixture(scope="session")
def texts():
    """What a name's TXT records are; a test puts the function there."""
    return {"of": lambda name: ()}


@pytest.fixture(scope="session")
def ca(tmp_path_factory, texts):
    root = tmp_path_factory.mktemp("ca")
    with pebble(root, lambda name: texts["of"](name), AUTHZREUSE=0) as server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """The library looks once a second whether a CA is done; Pebble is at once."""
    pauses = types.SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.02)))
    monkeypatch.setattr(acme.client, "time", pauses)


@pytest.fixture
def master(tmp_path, ca):
    return Master(tmp_path, ca)
