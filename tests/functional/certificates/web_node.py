"""A minion of our own that has a certificate of pillar and a web server that serves it."""

import json
import os
import pwd
import sys
import time
from pathlib import Path
from typing import Any

import salt.beacons

from tests.functional.minion import Minion
from tests.support.bundles import GOOD
from tests.support.ports import free_ports

HERE = Path(__file__).parent
ME = pwd.getpwuid(os.geteuid()).pw_name


class WebNode(Minion):
    component = "certificate"

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.port, self.directory = free_ports(), root / "tls"
        self.home, pidfile = self.directory / "web", root / "web.pid"
        self.at = f"127.0.0.1:{self.port}"
        script = [sys.executable, str(HERE / "web_server.py")]
        command = [*script, str(self.home), str(self.port), str(pidfile)]
        (root / "pillar").mkdir()
        super().__init__(root, "fsx-01.lab-local", command, pidfile)
        self.holds(GOOD)

    def holds(self, bundle: dict[str, Any], **pillar: Any) -> None:
        """Have pillar hold a bundle, and nothing else but what is given."""
        asked = {"service": "web", "served": [self.at], "directory": str(self.directory)}
        given = {"certificates": {"web": {**asked, **bundle}}, **pillar}
        (self.root / "pillar" / "top.sls").write_text("base: {'*': [given]}\n")
        (self.root / "pillar" / "given.sls").write_text("#!json\n" + json.dumps(given))
        self.caller.sminion.gen_modules(initial_load=True)

    def deployed(self, test: bool = False, **arguments: Any) -> dict:
        """Apply the state as the SLS does."""
        given = {"directory": str(self.directory), "layout": "nginx", "owner": ME,
                 "service": "web", "served": [self.at]}  # fmt: skip
        return self.state("deployed", test, name="web", **{**given, **arguments})

    def start(self) -> None:
        self.caller.cmd("service.start", "web")
        deadline = time.monotonic() + 10
        while not self._pidfile.exists():
            assert time.monotonic() < deadline, "the web server does not come up"
            time.sleep(0.02)

    def serves(self) -> str:
        return self.call("probe", "127.0.0.1", self.port)["serial"]

    def reloads(self) -> int:
        return self.service_log().count("reload")

    def look(self, *settings: dict[str, Any]) -> list[dict[str, Any]]:
        """What the beacon says, run by Salt's own machinery."""
        minion = self.caller.sminion
        config = {"certificate_expiry": list(settings)}
        return salt.beacons.Beacon(minion.opts, minion.functions).process(config, {})
