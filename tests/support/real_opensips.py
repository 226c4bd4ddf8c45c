"""The real OpenSIPS, where one is on PATH."""

import shutil
from pathlib import Path

LIBRARIES = ("lib64", "lib", "lib/x86_64-linux-gnu")


def modules() -> str:
    """Where its modules are, with a slash at the end as `mpath` wants it; "" without one."""
    binary = shutil.which("opensips")
    if binary is None:
        return ""
    places = (Path(binary).parents[1] / one / "opensips" / "modules" for one in LIBRARIES)
    return next((f"{place}/" for place in places if place.is_dir()), "")
