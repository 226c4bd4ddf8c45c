"""What systemd makes of a unit, for tests: start it in its directory, and again when it leaves."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(units: Path, name: str) -> None:
    instance = name.partition("@")[2]
    pidfile = units / f"{name}.pid"
    running: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        for process in running:
            process.kill()
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    while True:
        # As systemd expands them: %i first, then $$ in what is left.
        unit = (units / "unit").read_text().replace("%i", instance)
        settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
        command = [word.replace("$$", "$") for word in shlex.split(settings["ExecStart"])]
        running[:] = [subprocess.Popen(command, cwd=settings["WorkingDirectory"])]
        pidfile.write_text(str(running[0].pid))
        running[0].wait()
        pidfile.unlink()
        time.sleep(0.25)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
