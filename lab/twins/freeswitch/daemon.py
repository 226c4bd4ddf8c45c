"""Guardian's lab twin of FreeSWITCH: real SIP over UDP and TLS, real ESL, no media.

It is 1.10.12 unless FREESWITCH_TWIN_VERSION says otherwise (see version.py). Takes the real
daemon's flags; those about threads, priority and consoles have no effect here.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import certificates
import modules
from commands import Commands
from core import Core
from esl import EventSocket
from switch import Switch, log_file
from version import VERSION
from xmltree import TreeError

_SWITCHES = ("-nc", "-nf", "-nonat", "-nonatmap", "-nocal", "-nort", "-rp", "-lp", "-hp", "-np",
             "-core", "-heavy-timer", "-reincarnate", "-waste", "-c", "-elegant-term")  # fmt: skip
_DIRECTORIES = {
    "conf": "/etc/freeswitch",
    "log": "/var/log/freeswitch",
    "db": "/var/lib/freeswitch/db",
    "run": "/run/freeswitch",
    "certs": "/etc/freeswitch/tls",
    "storage": "/var/lib/freeswitch/storage",
    "cache": "/var/cache/freeswitch",
    "mod": "/usr/lib/freeswitch/mod",
    "scripts": "/usr/share/freeswitch/scripts",
    "sounds": "/usr/share/freeswitch/sounds",
    "recordings": "/var/lib/freeswitch/recordings",
    "temp": "/tmp",
    "grammar": "/usr/share/freeswitch/grammar",
    "htdocs": "/usr/share/freeswitch/htdocs",
}
_VARIABLE_OF = {"scripts": "script_dir", "mod": "mod_dir"}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="freeswitch", description=__doc__, allow_abbrev=False)
    for name in _SWITCHES:
        parser.add_argument(name, action="store_true")
    for name, default in _DIRECTORIES.items():
        parser.add_argument(f"-{name}", type=Path, default=Path(default))
    parser.add_argument("-u", dest="user")
    parser.add_argument("-g", dest="group")
    parser.add_argument("-version", action="store_true")
    return parser.parse_args(arguments)


def _log_to(directory: Path) -> logging.FileHandler:
    handler = logging.FileHandler(log_file(directory), delay=True)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d000 [%(levelname)s] %(name)s %(message)s",
                          "%Y-%m-%d %H:%M:%S")
    )  # fmt: skip
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return handler


def _renew(handler: logging.FileHandler, aside: bool) -> None:
    """Start the log anew; `aside` keeps the old one as freeswitch.log.DATE.N."""
    handler.close()
    current = Path(handler.baseFilename)
    if aside and current.exists():
        dated = f"{current.name}.{time.strftime('%Y-%m-%d-%H-%M-%S')}"
        number = 1
        while current.with_name(f"{dated}.{number}").exists():
            number += 1
        current.rename(current.with_name(f"{dated}.{number}"))
    # The handler opens its file at the next line, so write one.
    logging.getLogger("freeswitch").info("New log started.")


async def _serve(options: argparse.Namespace, handler: logging.FileHandler) -> None:
    directories = {
        _VARIABLE_OF.get(name, f"{name}_dir"): str(getattr(options, name))
        for name in _DIRECTORIES
        if name != "conf"
    }
    core = Core(options.conf, directories)
    with contextlib.suppress(OSError):
        certificates.make(options.certs / "dtls-srtp.pem")
    modules.start(core)
    switch = Switch(core, lambda aside: _renew(handler, aside))
    events = EventSocket(core, Commands(switch))
    switch.reopen_event_socket = events.reopen
    loop = asyncio.get_running_loop()

    def terminate() -> None:
        if options.elegant_term:
            switch.spawn(switch.stop_when_empty("elegant"))
        else:
            switch.stop_now()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGINT, switch.stop_now)
    loop.add_signal_handler(signal.SIGHUP, switch.hang_up_signal)
    if "mod_sofia" in core.modules:
        await switch.start_all()
    if "mod_event_socket" in core.modules:
        await events.open()
    pid_file = options.run / "freeswitch.pid"
    pid_file.write_text(str(os.getpid()))
    logging.getLogger("freeswitch").info("ready, %d profiles", len(switch.profiles))
    await switch.stopped.wait()
    pid_file.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Run until stopped; 0 after an orderly stop, 255 when the configuration cannot be read."""
    options = _parse(arguments)
    if options.version:
        print(f"FreeSWITCH version: {VERSION}-release (Guardian lab twin)")
        return 0
    for name in ("log", "db", "run"):
        getattr(options, name).mkdir(parents=True, exist_ok=True)
    handler = _log_to(options.log)
    if options.nc and not options.nf and os.fork():
        return 0  # the parent of a daemon
    try:
        asyncio.run(_serve(options, handler))
    except (TreeError, OSError) as err:
        print(f"Cannot Initialize [{err}]", file=sys.stderr)
        return 255
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
