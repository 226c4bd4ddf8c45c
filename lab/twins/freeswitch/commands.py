"""The API commands of the core, answered as the real ones are.

A handler takes the words behind its command and returns the reply; one that waits is a coroutine.
`fsctl`, `show` and `sofia` have files of their own.
"""

import asyncio
import json
import logging
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable

import levels
from acl import AccessLists
from callcenter import CallCenter
from fsctl import Control
from modules import COMMANDS, Modules
from show import Tables
from sofia_api import SofiaCommands
from switch import Switch
from version import SINCE_1_11_1, VERSION
from xmltree import TreeError

RELEASE = f"{VERSION}-release"
BUILD = "git twin 64bit"  # where the real one names its commit
# Hangup causes an operator may name; below 128 they are Q.850's.
_CAUSES = {"NORMAL_CLEARING": 16, "USER_BUSY": 17, "CALL_REJECTED": 21,
           "NORMAL_TEMPORARY_FAILURE": 41, "SYSTEM_SHUTDOWN": 701,
           "MANAGER_REQUEST": 703}  # fmt: skip
_EVENT_SECONDS = 0.02  # from an event to who listens for it
log = logging.getLogger("console")
Handler = Callable[[str], "str | Awaitable[str]"]


def hangup_reason(name: str) -> tuple[str, str]:
    """The cause's name and its Reason header; one we do not know is NORMAL_CLEARING."""
    cause = name.upper() if name.upper() in _CAUSES else "NORMAL_CLEARING"
    number = _CAUSES[cause]
    return cause, f'{"Q.850" if number < 128 else "SIP"};cause={number};text="{cause}"'


