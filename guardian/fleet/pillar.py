"""Have minions compile their pillar anew, asked by the master itself; runs on the master.

An event on its bus would do as well, and could be any minion's; a job of the master's cannot.
"""

from collections.abc import Mapping
from typing import Any

from guardian.errors import GuardianError


def refresh(opts: Mapping[str, Any], minions: list[str]) -> None:
    """Ask these and no others, and wait for nobody; GuardianError when nobody can be asked.

    One that is away compiles its pillar when it starts, and again before it applies a state.
    """
    # Not before: Salt takes over the logging of whoever imports it.
    from salt.client import LocalClient
    from salt.exceptions import SaltException

    try:
        with LocalClient(mopts=opts) as client:
            client.cmd_async(minions, "saltutil.refresh_pillar", tgt_type="list")
    except SaltException as err:
        raise GuardianError(f"the master does not publish: {err}") from None
