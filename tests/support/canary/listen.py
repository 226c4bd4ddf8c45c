"""Write down every event of the buses given, one a line: listen.py OUT (master|minion):CONFIG …"""

import json
import sys
import threading
import time
from pathlib import Path

import salt.config
import salt.utils.event


def listen(role: str, config: str, out: str) -> None:
    # Whoever listens first finds no bus yet.
    while not Path(config).parents[2].joinpath(Path(config).parent.name, "s").is_dir():
        time.sleep(0.05)
    read = salt.config.client_config if role == "master" else salt.config.minion_config
    opts = read(config)
    with (
        salt.utils.event.get_event(role, opts=opts, listen=True) as bus,
        Path(out).open("a") as file,
    ):
        while True:
            event = bus.get_event(wait=5, full=True, auto_reconnect=True)
            if event is not None:
                file.write(json.dumps(event, default=repr) + "\n")
                file.flush()


out, *buses = sys.argv[1:]
for number, bus in enumerate(buses):
    where = bus.partition(":")
    threading.Thread(target=listen, args=(where[0], where[2], f"{out}.{number}")).start()