class Commands:
    """The command table of one switch."""

    def __init__(self, switch: Switch) -> None:
        self.switch, self.core = switch, switch.core
        self._modules = Modules(switch)
        self._others: dict[str, Handler] = {
            "fsctl": Control(switch).run,
            "show": Tables(self.core).run,
            "sofia": SofiaCommands(switch, self._reparse).run,
        }
        if "mod_callcenter" in self.core.modules:
            self._others["callcenter_config"] = CallCenter(self.core).run
        if SINCE_1_11_1:
            self._others["reloadcert"] = self._reload_certificates

    async def run(self, line: str) -> str:
        """Run one API command line and return its reply; an empty one has words, too."""
        name, _, rest = line.strip().partition(" ")
        handler: Handler | None = self._others.get(name) or getattr(self, f"api_{name}", None)
        unloaded = name in COMMANDS and COMMANDS[name] not in self.core.modules
        if handler is None or unloaded or not name.isidentifier():
            return f"-ERR {name} Command not found!\n"
        reply = handler(rest.strip())
        return (reply if isinstance(reply, str) else await reply) or "-ERR no reply\n"

    # status

    def _uptime_parts(self) -> dict[str, int]:
        up = time.time() - self.core.started
        whole = int(up)
        return {
            "years": whole // 31_536_000,
            "days": whole // 86_400 % 365,
            "hours": whole // 3600 % 24,
            "minutes": whole // 60 % 60,
            "seconds": whole % 60,
            "milliseconds": int(up * 1000) % 1000,
            "microseconds": int(up * 1_000_000) % 1000,
        }

    def api_status(self, _: str) -> str:
        core = self.core
        up = ", ".join(
            f"{n} {unit.removesuffix('s') if n == 1 else unit}"
            for unit, n in self._uptime_parts().items()
        )
        return (
            f"UP {up}\nFreeSWITCH (Version {RELEASE} {BUILD}) is"
            f" {'ready' if core.ready else 'not ready'}\n"
            f"{core.total} session(s) since startup\n"
            f"{len(core.calls)} session(s) - peak {core.peak}, last 5min {core.peak} \n"
            f"{core.current_rate} session(s) per Sec out of max {core.sps}, peak 0, last 5min 0 \n"
            f"{core.max_sessions} session(s) max\nmin idle cpu 0.00/100.00\n"
            "Current Stack Size/Max 240K/8192K\n"
        )

    def api_json(self, text: str) -> str:
        try:
            asked = json.loads(text)
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return "-ERR Parse error.\n"
        if asked.get("command") != "status":
            refusal = {"status": "error", "message": "Invalid request or non-existant command"}
            return _json({**asked, **refusal, "response": None})
        core = self.core
        response = {
            "systemStatus": "ready" if core.ready else "not ready",
            "uptime": self._uptime_parts(),
            "version": f"{RELEASE} {BUILD}",
            "sessions": {
                "count": {
                    "total": core.total,
                    "active": len(core.calls),
                    "peak": core.peak,
                    "peak5Min": core.peak,
                    "limit": core.max_sessions,
                },
                "rate": {"current": core.current_rate, "max": core.sps, "peak": 0, "peak5Min": 0},
            },
            "idleCPU": {"used": 0, "allowed": 100},
            "stackSizeKB": {"current": 240, "max": 8192},
        }
        return _json({**asked, "status": "success", "response": response})

    def api_version(self, which: str) -> str:
        if which == "short":
            return f"{RELEASE}\n"
        return f"FreeSWITCH Version {RELEASE}~twin~64bit ({BUILD})\n"

    def api_uptime(self, unit: str) -> str:
        factor = {"ms": 1000, "us": 1_000_000}.get(unit, 1)
        return f"{int((time.time() - self.core.started) * factor)}\n"

    def api_global_getvar(self, name: str) -> str:
        variables = self.core.variables
        if name:
            return variables.get(name, "")
        return "".join(f"{key}={value}\n" for key, value in variables.items())

    def api_log(self, text: str) -> str:
        level, _, words = text.partition(" ")
        number = levels.number(level)
        log.log(levels.in_python(7 if number is None else number), "[%s] %s", level, words)
        return "+OK\n"

    def api_echo(self, text: str) -> str:
        return text

    # configuration

    def api_reloadxml(self, _: str) -> str:
        return f"+OK [{self._reparse()}]\n"

    def _reparse(self) -> str:
        try:
            self.core.reload_tree()
        except TreeError as err:
            return str(err)
        return "Success"

    def api_reloadacl(self, _: str) -> str:
        said = self._reparse()
        if said != "Success":
            return f"-ERR [{said}]\n"
        self.core.acl = AccessLists(self.core.tree.configuration("acl.conf"))
        return "+OK acl reloaded\n"

    def api_acl(self, text: str) -> str:
        address, _, name = text.partition(" ")
        return "true" if self.core.acl.allows(address, name) else "false"

    def api_xml_locate(self, text: str) -> str:
        section, *rest = text.split() or ["root"]
        found: ET.Element | None = None
        if section == "root":
            found = self.core.tree.root
        elif len(rest) == 3:
            tag, key, value = rest
            children = self.core.tree.section(section).findall("*")
            found = next((e for e in children if e.tag == tag and e.get(key) == value), None)
        elif len(self.core.tree.section(section)):
            found = self.core.tree.section(section)
        if found is None:
            return "can't find anything\n"
        return ET.tostring(found, encoding="unicode", short_empty_elements=False) + "\n"

    def api_xml_flush_cache(self, text: str) -> str:
        return self.core.users.flush(text)

    def _reload_certificates(self, _: str) -> str:
        # Said before a file is looked at: whoever wants to know looks at what is served.
        loop = asyncio.get_running_loop()
        for profile in self.switch.profiles.values():
            loop.call_later(_EVENT_SECONDS, profile.reload_certificates)
        return "+OK cert reload event sent\n"

    # modules

    def api_module_exists(self, name: str) -> str:
        if not name:
            return ""
        return "true" if name in self.core.modules else "false"

    def _load(self, name: str) -> str:
        """What loading says in brackets, empty when it worked."""
        self._reparse()
        failed = self._modules.load(name)
        if name == "mod_callcenter" and not failed:
            self._others["callcenter_config"] = CallCenter(self.core).run
        return failed

    def api_load(self, name: str) -> str:
        if not name:
            return "-USAGE: <mod_name>\n"
        failed = self._load(name)
        return f"+OK Reloading XML\n-ERR [{failed}]\n" if failed else "+OK Reloading XML\n+OK\n"

    def api_unload(self, name: str) -> str:
        if not name:
            return "-USAGE: [-f] <mod_name>\n"
        failed = self._modules.unload(name)
        return f"-ERR [{failed}]\n" if failed else "+OK\n"

    def api_reload(self, name: str) -> str:
        if name == "mod_event_socket":
            # It would unload what carries the answer: the real one makes a job of it.
            self._reparse()
            self.switch.spawn(self.switch.reopen_event_socket())
            return f"+OK Job-UUID: {uuid.uuid4()}\n"
        stayed = self._modules.unload(name)
        failed = self._load(name)
        return (
            f"+OK Reloading XML\n"
            f"{f'-ERR unloading module [{stayed}]' if stayed else '+OK module unloaded'}\n"
            f"{f'-ERR loading module [{failed}]' if failed else '+OK module loaded'}\n"
        )

    # calls

    def api_uuid_exists(self, name: str) -> str:
        return "true" if name in self.core.calls else "false"

    def api_uuid_kill(self, text: str) -> str:
        if not text:
            return "-USAGE: <uuid> [cause]\n"
        name, _, cause = text.partition(" ")
        call = self.core.calls.get(name)
        if call is None:
            return "-ERR No such channel!\n"
        self.switch.spawn(self.core.hang_up(call, reason=hangup_reason(cause)[1]))
        return "+OK\n"

    def api_hupall(self, text: str) -> str:
        cause, reason = hangup_reason(text.split()[0] if text else "MANAGER_REQUEST")
        self.switch.spawn(self.core.hang_up(*self.core.calls.values(), reason=reason))
        return f"+OK hangup all channels with cause {cause}\n"

    def api_bgapi(self, line: str) -> str:
        self.switch.spawn(self.run(line))
        return f"+OK Job-UUID: {uuid.uuid4()}\n"

    def api_originate(self, text: str) -> str:
        if not text:
            return "-USAGE: <call url> <exten>|&<application_name>(<app_args>)\n"
        if self.core.paused_outbound:
            return "-ERR DESTINATION_OUT_OF_ORDER\n"
        return "-ERR NO_ROUTE_DESTINATION\n"  # the twin places no calls of its own


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"
