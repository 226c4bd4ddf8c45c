"""The utils under test, each as Salt's loader would make it."""

import pytest

from tests.support.loading import load


@pytest.fixture(scope="session")
def esl():
    return load("_utils/esl.py")


@pytest.fixture(scope="session")
def fsxml():
    return load("_utils/fsxml.py")


@pytest.fixture(scope="session")
def fs_changes():
    return load("_utils/fs_changes.py")


@pytest.fixture(scope="session")
def fs_table():
    return load("_utils/fs_table.py")


@pytest.fixture(scope="session")
def rules(fs_table):
    return fs_table.rules()


@pytest.fixture(scope="session")
def tree_render():
    return load("_utils/tree_render.py")


@pytest.fixture(scope="session")
def staged():
    return load("_utils/staged.py")


@pytest.fixture(scope="session")
def nodelock():
    return load("_utils/nodelock.py")


@pytest.fixture(scope="session")
def disruption():
    return load("_utils/disruption.py")
