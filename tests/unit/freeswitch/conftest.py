"""Load a file of `_utils` the way Salt does: by path, as a module of its own."""

import importlib.util
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]


def load(name):
    spec = importlib.util.spec_from_file_location(f"utils_{name}", REPO / "_utils" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def esl():
    return load("esl")


@pytest.fixture(scope="session")
def fsxml():
    return load("fsxml")


@pytest.fixture(scope="session")
def fs_changes():
    return load("fs_changes")


@pytest.fixture(scope="session")
def tree_render():
    return load("tree_render")


@pytest.fixture(scope="session")
def staged():
    return load("staged")


@pytest.fixture(scope="session")
def nodelock():
    return load("nodelock")


@pytest.fixture(scope="session")
def disruption():
    return load("disruption")
