"""The API commands: what fs_cli, Guardian and dashboards ask, answered byte for byte as 1.10.12.

A handler takes the words behind its command and returns the reply; one that waits is a coroutine.
"""

import json
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Awaitable
from xml.sax.saxutils import escape

from acl import AccessLists
from core import VERSION
from sofia import MINIMUM_UP_SECONDS, RESTART_SECONDS, Profile
from switch import Switch
from xmltree import TreeError

_LINE = "=" * 97
_MANAGER = 'SIP;cause=703;text="MANAGER_REQUEST"'
_CLEARED = 'Q.850;cause=16;text="NORMAL_CLEARING"'
_FSCTL_USAGE = (
    "[send_sighup|hupall|pause [inbound|outbound]|resume [inbound|outbound]|"
    "shutdown [cancel|elegant|asap|now|restart]|sps|max_sessions|loglevel [level]]\n"
)
_LEVELS = ("console", "alert", "crit", "err", "warning", "notice", "info", "debug")


class Commands:
    """The command table of one switch."""

    def __init__(self, switch: Switch) -> None:
        self.switch, self.core = switch, switch.core

    async def run(self, line: str) -> str:
        """Run one API command line and return its reply."""
        name, _, rest = line.strip().partition(" ")
        handler = getattr(self, f"api_{name}", None)
        if handler is None or not name.isidentifier():
            return f"-ERR {name} Command not found!\n"
        reply: str | Awaitable[str] = handler(rest.strip())
        return reply if isinstance(reply, str) else await reply

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

    @property
    def _ready(self) -> bool:
        return self.core.stopping not in ("asap", "now")

    def api_status(self, _: str) -> str:
        core = self.core
        up = ", ".join(
            f"{n} {unit.removesuffix('s') if n == 1 else unit}"
            for unit, n in self._uptime_parts().items()
        )
        return (
            f"UP {up}\nFreeSWITCH (Version {VERSION}  64bit) is"
            f" {'ready' if self._ready else 'not ready'}\n"
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
            return '{"status":"error","message":"Invalid JSON"}\n'
        if asked.get("command") != "status":
            return json.dumps({**asked, "status": "error"}, separators=(",", ":")) + "\n"
        core = self.core
        response = {
            "systemStatus": "ready" if self._ready else "not ready",
            "uptime": self._uptime_parts(),
            "version": f"{VERSION}  64bit",
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
        return json.dumps({**asked, "status": "success", "response": response},
                          separators=(",", ":")) + "\n"  # fmt: skip

    def api_version(self, which: str) -> str:
        if which == "short":
            return f"{VERSION}\n"
        return f"FreeSWITCH Version {VERSION} (Guardian lab twin)\n"

    def api_uptime(self, _: str) -> str:
        return f"{int(time.time() - self.core.started)}\n"

    def api_global_getvar(self, name: str) -> str:
        variables = self.core.tree.variables
        if name:
            return variables.get(name, "")
        return "".join(f"{key}={value}\n" for key, value in variables.items())

    def api_show(self, what: str) -> str:
        words = what.split()
        kind = words[0] if words else ""
        if kind not in ("calls", "channels", "registrations"):
            return "-USAGE: codec|endpoint|application|api|calls|channels|registrations\n"
        if kind == "registrations":
            rows = [
                {"reg_user": user, "url": contact}
                for user, (contact, _) in self.core.registrations.items()
                if self.core.registrations_now()
            ]
        else:
            rows = [self._row(key) for key in self.core.calls]
        if "count" in words:
            return f"\n{len(rows)} total.\n"
        if words[1:] == ["as", "json"]:
            table: dict[str, object] = {"row_count": len(rows)}
            return json.dumps({**table, **({"rows": rows} if rows else {})})
        if not rows:
            return "\n0 total.\n"
        lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
        return "\n".join(lines) + f"\n\n{len(rows)} total.\n"

    def _row(self, key: str) -> dict[str, str]:
        call = self.core.calls[key]
        return {
            "uuid": key,
            "direction": "inbound",
            "created": time.strftime("%F %T", time.localtime(call.created)),
            "created_epoch": str(int(call.created)),
            "name": f"sofia/{call.profile}/{call.caller}@{call.source[0]}",
            "state": "CS_EXECUTE",
            "cid_num": call.caller,
            "ip_addr": call.source[0],
            "dest": call.destination,
            "callstate": "ACTIVE" if call.answered else "RINGING",
        }

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
        if section == "root":
            return ET.tostring(self.core.tree.root, encoding="unicode") + "\n"
        found: ET.Element | None = self.core.tree.section(section)
        if found is not None and len(rest) == 3:
            tag, key, value = rest
            found = next((e for e in found.findall(tag) if e.get(key) == value), None)
        return ET.tostring(found, encoding="unicode") + "\n" if found is not None else "-ERR\n"

    def api_xml_flush_cache(self, _: str) -> str:
        return "+OK cleared 0 entries\n"

    def api_module_exists(self, name: str) -> str:
        return "true" if name in self.core.modules else "false"

    def api_load(self, name: str) -> str:
        if name not in self.switch.known_modules:
            return "+OK Reloading XML\n-ERR [module load file routine returned an error]\n"
        if name in self.core.modules:
            return "+OK Reloading XML\n-ERR [Module already loaded]\n"
        self.core.modules.add(name)
        return "+OK Reloading XML\n+OK\n"

    def api_unload(self, name: str) -> str:
        if name not in self.core.modules:
            return "-ERR [No such module!]\n"
        self.core.modules.discard(name)
        return "+OK\n"

    async def api_reload(self, name: str) -> str:
        if name == "mod_event_socket":
            self._reparse()
            await self.switch.reopen_event_socket()
        return "+OK Reloading XML\n+OK module unloaded\n+OK module loaded\n"

    # calls

    async def api_uuid_kill(self, text: str) -> str:
        call = self.core.calls.get(text.split()[0] if text else "")
        if call is None:
            return "-ERR No such channel!\n"
        self.switch.spawn(self.core.hang_up(call, reason=_CLEARED))
        return "+OK\n"

    async def api_hupall(self, _: str) -> str:
        self.switch.spawn(self.core.hang_up(*self.core.calls.values(), reason=_MANAGER))
        return "+OK hangup all channels with cause MANAGER_REQUEST\n"

    def api_bgapi(self, line: str) -> str:
        self.switch.spawn(self.run(line))
        return f"+OK Job-UUID: {uuid.uuid4()}\n"

    def api_originate(self, _: str) -> str:
        if self.core.paused_outbound:
            return "-ERR DESTINATION_OUT_OF_ORDER\n"
        return "-ERR SUBSCRIBER_ABSENT\n"  # the twin places no calls of its own

    # fsctl

    def api_fsctl(self, text: str) -> str | Awaitable[str]:
        words = text.split()
        if not words:
            return f"-USAGE: {_FSCTL_USAGE}"
        first, rest = words[0], words[1:]
        core = self.core
        match first:
            case "pause" | "resume":
                return self._pause(first == "pause", rest)
            case "pause_check":
                flags = {"inbound": core.paused_inbound, "outbound": core.paused_outbound}
                both = core.paused_inbound and core.paused_outbound
                return "true" if flags.get(rest[0] if rest else "", both) else "false"
            case "ready_check":
                return "true" if self._ready else "false"
            case "shutdown_check":
                return "true" if core.stopping in ("elegant", "asap") else "false"
            case "shutdown":
                return self._shutdown(rest[0] if rest else "")
            case "max_sessions":
                core.max_sessions = _count(rest, core.max_sessions)
                return f"+OK max sessions: {core.max_sessions}\n"
            case "sps":
                core.sps = _count(rest, core.sps)
                return f"+OK sessions per second: {core.sps}\n"
            case "loglevel":
                level = rest[0].lower() if rest else "debug"
                number = _LEVELS.index(level) if level in _LEVELS else 7
                return f"+OK log level: {_LEVELS[number].upper()} [{number}]\n"
            case "hupall":
                self.switch.spawn(core.hang_up(*core.calls.values(), reason=_MANAGER))
                return "+OK\n"
            case "send_sighup":
                self.switch.rotate_log()
                return "+OK\n"
        return f"-ERR Invalid command\nUSAGE: fsctl {_FSCTL_USAGE}"

    def _pause(self, paused: bool, which: list[str]) -> str:
        if which[:1] != ["outbound"]:
            self.core.paused_inbound = paused
        if which[:1] != ["inbound"]:
            self.core.paused_outbound = paused
        return "+OK\n"

    async def _shutdown(self, how: str) -> str:
        if how == "cancel":
            # Lifts the pause too, whoever set it.
            self.core.stopping = ""
            self.core.paused_inbound = self.core.paused_outbound = False
            self.switch.cancelled.set()
            return "+OK\n"
        if how in ("elegant", "asap"):
            # Blocks its connection until the last call has ended or somebody cancels.
            await self.switch.stop_when_empty(how)
            return "+OK\n"
        self.switch.stop_now()
        return "+OK\n"

    # sofia

    def api_sofia(self, text: str) -> str | Awaitable[str]:
        words = text.split()
        match words:
            case ["status"]:
                return self._sofia_table()
            case ["status", "profile", name]:
                profile = self.switch.profiles.get(name)
                return self._profile_text(profile) if profile else "Invalid Profile!\n"
            case ["xmlstatus"]:
                return self._sofia_xml()
            case ["xmlstatus", "profile", name]:
                profile = self.switch.profiles.get(name)
                return self._profile_xml(profile) if profile else "Invalid Profile!\n"
            case ["xmlstatus", "gateway"]:
                return self._gateways_xml()
            case ["xmlstatus", "gateway", name]:
                return self._gateway_xml(name)
            case ["profile", name, "start"]:
                return self._start(name)
            case ["profile", name, *action] if action:
                found = self.switch.profiles.get(name)
                return self._profile_action(found, action) if found else f"Invalid Profile [{name}]"
        return "-USAGE: sofia status|xmlstatus|profile <name> [start|stop|restart|rescan|killgw]\n"

    def _profile_action(self, profile: Profile, action: list[str]) -> str:
        match action:
            case ["rescan"]:
                said = self._reparse()
                element = self.switch.profile_element(profile.name)
                if element is not None:
                    profile.rescan(element)
                return f"Reload XML [{said}]\n+OK scan complete\n"
            case ["killgw", name]:
                if profile.gateways.kill(name):
                    return "+OK gateway marked for deletion.\n"
                return "-ERR no such gateway.\n"
            case ["restart" | "stop" as how]:
                left = MINIMUM_UP_SECONDS - profile.seconds_up
                if left > 0:
                    return (
                        f"Profile {profile.name} must be up for at least {MINIMUM_UP_SECONDS}"
                        f" seconds to stop/restart.\nPlease wait {left} second{'s'[: left != 1]}\n"
                    )
                said = self._reparse()
                wait = RESTART_SECONDS if how == "restart" else None
                self.switch.spawn(
                    self.switch.stop_profile(profile, _CLEARED, wait if said == "Success" else None)
                )
                doing = "restarting" if how == "restart" else "stopping"
                return f"Reload XML [{said}]\n{doing}: {profile.name}"
        return "Invalid command!\n"

    async def _start(self, name: str) -> str:
        if name in self.switch.profiles:
            return f"{name} is already running\n"
        said = self._reparse()
        started = await self.switch.start_profile(name)
        outcome = f"{name} started successfully" if started else f"Failure starting {name}"
        return f"Reload XML [{said}]\n{outcome}\n"

    def _gateways(self) -> list[tuple[Profile, str]]:
        return [(p, name) for p in self.switch.profiles.values() for name in p.gateways.by_name]

    def _sofia_table(self) -> str:
        lines = [f"{'Name':>25}\t{'   Type'}\t{'Data':>42}\tState", _LINE]
        for profile in self.switch.profiles.values():
            state = f"RUNNING ({len(profile.calls())})"
            lines.append(f"{profile.name:>25}\tprofile\t{profile.contact:>42}\t{state}")
            for name, gateway in profile.gateways.by_name.items():
                data = f"sip:{gateway.user}@{gateway.realm}"
                lines.append(
                    f"{f'{profile.name}::{name}':>25}\tgateway\t{data:>42}\t{gateway.state}"
                )
        count = len(self.switch.profiles)
        lines += [_LINE, f"{count} profile{'s'[: count != 1]} 0 aliases"]
        return "\n".join(lines) + "\n"

    def _sofia_xml(self) -> str:
        lines = ['<?xml version="1.0" encoding="ISO-8859-1"?>', "<profiles>"]
        for profile in self.switch.profiles.values():
            lines += _tagged("profile", name=profile.name, type="profile", data=profile.contact,
                             state=f"RUNNING ({len(profile.calls())})")  # fmt: skip
            for name, gateway in profile.gateways.by_name.items():
                data = f"sip:{gateway.user}@{gateway.realm}"
                lines += _tagged("gateway", name=name, type="gateway", data=data,
                                 state=gateway.state)  # fmt: skip
        return "\n".join([*lines, "", "</profiles>"]) + "\n"

    def _profile_facts(self, profile: Profile) -> dict[str, object]:
        s = profile.settings
        return {
            "name": profile.name,
            "domain-name": "N/A",
            "auto-nat": "false",
            "db-name": f"sofia_reg_{profile.name}",
            "pres-hosts": "",
            "dialplan": s.get("dialplan", "XML"),
            "context": s.get("context", "default"),
            "challenge-realm": s.get("challenge-realm", "auto_to"),
            "rtp-ip": s.get("rtp-ip", "127.0.0.1"),
            "sip-ip": s.get("sip-ip", "127.0.0.1"),
            "url": profile.contact,
            "bind-url": f"{profile.contact};transport=udp,tcp",
            "hold-music": "N/A",
            "outbound-proxy": s.get("outbound-proxy", "N/A"),
            "inbound-codecs": s.get("inbound-codec-prefs", ""),
            "outbound-codecs": s.get("outbound-codec-prefs", ""),
            "tel-event": "101",
            "dtmf-mode": "rfc2833",
            "cng": "13",
            "session-to": "0",
            "max-dialog": "0",
            "max-recv-rps": s.get("max-recv-requests-per-second", "1000"),
            "nomedia": "false",
            "late-neg": "false",
            "proxy-media": "false",
            "aggressive-nat": "false",
            "calls-in": profile.calls_in,
            "calls-out": 0,
            "failed-calls-in": profile.failed_in,
            "failed-calls-out": 0,
            "registrations": self.core.registrations_now(),
        }

    def _profile_text(self, profile: Profile) -> str:
        facts = self._profile_facts(profile).items()
        return "\n".join([_LINE, *(f"{k.title():<17}\t{v}" for k, v in facts)]) + "\n"

    def _profile_xml(self, profile: Profile) -> str:
        facts = self._profile_facts(profile).items()
        return "\n".join([
            '<?xml version="1.0" encoding="ISO-8859-1"?>', "<profile>", "  <profile-info>",
            *(f"    <{key}>{escape(str(value))}</{key}>" for key, value in facts),
            "  </profile-info>", "</profile>",
        ]) + "\n"  # fmt: skip

    def _gateway_lines(self, profile: Profile, name: str) -> list[str]:
        gateway = profile.gateways.by_name[name]
        facts = {
            "name": name,
            "profile": profile.name,
            "scheme": "Digest",
            "realm": gateway.realm,
            "username": gateway.user,
            "password": "yes" if gateway.settings.get("password") else "no",
            "proxy": f"sip:{gateway.proxy.removeprefix('sip:')}",
            "context": gateway.settings.get("context", profile.settings.get("context", "default")),
            "expires": gateway.settings.get("expire-seconds", "3600"),
            "state": gateway.state,
            "status": "DOWN" if gateway.state == "FAIL_WAIT" else "UP",
            "uptime-usec": int((time.time() - gateway.created) * 1_000_000),
        }
        body = [f"    <{key}>{escape(str(value))}</{key}>" for key, value in facts.items()]
        return ["  <gateway>", *body, "  </gateway>"]

    def _gateways_xml(self) -> str:
        lines = ['<?xml version="1.0" encoding="ISO-8859-1"?>', "<gateways>"]
        for profile, name in self._gateways():
            lines += self._gateway_lines(profile, name)
        return "\n".join([*lines, "</gateways>"]) + "\n"

    def _gateway_xml(self, wanted: str) -> str:
        for profile, name in self._gateways():
            if name == wanted and not profile.gateways.by_name[name].marked:
                head = '<?xml version="1.0" encoding="ISO-8859-1"?>'
                return "\n".join([head, *self._gateway_lines(profile, name)]) + "\n"
        return "Invalid Gateway!\n"


def _tagged(tag: str, **values: str) -> list[str]:
    inner = [f"<{key}>{escape(value)}</{key}>" for key, value in values.items()]
    return [f"<{tag}>", *inner, f"</{tag}>"]


def _count(words: list[str], default: int) -> int:
    return int(words[0]) if words and words[0].isdecimal() else default
