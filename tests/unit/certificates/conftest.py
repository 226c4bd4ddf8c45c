"""A place for certificates whose pillar, daemon and sockets are the test's."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import GOOD
from tests.support.loading import Utils, load

ME = pwd.getpwuid(os.geteuid()).pw_name


class Shelf:
    """A directory of certificates and the module on real utils; ``services`` are those that run."""

    def __init__(self, root: Path) -> None:
        self.root, self.directory = root, root / "tls"
        self.home = self.directory / "default"
        self.pillar: dict[str, Any] = {"certificates": {"default": GOOD}}
        self.services: set[str] = set()
        self.reloads: list[str] = []
        self.utils = Utils()
        self.module = load(
            "_modules/certificate.py",
            __salt__={
                "pillar.get": self._pillar,
                "service.status": lambda name: name in self.services,
                "service.reload": self._reload,
            },
            __utils__=self.utils,
            __opts__={"voice.state_dir": str(root / "voice")},
            __grains__={},
        )

    def _pillar(self, key: str, default: Any = None, unmask: bool = False) -> Any:
        found: Any = self.pillar
        for part in key.split(":"):
            if not isinstance(found, dict) or part not in found:
                return default
            found = found[part]
        assert unmask or "PRIVATE KEY" not in str(found) or key == "certificates"
        return found

    def _reload(self, name: str) -> bool:
        self.reloads.append(name)
        return self.reload()

    def reload(self) -> bool:
        """What the service manager does; a test puts its own in place."""
        return True

    def deploy(self, bundle: Any = GOOD, **keywords: Any) -> dict[str, Any]:
        self.pillar["certificates"]["default"] = bundle
        given = {"directory": str(self.directory), "owner": ME, **keywords}
        return self.module.deploy("default", **given)

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.directory.rglob("*"))

    @property
    def live(self) -> Path:
        return self.home / "current"

    def versions(self) -> list[str]:
        return [one["version"] for one in self.module.versions("default", str(self.directory))]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)
