"""Service state of the functional tests' node, judged by the daemon alone."""


def in_service():
    now = __salt__["freeswitch.status"]()
    empty = now["calls"] == 0 and now["channels"] == 0
    out = not now["running"] or (now["paused"] and empty)
    return {
        "state": "out_of_service" if out else "in_service",
        "daemon": "freeswitch",
        "running": now["running"],
        "paused": now["paused"],
        "calls": now["calls"],
        "drained_mark": None,
        "why": "test",
    }
