"""Guardian's lab twin of OpenSIPS 3.4: real SIP over UDP, real MI, one process.

Takes the real daemon's flags; those about memory, users and forking have no effect here.
OPENSIPS_TWIN_VERSION=4.0.1 makes it name its MI commands as 4.x does, old names included.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from cfglexer import ConfigError
from cfgparse import Call, Config, If, Statement, parse
from dbtext import TableError
from engine import Engine, StartError
from mi import Management
from script import Script

_DS_FLAGS = frozenset("fusdSFMD")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="opensips", description=__doc__, allow_abbrev=False)
    parser.add_argument("-f", dest="file", type=Path, default=Path("/etc/opensips/opensips.cfg"))
    parser.add_argument("-C", dest="check", action="store_true", help="check and exit")
    parser.add_argument("-P", dest="pid_file", type=Path)
    parser.add_argument("-V", dest="version", action="store_true")
    for flag in ("-F", "-D", "-E", "-c"):
        parser.add_argument(flag, action="store_true")
    for flag in ("-m", "-M", "-u", "-g", "-p", "-w", "-n", "-N", "-a", "-k", "-b", "-l", "-t"):
        parser.add_argument(flag, metavar="VALUE")
    return parser.parse_args(arguments)


def check_start(config: Config) -> None:
    """What the real daemon finds wrong only when it starts; StartError in its words."""
    for statements in config.routes.values():
        _check_block(config, statements)
    if "mi_datagram" in config.modules and not config.parameter("mi_datagram", "socket_name", ""):
        raise StartError("ERROR:mi_datagram:mi_mod_init: missing modparam: 'socket_name'")


def _check_block(config: Config, statements: tuple[Statement, ...]) -> None:
    for statement in statements:
        if isinstance(statement, If):
            for call in _calls(statement.condition):
                _check_call(config, call)
            _check_block(config, statement.then)
            _check_block(config, statement.otherwise)
        elif isinstance(statement, Call):
            _check_call(config, statement)


def _calls(value: object) -> list[Call]:
    if isinstance(value, Call):
        return [value]
    parts = getattr(value, "parts", None) or (
        getattr(value, "left", None),
        getattr(value, "right", None),
    )
    return [call for part in parts if part is not None for call in _calls(part)]


def _check_call(config: Config, call: Call) -> None:
    missing = ""
    if call.name == "route" and ("route", str(call.arguments[0])) not in config.routes:
        missing = f"route [{call.arguments[0]}] is not defined"
    if call.name == "t_on_failure":
        name = str(call.arguments[0])
        if ("failure_route", name) not in config.routes:
            missing = f"failure_route [{name}] is not defined"
    if call.name == "ds_select_dst" and not set(str((*call.arguments, "", "", "")[2])) <= _DS_FLAGS:
        missing = f"Failed to fix command <{call.name}>"
    if missing:
        raise StartError(
            f"ERROR:core:fix_actions: {missing}\n"
            f"ERROR:core:fix_actions: fixing failed (code=-6) at {call.place}"
        )


async def _serve(config: Config, options: argparse.Namespace) -> None:
    engine = Engine(config)
    engine.script = Script(engine, config)
    await engine.open()
    version = os.environ.get("OPENSIPS_TWIN_VERSION", "3.4.18")
    path = str(config.parameter("mi_datagram", "socket_name", ""))
    if path:
        management = Management(engine, options.file, version)
        mode = int(config.parameter("mi_datagram", "unix_socket_mode", 0o660))
        await management.open(Path(path), mode)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if options.pid_file:
        options.pid_file.write_text(f"{os.getpid()}\n")
    await stopped.wait()  # no BYE: the calls' dialogs go on by their Record-Route
    engine.close()
    for file in (Path(path) if path else None, options.pid_file):
        if file:
            file.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Run until stopped; 255 when the configuration is refused or the daemon cannot start."""
    options = _parse(arguments)
    if options.version:
        print("version: opensips 3.4.18 (Guardian lab twin)")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
    try:
        config = parse(options.file)
        if options.check:
            print("NOTICE:core:main: config file ok, exiting...", file=sys.stderr)
            return 0
        check_start(config)
        asyncio.run(_serve(config, options))
    except ConfigError as err:
        print(err, file=sys.stderr)
        print(f"ERROR:core:main: failed to parse config file {options.file}", file=sys.stderr)
        return 255
    except (StartError, TableError) as err:
        print(f"{err}\nERROR:core:main: failed to start", file=sys.stderr)
        return 255
    except OSError as err:
        print(f"ERROR:core:udp_init_listener: bind: {err.strerror or err}", file=sys.stderr)
        print("ERROR:core:main: failed to init all SIP listeners, aborting", file=sys.stderr)
        return 255
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
