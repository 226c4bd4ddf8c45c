"""Guardian's lab twin of OpenSIPS 3.4: real SIP over UDP, real MI, one process.

Takes the real daemon's flags; those about memory, users and forking have no effect here.
OPENSIPS_TWIN_VERSION=3.6.8 or 4.0.1 makes it behave as those do, as far as they differ.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from cfglexer import ConfigError
from cfgparse import Config, parse
from dbtext import TableError
from engine import Engine, StartError
from fifo import Pipe
from mi import Management
from release import version
from script import Script
from start import check, check_able, check_modules

_SAVE_SECONDS = 30


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="opensips", description=__doc__, allow_abbrev=False)
    parser.add_argument("-f", dest="file", type=Path, default=Path("/etc/opensips/opensips.cfg"))
    parser.add_argument("-C", dest="check", action="store_true", help="check and exit")
    parser.add_argument("-P", dest="pid_file", type=Path)
    for flag in ("-F", "-D", "-E", "-c"):
        parser.add_argument(flag, action="store_true")
    for flag in ("-m", "-M", "-u", "-g", "-p", "-w", "-n", "-N", "-a", "-k", "-b", "-l", "-t"):
        parser.add_argument(flag, metavar="VALUE")
    return parser.parse_args(arguments)


def _check_pid_file(file: Path | None) -> None:
    """StartError when the process of the pid file runs."""
    text = file.read_text().strip() if file and file.exists() else ""
    if text.isdecimal() and Path(f"/proc/{text}").exists():
        raise StartError(f"CRITICAL:core:daemonize: running process found in the pid file {file}")


async def _serve(config: Config, options: argparse.Namespace) -> None:
    engine = Engine(config)
    engine.script = script = Script(engine, config)
    check_able(engine, script)
    await engine.open()
    management = Management(engine, options.file, version())
    path = str(config.parameter("mi_datagram", "socket_name", ""))
    if path:
        mode = int(config.parameter("mi_datagram", "unix_socket_mode", 0o660))
        await management.open(Path(path), mode)
    pipe = await _pipe(config, management)
    saving = asyncio.get_running_loop().create_task(_save(management))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if options.pid_file:
        options.pid_file.write_text(f"{os.getpid()}\n")
    await stopped.wait()  # no BYE: the calls' dialogs go on by their Record-Route
    engine.close()
    saving.cancel()
    management.save()
    if pipe:
        pipe.close()
    for file in (Path(path) if path else None, options.pid_file):
        if file:
            file.unlink(missing_ok=True)


async def _pipe(config: Config, management: Management) -> Pipe | None:
    path = str(config.parameter("mi_fifo", "fifo_name", ""))
    if not path:
        return None
    replies = Path(str(config.parameter("mi_fifo", "reply_dir", "/tmp/")))
    pipe = Pipe(management, Path(path), replies)
    await pipe.open(int(config.parameter("mi_fifo", "fifo_mode", 0o660)))
    return pipe


async def _save(management: Management) -> None:
    """Write states back now and then; db_text keeps them in its cache until it ends."""
    while True:
        await asyncio.sleep(_SAVE_SECONDS)
        management.note()


def main(arguments: list[str]) -> int:
    """Run until stopped; 255 when the configuration is refused or the daemon cannot start."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
    try:
        config = parse(options.file)
        if options.check:
            print("NOTICE:core:main: config file ok, exiting...", file=sys.stderr)
            return 0
        check(config)
        check_modules(config)
        _check_pid_file(options.pid_file)
        asyncio.run(_serve(config, options))
    except ConfigError as err:
        print(err, file=sys.stderr)
        print(f"ERROR:core:main: failed to parse config file {options.file}", file=sys.stderr)
        return 255
    except (StartError, TableError) as err:
        print(f"{err}\nERROR:core:main: error while initializing modules", file=sys.stderr)
        return 255
    except OSError as err:
        print(f"ERROR:core:udp_init_listener: bind: {err.strerror or err}", file=sys.stderr)
        print("ERROR:core:main: failed to init all SIP listeners, aborting", file=sys.stderr)
        return 255
    return 0
