"""The switch: its profiles, how it stops, its log file."""

import asyncio
import logging
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from core import Core
from sofia import Profile

log = logging.getLogger("freeswitch")
SYSTEM_SHUTDOWN = 'SIP;cause=701;text="SYSTEM_SHUTDOWN"'
MANAGER_REQUEST = 'SIP;cause=703;text="MANAGER_REQUEST"'
NORMAL_CLEARING = 'Q.850;cause=16;text="NORMAL_CLEARING"'
_STOP_SECONDS = 2.0
_LOOK_SECONDS = 0.5


class Switch:
    """One FreeSWITCH: start profiles, stop them, stop all."""

    def __init__(self, core: Core, renew_log: Callable[[bool], None]) -> None:
        self.core = core
        self.profiles: dict[str, Profile] = {}
        self.stopped = asyncio.Event()
        self._renew_log = renew_log
        self.reopen_event_socket: Callable[[], Awaitable[None]]

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something beside the command that asked for it."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self.core.tasks.add(task)
        task.add_done_callback(self.core.tasks.discard)

    def profile_element(self, name: str) -> ET.Element | None:
        sofia = self.core.tree.configuration("sofia.conf")
        profiles = sofia.findall("./profiles/profile") if sofia is not None else []
        return next((profile for profile in profiles if profile.get("name") == name), None)

    async def start_all(self) -> None:
        """Start every profile of sofia.conf; one that cannot bind is logged and left out."""
        sofia = self.core.tree.configuration("sofia.conf")
        for element in sofia.findall("./profiles/profile") if sofia is not None else ():
            await self.start_profile(element.get("name", ""))

    async def start_profile(self, name: str) -> bool:
        """Open one profile's socket; False when the tree has no such profile or it cannot bind."""
        element = self.profile_element(name)
        if element is None:
            return False
        try:
            profile = Profile(self.core, name, element)
            await profile.open()
        except (OSError, ValueError) as err:
            log.error("Error Creating SIP UA for profile: %s (%s)", name, err)
            return False
        self.profiles[name] = profile
        log.info("profile %s listens on %s:%d", name, *profile.bound)
        return True

    def close_profiles(self) -> None:
        for profile in self.profiles.values():
            profile.close()
        self.profiles.clear()

    async def stop_profile(self, profile: Profile, reason: str, start_after: float | None) -> None:
        """Hang up a profile's calls and close it; start it again after so many seconds."""
        await self.core.hang_up(*profile.calls(), reason=reason)
        self.profiles.pop(profile.name, None)
        profile.close()
        if start_after is not None:
            await asyncio.sleep(start_after)
            await self.start_profile(profile.name)

    async def stop_when_empty(self, how: str) -> None:
        """`elegant` goes on accepting calls, `asap` refuses them; both end at zero calls.

        A look every half second, as the real one: only at the next one a cancel lifts the pause.
        """
        core = self.core
        core.stopping = how
        if how == "asap":
            core.paused_inbound = core.paused_outbound = True
        while core.stopping == how and core.calls:
            await asyncio.sleep(_LOOK_SECONDS)
        if core.stopping in ("elegant", "asap"):
            self.stop_now()
        elif not core.stopping:
            core.paused_inbound = core.paused_outbound = False

    def hang_up_signal(self) -> None:
        """What SIGHUP does: the log moves aside if logfile.conf says so, else it is reopened."""
        rotates = self.core.tree.settings("logfile.conf").get("rotate-on-hup") == "true"
        self._renew_log(rotates)

    def stop_now(self) -> None:
        """End every call with 701 and exit."""
        if self.core.stopping != "now":
            self.core.stopping = "now"
            self.spawn(self._stop())

    async def _stop(self) -> None:
        calls = list(self.core.calls.values())
        log.info("shutting down, %d calls are hung up", len(calls))
        if calls:
            hanging_up = asyncio.ensure_future(self.core.hang_up(*calls, reason=SYSTEM_SHUTDOWN))
            await asyncio.wait([hanging_up], timeout=_STOP_SECONDS)
        self.close_profiles()
        self.stopped.set()


def log_file(directory: Path) -> Path:
    return directory / "freeswitch.log"
