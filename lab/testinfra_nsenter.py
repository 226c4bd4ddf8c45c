"""A testinfra backend for the lab's hosts, and the pytest plugin that makes it known.

pytest -p lab.testinfra_nsenter tests/testinfra --hosts=nsenter://pbx-01,nsenter://master
"""

from typing import Any

import testinfra.backend  # type: ignore[import-untyped]
from testinfra.backend import base

from lab.names import LabError, Names
from lab.region import Region


class NsenterBackend(base.BaseBackend):  # type: ignore[misc]  # testinfra is not typed
    """Runs commands in a host of the lab that GUARDIAN_LAB names, by entering its namespaces."""

    NAME = "nsenter"

    def __init__(self, hostspec: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(hostspec, *args, **kwargs)
        region = Region(Names.from_environment().lab)
        found = {**region.hosts, "master": region.master}.get(hostspec)
        if found is None:
            raise LabError(f"no host {hostspec!r}: there are {', '.join(region.hosts)} and master")
        self._machine = found

    def run(self, command: str, *args: str, **kwargs: Any) -> base.CommandResult:
        """Run a shell command in the host; LabError when the host is down."""
        shell = self.get_command(command, *args)
        words = self._machine.command(["/bin/sh", "-c", shell])
        result = self.run_local(" ".join(["%s"] * len(words)), *words)
        result.command = self.encode(shell)
        return result


testinfra.backend.BACKENDS["nsenter"] = f"{__name__}.{NsenterBackend.__name__}"
