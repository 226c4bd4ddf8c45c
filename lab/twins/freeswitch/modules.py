"""Loading and unloading modules, and what that costs."""

import logging

import xml_curl
from core import Core
from switch import Switch

# What the packages of a plain installation bring.
_KNOWN = frozenset((
    "mod_console", "mod_logfile", "mod_event_socket", "mod_commands", "mod_dptools",
    "mod_dialplan_xml", "mod_sofia", "mod_loopback", "mod_conference", "mod_local_stream",
    "mod_tone_stream", "mod_opus", "mod_json_cdr", "mod_xml_curl", "mod_callcenter", "mod_hash",
    "mod_expr", "mod_esf", "mod_sndfile", "mod_native_file", "mod_spandsp",
))  # fmt: skip
# The API commands that come and go with their module.
COMMANDS = {"sofia": "mod_sofia", "callcenter_config": "mod_callcenter"}
_FAILED = "module load file routine returned an error"
log = logging.getLogger("freeswitch")


def start(core: Core) -> None:
    """Load what the configuration names; what cannot be is logged and left out."""
    named, core.modules = core.modules, set()
    for name in sorted(named):
        if _read(core, name):
            core.modules.add(name)
        else:
            log.error("Error Loading module %s.so: cannot open shared object file", name)


def _read(core: Core, name: str) -> bool:
    """Whether a module is there and content with its configuration, which it reads now."""
    if name == "mod_xml_curl":
        core.bindings = xml_curl.bindings(core.tree)
        return bool(core.bindings)
    return name in _KNOWN


class Modules:
    """The modules of a switch that runs; each answer is empty or what went wrong."""

    def __init__(self, switch: Switch) -> None:
        self._switch, self._core = switch, switch.core

    def load(self, name: str) -> str:
        if name in self._core.modules:
            return "Module already loaded"
        if not _read(self._core, name):
            return _FAILED
        self._core.modules.add(name)
        if name == "mod_sofia":
            self._switch.spawn(self._switch.start_all())
        return ""

    def unload(self, name: str) -> str:
        if name not in self._core.modules:
            return "No such module!"
        if name == "mod_commands":
            return "Module is not unloadable"
        if name == "mod_sofia":
            if self._core.calls:
                return "Module in use."
            self._switch.close_profiles()
        if name == "mod_xml_curl":
            self._core.bindings = []
        self._core.modules.discard(name)
        return ""
