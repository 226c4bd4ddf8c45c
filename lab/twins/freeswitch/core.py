"""What the whole switch shares: limits, pause flags, channels, the loaded configuration."""

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import levels
from acl import AccessLists
from calls import Call
from directory import Directory
from xmltree import Tree

# Calls reach the tables behind `show` through a queue; 20 to 80 ms were measured.
_TABLE_SECONDS = 0.04
log = logging.getLogger("freeswitch")


class Core:
    """State that ESL commands and SIP profiles read and change."""

    def __init__(self, conf: Path, directories: dict[str, str]) -> None:
        self.conf = conf
        self.started = time.time()
        self.directories = directories
        self.variables = {
            **directories,
            "conf_dir": str(conf),
            "core_uuid": str(uuid.uuid4()),
            "local_ip_v4": "127.0.0.1",
        }
        self.tree = self.read_tree()
        self.acl = AccessLists(self.tree.configuration("acl.conf"))
        self.users = Directory(lambda: self.tree.section("directory"))
        switch = self.tree.settings("switch.conf")
        self.max_sessions = _number(switch.get("max-sessions"), 1000)
        self.sps = _number(switch.get("sessions-per-second"), 30)
        level = levels.number(switch.get("loglevel", ""))
        levels.apply(level if level is not None else len(levels.NAMES) - 1)
        # Read at start only, as the real switch does.
        first = _number(switch.get("rtp-start-port"), 16384)
        last = _number(switch.get("rtp-end-port"), 32768)
        self._rtp_ports = itertools.cycle(range(first + first % 2, last, 2))
        self.calls: dict[str, Call] = {}
        self.dialogs: dict[tuple[str, str], Call] = {}
        self.ending: dict[tuple[str, str], Call] = {}  # waiting for the answer to our BYE
        self.tasks: set[asyncio.Task[None]] = set()
        self.registrations: dict[str, tuple[str, float]] = {}
        self.paused_inbound = self.paused_outbound = False
        self.stopping = ""  # "", elegant, asap, now
        self.total = self.peak = 0
        self.modules = self._modules_to_load()
        self.bindings: list[tuple[str, str]] = []  # of mod_xml_curl
        self._second, self._this_second = 0, 0
        self.shown: dict[str, Call] = {}  # what `show` knows, a moment late

    def read_tree(self) -> Tree:
        """Read the configuration; freeswitch.xml.fsxml keeps it, secrets and all."""
        tree = Tree(self.conf, self.variables)
        (Path(self.directories["log_dir"]) / "freeswitch.xml.fsxml").write_text(tree.text)
        return tree

    def reload_tree(self) -> None:
        """Replace the tree; TreeError leaves the old one in force."""
        self.tree = self.read_tree()

    def _modules_to_load(self) -> set[str]:
        found = map(self.tree.configuration, ("modules.conf", "post_load_modules.conf"))
        lists = (one.iter("load") for one in found if one is not None)
        return {load.get("module", "") for loads in lists for load in loads}

    def next_rtp_port(self) -> int:
        return next(self._rtp_ports)

    def busy(self) -> bool:
        """Whether a new session is refused by pause, shutdown or the session limit."""
        return self.paused_inbound or self.stopping == "now" or len(self.calls) >= self.max_sessions

    @property
    def ready(self) -> bool:
        """What `status` says: paused for inbound calls alone it still calls itself ready."""
        return not (self.stopping == "now" or (self.paused_inbound and self.paused_outbound))

    def over_rate(self) -> bool:
        """Count one attempt; True when this second's are used up."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._this_second = second, 0
        self._this_second += 1
        return self._this_second > self.sps

    @property
    def current_rate(self) -> int:
        return self._this_second if int(time.monotonic()) == self._second else 0

    def add(self, call: Call) -> None:
        self.calls[call.uuid] = call
        self.dialogs[call.invite.call_id, call.tag] = call
        self._later(self.shown.__setitem__, call.uuid, call)
        self.total += 1
        self.peak = max(self.peak, len(self.calls))
        log.info("new channel %s [%s]", call.destination, call.uuid)

    def remove(self, call: Call) -> None:
        self.calls.pop(call.uuid, None)
        self.dialogs.pop((call.invite.call_id, call.tag), None)
        self._later(self.shown.pop, call.uuid, None)
        log.info("hangup [%s]", call.uuid)

    def _later(self, change: Callable[..., object], *arguments: object) -> None:
        asyncio.get_running_loop().call_later(_TABLE_SECONDS, change, *arguments)

    async def hang_up(self, *calls: Call, reason: str) -> None:
        """Send BYE with a Reason to calls and wait for the answers."""
        for call in calls:
            self.ending[call.invite.call_id, call.tag] = call
            self.remove(call)
        await asyncio.gather(*(call.hang_up(reason) for call in calls))

    def registrations_now(self) -> int:
        now = time.time()
        self.registrations = {k: v for k, v in self.registrations.items() if v[1] > now}
        return len(self.registrations)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default
