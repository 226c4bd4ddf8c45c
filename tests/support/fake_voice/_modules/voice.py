"""The seam of a node over a JSON file; the rules are those of the real one."""

import json
import time
from pathlib import Path

from salt.exceptions import CommandExecutionError


def _path():
    return Path(__opts__["fake_voice"]) / "nodes" / f"{__opts__['id']}.json"


def read():
    return json.loads(_path().read_text())


def write(state):
    temporary = _path().with_suffix(".new")
    temporary.write_text(json.dumps(state))
    temporary.replace(_path())
    return state


def note(*words):
    line = " ".join([__opts__["id"].partition(".")[0], *(str(word) for word in words)])
    with (Path(__opts__["fake_voice"]) / "log").open("a") as file:
        file.write(line + "\n")


def in_service():
    node = read()
    if not node["running"]:
        state = "out_of_service"
    elif node["paused"]:
        state = "draining" if node["calls"] else "out_of_service"
    else:
        state = "in_service"
    return {
        "state": state,
        "daemon": "freeswitch",
        "running": node["running"],
        "paused": node["paused"],
        "calls": node["calls"],
        "drained_mark": node.get("mark"),
        "why": state,
    }


def drain(timeout=0, by=""):
    node = read()
    if not node["paused"]:
        note("drain", by)
        node["paused"] = True
    # Calls end one a poll.
    elif node["calls"] and not node.get("stuck"):
        node["calls"] -= 1
    node["mark"] = node.get("mark") or {"since": time.time(), "by": by, "reason": "deploy"}
    write(node)
    return {"drained": not node["calls"], "calls": node["calls"], "stuck": []}


def undrain():
    note("undrain")
    node = read()
    if node.get("undrain_fails"):
        raise CommandExecutionError("fsctl resume: -ERR not today")
    node.update(paused=False, mark=None)
    write(node)
    return {"result": True, "action": "undrain"}


def load():
    node = read()
    return {"calls": node["calls"], "registrations": node.get("registrations", 0)}


def capacity():
    node = read()
    return {
        "calls": node.get("capacity", 1000),
        "registrations": node.get("registrations_capacity"),
    }


def measures():
    """Counters as the daemon's; `measures` of the node's file overrides any of them."""
    node = read()
    if node.get("measures_fail"):
        raise CommandExecutionError("the daemon does not answer")
    return {
        "since": str(node.get("since", 0)),
        "attempts": 0,
        "failed": 0,
        "registrations": node.get("registrations", 0),
        "gateways_down": [],
        "calls": node["calls"],
        **node.get("measures", {}),
    }


def trial(peer, calls=3):
    """Every call of it fails when the peer's file says `deaf`, as a daemon that answers 503."""
    if not __opts__["id"].startswith("sip-"):
        raise CommandExecutionError("not a proxy")
    note("trial", peer.partition(".")[0])
    there = json.loads((_path().parent / f"{peer}.json").read_text())
    ok = there["running"] and not there["paused"] and not there.get("deaf")
    detail = f"{calls} calls answered and ended" if ok else f"0 of {calls} answered: 503"
    return {"result": ok, "checks": [{"name": "trial calls", "ok": ok, "detail": detail}]}


def end_calls(by=""):
    node = read()
    note("end_calls", node["calls"])
    ended, node["calls"] = node["calls"], 0
    write({**node, "stuck": False})
    return {"result": True, "ended": ended}


def checks():
    note("checks")
    node = read()
    ok = node["running"] and not node.get("sick")
    return {
        "result": bool(ok),
        "checks": [{"name": "daemon", "ok": bool(ok), "detail": "fine" if ok else "it is sick"}],
    }


def withdraw(peer, by=""):
    if not __opts__["id"].startswith("sip-"):
        raise CommandExecutionError("not a proxy")
    note("withdraw", peer.partition(".")[0])
    node = read()
    node["withdrawn"] = sorted({*node.get("withdrawn", []), peer})
    write(node)
    return {"result": True}


def restore(peer):
    note("restore", peer.partition(".")[0])
    node = read()
    node["withdrawn"] = [one for one in node.get("withdrawn", []) if one != peer]
    write(node)
    return {"result": True}
