"""Nodes of every workspace, offline: pillar, states and rendered trees, made by Salt itself."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.state

from tests.functional.test_pillar import Compiler
from tests.support import workspaces
from tests.support.loading import REPOSITORY, Utils

UTILS = Utils()
DAEMONS = {"sip": "opensips", "pbx": "freeswitch", "fsx": "freeswitch"}


class Region:
    """All workspaces at once, with dummies for secrets and outputs as stacks would publish them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.compiled = Compiler(directory / "compiler", dummies=workspaces.accounts())
        workspaces.publish(self.compiled.outputs)

    @cache  # noqa: B019 - one region a run
    def pillar(self, minion_id: str) -> dict[str, Any]:
        pillar = self.compiled(minion_id)
        assert "_errors" not in pillar, pillar["_errors"]
        return pillar

    def one(self, workspace: str, role: str) -> str:
        """Return the first node of a role."""
        found = workspaces.fleet(workspace, self.compiled.outputs)
        return next(f"{name}.{workspace}" for name, entry in found.items() if entry["role"] == role)

    @cache  # noqa: B019
    def low(self, minion_id: str) -> list[dict[str, Any]]:
        """Return the chunks of its highstate; what does not compile is text among them."""
        opts = salt.config.DEFAULT_MINION_OPTS.copy()
        opts.update(
            id=minion_id,
            root_dir=str(self.directory),
            cachedir=str(self.directory / "cache"),
            pki_dir=str(self.directory / "pki"),
            sock_dir=str(self.directory / "sock"),
            conf_file=str(self.directory / "minion"),
            extension_modules=str(self.directory / "extmods"),
            file_client="local",
            file_roots={"base": [str(REPOSITORY / "salt")]},
            module_dirs=[str(REPOSITORY)],
            grains={"os": "Debian", "os_family": "Debian", "oscodename": "bookworm"},
            log_level="error",
            pillar=self.pillar(minion_id),
        )
        with salt.state.HighState(opts, pillar_override=opts["pillar"]) as highstate:
            return highstate.compile_low_chunks()

    def context(self, minion_id: str) -> dict[str, Any]:
        """Return what its daemon's templates may use, secrets and all."""
        daemon = DAEMONS[minion_id.partition("-")[0]]
        (chunk,) = (
            one
            for one in self.low(minion_id)
            if (one["state"], one["fun"]) == (daemon, "configured")
        )
        held = chunk["context"]
        held = json.loads(held) if isinstance(held, str) else held
        return UTILS["secret_refs.resolve"](held, self.pillar(minion_id)["secret_values"], daemon)

    def tree(self, minion_id: str, **more: Any) -> dict[str, bytes]:
        """Return the files its daemon reads, by path."""
        daemon = DAEMONS[minion_id.partition("-")[0]]
        context = {**self.context(minion_id), **more}
        files = {}
        if daemon == "opensips":
            context["certificates"] = {
                name: str(self._deployed(minion_id, name)) for name in context["certificates"]
            }
            rows = UTILS["opensips_rows.rows"](context)
            elsewhere = UTILS["opensips_rows.filled_elsewhere"](context)
            files = UTILS["opensips_tables.files"](
                rows, context["release"], elsewhere, driver=context["local_driver"]
            )
        cache = str(self.directory / "templates")
        source = str(REPOSITORY / "salt" / daemon / "files")
        made = UTILS["tree_render.render"](source, context, cache, daemon, files)
        return made["tree"]

    def _deployed(self, minion_id: str, name: str) -> Path:
        """Put a certificate where its state would."""
        pillar = self.pillar(minion_id)
        held = UTILS["secret_refs.resolve"](pillar["certificates"][name], pillar["secret_values"])
        directory = self.directory / "certificates" / name
        directory.mkdir(parents=True, exist_ok=True)
        for part in ("chain", "key"):
            (directory / f"{part}.pem").write_text(held[part])
        return directory


@pytest.fixture(scope="session")
def region(tmp_path_factory: pytest.TempPathFactory) -> Region:
    return Region(tmp_path_factory.mktemp("region"))
