"""Specifications of the roles, for hosts named on the command line; each says which roles it is of.

pytest tests/testinfra --hosts=ssh://pbx-01,ssh://sip-01 --ssh-config=FILE --sudo
"""

from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FLEET = yaml.safe_load((REPOSITORY / "pillar/workspaces/lab-local.sls").read_text())["fleet"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without hosts there is nothing these could be true of, least of all this machine."""
    return None if config.option.hosts else True


def _role(item: pytest.Item) -> str:
    name = item.callspec.params["_testinfra_host"].backend.get_hostname()
    return "master" if name == "master" else FLEET[name]["role"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of each specification only the hosts whose role it is of."""
    here = Path(__file__).parent
    kept, gone = [], []
    for item in items:
        marker = item.get_closest_marker("roles")
        wanted = here not in item.path.parents or marker is None or _role(item) in marker.args
        (kept if wanted else gone).append(item)
    items[:] = kept
    if gone:
        config.hook.pytest_deselected(items=gone)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "roles(*names): which roles a specification is of")


@pytest.fixture
def fleet():
    """Who exists: {name: {role, zone, address}}."""
    return FLEET


@pytest.fixture
def node(host):
    """The host's entry in the fleet: {role, zone, address}."""
    return FLEET[host.backend.get_hostname()]
