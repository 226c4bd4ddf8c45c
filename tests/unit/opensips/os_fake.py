"""The OpenSIPS modules on real utils, with a daemon that answers what the test wants."""

import contextlib
import grp
import os
import pwd
from pathlib import Path
from typing import Any

from tests.support.loading import Utils, load

mi = load("_utils/mi.py")
tables = load("_utils/opensips_tables.py")

STANDING = b'modparam("cfgutils", "shvset", "draining=i:0")\n'


class Fake:
    """A node: its files, what its daemon answers, and what was asked of it."""

    def __init__(self, root: Path, minion: str = "sip-01.lab-local") -> None:
        self.root, self.conf = root, root / "conf"
        self.asked: list[tuple[str, dict]] = []
        self.services: list[str] = []
        self.answers: dict[str, Any] = {
            "get_statistics": {"tm:inuse_transactions": 0, "dialog:active_dialogs": 0},
            "version": {"Server": "OpenSIPS (3.4.18 (x86_64/linux))"},
            "ds_list": self.sets({"1": [("sip:10.0.0.1:5060", "Active", "pbx-01")]}),
            "shv_get": lambda params: {"VAR": {"type": "integer", "value": self.draining}},
            "shv_set": self._shv_set,
            "sr_get_status": {"Status": 1},
            "dbt_reload": "OK",
        }
        self.draining, self.mark = 0, None
        self.pillar: dict[str, Any] = {}
        self.utils = Utils()
        self.utils["mi.call"] = self.call
        self.salt: dict[str, Any] = {
            "voice.drained_mark": lambda: self.mark,
            "pillar.get": lambda key, default, unmask: self.pillar.get(key, default),
            "voice.in_service": lambda: {"state": "in_service", "calls": 0, "drained_mark": None},
            "service.enabled": lambda name: True,
            "service.enable": lambda name: self.services.append(f"enable {name}"),
            "service.start": lambda name: self._service("start", name),
            "service.stop": lambda name: self._service("stop", name),
            "service.restart": lambda name: self._service("restart", name),
            "service.status": lambda name: (root / name).exists(),
            "service.systemctl_reload": lambda: self.services.append("daemon-reload"),
            "cmd.run_stdout": lambda *_, **__: "version: opensips 3.6.8 (x86_64/linux)",
            "cp.cache_dir": lambda source: [],
        }
        self.opts: dict[str, Any] = {
            "id": minion,
            "test": False,
            "cachedir": str(root / "cache"),
            "opensips.conf_dir": str(self.conf),
            "opensips.state_dir": str(root / "state"),
            "opensips.var_dir": str(root / "var"),
            "opensips.pidfile": str(root / "pid"),
            "opensips.binary": str(root / "opensips"),
            "opensips.system_root": str(root / "system"),
            "opensips.user": pwd.getpwuid(os.geteuid()).pw_name,
            "opensips.group": grp.getgrgid(os.getegid()).gr_name,
        }
        self.context: dict[str, Any] = {}
        self.module = load(
            "_modules/opensips.py",
            __opts__=self.opts,
            __salt__=self.salt,
            __utils__=self.utils,
            __context__=self.context,
        )
        self.write("conf.d/15-standing.cfg", STANDING)
        self.table("dispatcher", [{"setid": 1, "destination": "sip:10.0.0.1:5060"}])
        (root / "pid").write_text(str(os.getpid()))

    def call(
        self, command: str, params: dict | None = None, *, socket: str = "", timeout: float = 5.0
    ) -> Any:
        self.asked.append((command, params or {}))
        if command not in self.answers:
            raise mi.MiError(f"MI x: {command} unknown there; is its module loaded?", -32601)
        answer = self.answers[command]
        answer = answer(params) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def commands(self) -> list[str]:
        return [command for command, _ in self.asked]

    def write(self, path: str, content: bytes) -> None:
        target = self.conf / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o640)
        for directory in (self.conf, target.parent):
            directory.chmod(0o750)

    def table(self, name: str, rows: list[dict]) -> None:
        self.write(f"dbtext/{name}", tables.encode(name, rows))

    def down(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / "pid").unlink()

    def remember(self) -> None:
        """What runs is what is on disk now."""
        reconciler = self.module._util("reconcile.of", self.module._Daemon())
        life = reconciler.running()["life"]
        reconciler.remember(life, self.module._tree(), {})

    @staticmethod
    def sets(sets: dict[str, list[tuple[str, str, str]]]) -> dict:
        return {
            "PARTITIONS": [
                {
                    "name": "default",
                    "SETS": [
                        {
                            "id": int(number),
                            "Destinations": [
                                {"URI": uri, "state": state, "attr": node}
                                for uri, state, node in rows
                            ],
                        }
                        for number, rows in sets.items()
                    ],
                }
            ]
        }

    def _shv_set(self, params: dict) -> str:
        self.draining = params["value"]
        return "OK"

    def _service(self, verb: str, name: str) -> bool:
        self.services.append(f"{verb} {name}")
        if name.endswith(".socket"):
            (self.root / name).unlink(missing_ok=True)
            if verb == "start":
                (self.root / name).touch()
        return True
