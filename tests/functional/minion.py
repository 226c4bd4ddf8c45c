"""A minion of our own without a master: the real loader, our modules, one daemon, no systemd."""

import contextlib
import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import salt.client
import salt.config

from tests.support.loading import REPOSITORY

STUBS = Path(__file__).parent / "stubs"


class Minion:
    """A minion and the daemon its stubbed service manager starts; `context` is its pillar's."""

    component = ""

    def __init__(
        self, root: Path, minion_id: str, command: list[str], pid: Path, **options: str
    ) -> None:
        self.root = root
        self.conf = root / "conf"
        self.context: dict[str, Any] = {}
        self._pidfile = pid
        opts = salt.config.DEFAULT_MINION_OPTS.copy()
        opts.update(
            {
                "id": minion_id,
                "root_dir": str(root),
                "cachedir": str(root / "cache-salt"),
                "pki_dir": str(root / "pki"),
                "sock_dir": str(root / "sock"),
                "log_file": str(root / "salt.log"),
                "conf_file": str(root / "minion"),
                "extension_modules": str(root / "extmods"),
                "file_client": "local",
                "file_roots": {"base": [str(REPOSITORY / "salt"), str(root / "files")]},
                "pillar_roots": {"base": [str(root / "pillar")]},
                "module_dirs": [str(REPOSITORY), str(STUBS)],
                "grains": {},
                "log_level": "error",
                "state_verbose": False,
                "voice.state_dir": str(root / "voice"),
                "test.daemon": command,
                "test.pidfile": str(pid),
            }
        )
        opts.update({f"{self.component}.{name}": value for name, value in options.items()})
        self.caller = salt.client.Caller(mopts=opts)

    def changed(self, **keys: Any) -> dict[str, Any]:
        """Return the context with some keys replaced; ``a__b`` is key b of a."""
        context = copy.deepcopy(self.context)
        for dotted, value in keys.items():
            at = context
            *path, last = dotted.split("__")
            for key in path:
                at = at.setdefault(key, {})
            at[last] = value
        return context

    def give_pillar(self, **keys: Any) -> None:
        """Have the minion compile this pillar from now on."""
        directory = self.root / "pillar"
        directory.mkdir(exist_ok=True)
        (directory / "top.sls").write_text("base: {'*': [given]}\n")
        (directory / "given.sls").write_text("#!json\n" + json.dumps(keys))
        self.caller.sminion.gen_modules()

    def configured(self, context: dict[str, Any] | None = None, test: bool = False) -> dict:
        return self.state("configured", test, name=str(self.conf), context=context or self.context)

    def running(self, test: bool = False) -> dict:
        return self.state("running", test, name=self.component)

    def state(self, which: str, test: bool, **arguments: Any) -> dict:
        given = self.caller.cmd("state.single", f"{self.component}.{which}", test=test, **arguments)
        assert isinstance(given, dict), given
        (ret,) = given.values()
        return ret

    def call(self, function: str, *arguments: Any, **keywords: Any) -> Any:
        return self.caller.cmd(f"{self.component}.{function}", *arguments, **keywords)

    def service_log(self) -> list[str]:
        log = self.root / "service.log"
        return log.read_text().split() if log.exists() else []

    def close(self) -> None:
        """End all that runs from this directory: a main process that is killed leaves workers."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(word.startswith(f"{self.root}/") for word in words[1:]):
                    os.kill(int(process.name), signal.SIGKILL)
                    os.waitpid(int(process.name), 0)
