"""`fsctl`: pause, limits, shutdown."""

import re
from collections.abc import Awaitable

import levels
from switch import MANAGER_REQUEST, Switch

_USAGE = (
    "[send_sighup|hupall|pause [inbound|outbound]|resume [inbound|outbound]|"
    "shutdown [cancel|elegant|asap|now|restart]|sps|max_sessions|loglevel [level]]\n"
)


class Control:
    """The session controls of one switch."""

    def __init__(self, switch: Switch) -> None:
        self.switch, self.core = switch, switch.core
        self._idle = 0.0  # the least idle CPU, 0 for no limit

    def run(self, text: str) -> str | Awaitable[str]:
        words = text.split()
        if not words:
            return f"-USAGE: {_USAGE}"
        first, rest = words[0], words[1:]
        core = self.core
        match first:
            case "pause" | "resume":
                return self._pause(first == "pause", rest)
            case "pause_check":
                return self._pause_check(rest[0] if rest else "")
            case "ready_check":
                return "true" if core.ready else "false"
            case "shutdown_check":
                return "true" if core.stopping in ("elegant", "asap") else "false"
            case "shutdown":
                return self._shutdown(rest)
            case "max_sessions":
                core.max_sessions = _count(rest) or core.max_sessions
                return f"+OK max sessions: {core.max_sessions}\n"
            case "sps":
                core.sps = _count(rest) or core.sps
                return f"+OK sessions per second: {core.sps}\n"
            case "last_sps":
                return f"+OK last sessions per second: {core.current_rate}\n"
            case "min_idle_cpu":
                return self._idle_cpu(rest)
            case "loglevel":
                return self._level(rest)
            case "hupall":
                calls = core.calls.values()
                self.switch.spawn(core.hang_up(*calls, reason=MANAGER_REQUEST))
                return "+OK\n"
            case "send_sighup":
                self.switch.hang_up_signal()
                return "+OK\n"
        return f"-ERR Invalid command\nUSAGE: fsctl {_USAGE}"

    def _pause(self, paused: bool, which: list[str]) -> str:
        if which[:1] != ["outbound"]:
            self.core.paused_inbound = paused
        if which[:1] != ["inbound"]:
            self.core.paused_outbound = paused
        return "+OK\n"

    def _pause_check(self, which: str) -> str:
        # Bare, it is only true when both directions are paused.
        inbound, outbound = self.core.paused_inbound, self.core.paused_outbound
        asked = {"inbound": inbound, "outbound": outbound}.get(which, inbound and outbound)
        return "true" if asked else "false"

    async def _shutdown(self, words: list[str]) -> str:
        if "cancel" in words:
            if self.core.stopping in ("elegant", "asap"):
                self.core.stopping = ""
        elif "elegant" in words or "asap" in words:
            # Holds its connection until the last call has ended or somebody cancels.
            await self.switch.stop_when_empty("asap" if "asap" in words else "elegant")
        else:
            self.switch.stop_now()
        return "+OK\n"

    def _level(self, words: list[str]) -> str:
        # The trap: without a level it does not tell, it turns the log off.
        level = levels.number(words[0]) if words else levels.DISABLED
        if level is None:
            return "-ERR syntax error, log level not set!\n"
        levels.apply(level)
        name = "DISABLE" if level == levels.DISABLED else levels.NAMES[level]
        return f"+OK log level: {name} [{level}]\n"

    def _idle_cpu(self, words: list[str]) -> str:
        if words and re.fullmatch(r"\d+(\.\d+)?", words[0]):
            self._idle = float(words[0])
        if self._idle:
            return f"+OK min idle cpu: {self._idle:.2f}"  # without an end of line
        return "+OK min idle cpu: DISABLED\n"


def _count(words: list[str]) -> int:
    return int(words[0]) if words and words[0].isascii() and words[0].isdecimal() else 0
