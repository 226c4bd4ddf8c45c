"""AWS on loopback, empty for every test, and a place in memory for the cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import aws as support


@pytest.fixture(scope="package")
def server() -> Iterator[support.Aws]:
    with support.running() as aws:
        yield aws


@pytest.fixture
def aws(server: support.Aws, monkeypatch: pytest.MonkeyPatch) -> support.Aws:
    server.reset()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def memory() -> Iterator[Path]:
    with support.in_memory() as directory:
        yield directory
