"""What it costs to rotate a certificate again and again under calls: seconds, memory, and no call.

Each rotation is a new key and chain in pillar, the SLS of the role, and the proof that every TLS
and WSS socket shows it; the calls are proven after each.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.functional.certificates import rotating
from tests.functional.certificates.authority import Authority
from tests.functional.certificates.rotation import rotate

ROTATIONS = 200
MAKERS = {"freeswitch": rotating.pbx, "opensips": rotating.proxy}


def places() -> list[tuple[str, str]]:
    """Return (daemon, flavour) of the twins, and of the real ones that are on PATH."""
    real = [(daemon, "real") for daemon in MAKERS if shutil.which(daemon)]
    return [*((daemon, "twin") for daemon in MAKERS), *real]


def measure(daemon: str, flavour: str, rotations: int = ROTATIONS) -> dict[str, Any]:
    """Return the figures of one place; empty where a certificate waits for a restart there."""
    make, authority = MAKERS[daemon], Authority()
    with (
        tempfile.TemporaryDirectory(prefix="rotation-") as directory,
        make(Path(directory), flavour, authority, rotating.ROTATED[make.__name__]) as node,
    ):
        if not node.takes_it_up:
            return {}
        version = node.call("status")["version"]
        got = rotate(node, authority, rotations)
        for line in (*got.failed, *got.wrong, *got.lost):
            print(line)
        return {"daemon": daemon, "version": version, **got.summary()}


if __name__ == "__main__":
    for place in places():
        print(json.dumps(measure(*place)), flush=True)
