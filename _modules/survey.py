"""
What a deploy must know of a node before it touches any: what a state run would change, and whether
the node carries calls. One function, hence one job for a whole fleet.

Not Salt's own compound job of two functions: while one runs, ``saltutil.is_running`` fails on its
list of names, and with it every other state run on the node (3008.3).
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "survey"


def __virtual__():  # noqa: N807
    return __virtualname__


def node():
    """
    Return ``{"run", "service"}``, of ``state.apply test=True`` and then of ``voice.in_service``.

    ``run`` is Salt's list of reasons when the states do not compile or a run is under way, and
    ``service`` is ``{"error"}`` when the daemon cannot be asked.

    CLI Example:

    .. code-block:: bash

        salt '*' survey.node
    """
    run = __salt__["state.apply"](test=True)
    try:
        service = __salt__["voice.in_service"]()
    except CommandExecutionError as problem:
        service = {"error": str(problem)}
    return {"run": run, "service": service}
