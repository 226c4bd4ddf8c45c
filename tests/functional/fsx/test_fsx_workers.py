"""Real workers under calls: what a new release, a broken one and a way back do to them."""

import socket
import threading
import time

import pytest
from fsx_node import Call, application, until
from salt.exceptions import CommandExecutionError

BROKEN = "<?php\nrequire __DIR__ . '/none.php';\n"


def deploy_two(node, **arguments):
    return node.deployed(node.application(application("two")), **arguments)


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_workers_are_shown_with_their_calls(up):
    first, second = up.ports
    call = Call(second).answered()
    found = up.workers()
    assert [found[port]["calls"] for port in up.ports] == [0, 1]
    for port in up.ports:
        assert found[port]["release"] == up.live()
        assert found[port]["entry"] == "worker.php"
        assert found[port]["listening"] is True
    (release,) = up.call("releases")
    pids = {found[first]["pid"], found[second]["pid"]}
    assert pids < set(release["pids"]), "and the process of the call"
    call.hang_up()
    until(lambda: up.workers()[second]["calls"] == 0)


def test_worker_that_does_not_run_is_shown_as_such(node):
    assert node.call("workers", node.ports) == [
        {"port": port, "pid": None, "release": None, "entry": None, "listening": False, "calls": 0}
        for port in node.ports
    ]


def test_ports_are_those_of_pillar(node):
    assert [worker["port"] for worker in node.call("workers")] == node.ports
    with pytest.raises(CommandExecutionError, match=r"ports must be a list of numbers"):
        node.call("workers", "abc")


def test_new_release_renews_one_worker_after_the_other(up):
    before = up.workers()
    told = deploy_two(up, test=True)
    assert told["result"] is None
    assert up.workers() == before
    assert up.reloads() == []
    ret = deploy_two(up)
    assert ret["result"] is True, ret["comment"]
    assert ret["changes"] == told["changes"]
    assert ret["changes"]["disruption"] == "reload"
    assert ret["changes"]["actions"][-2:] == [f"renew worker {port}" for port in up.ports]
    after = up.workers()
    for port in up.ports:
        assert after[port]["pid"] != before[port]["pid"]
        assert (after[port]["release"], after[port]["listening"]) == (up.live(), True)
    assert up.reloads() == up.ports
    ret = deploy_two(up)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert up.reloads() == up.ports


def test_somebody_listens_at_every_moment(up):
    """The dialplan tries the ports in order; one of them always answers."""
    source = up.application(application("two"))
    ended, missed, tries = threading.Event(), [], []

    def knock():
        while not ended.is_set():
            tries.append(1)
            if all(refused(port) for port in up.ports):
                missed.append(time.monotonic())
            time.sleep(0.005)

    watcher = threading.Thread(target=knock)
    watcher.start()
    try:
        assert up.deployed(source)["result"] is True
    finally:
        ended.set()
        watcher.join()
    assert len(tries) > 50
    assert missed == []


def test_call_ends_on_the_release_it_began_with(up):
    """It loads a class after the switch: from its own release, by __DIR__ and by its directory."""
    first, second = up.ports
    old = up.live()
    call = Call(first).answered()
    ret = deploy_two(up)
    assert ret["result"] is True
    assert up.reloads() == [second, first], "the idle one first: it takes the next calls"
    assert f"worker {first} drains, 1 call up on {old}" in ret["comment"]
    assert refused(first), "it takes no new call"
    now = up.workers()
    assert (now[first]["release"], now[first]["calls"]) == (old, 1)
    assert (now[second]["release"], now[second]["listening"]) == (up.live(), True)
    fresh = Call(second).answered()
    assert fresh.hang_up() == f"log two {up.live()} {up.live()}"
    assert call.hang_up() == f"log one {old} {old}"
    until(lambda: up.workers()[first]["release"] == up.live() and not refused(first))
    assert deploy_two(up)["changes"] == {}


def test_last_worker_that_listens_waits_and_the_next_run_goes_on(up):
    first, second = up.ports
    old = up.live()
    calls = [Call(first).answered(), Call(second).answered()]
    # As the lab does it by hand.
    up.caller.cmd("service.reload", f"fsx-worker@{first}")
    until(lambda: refused(first))
    ret = deploy_two(up, patience=1)
    assert ret["result"] is False
    assert f"worker {second} still takes calls on {old}, 1 call up; apply again" in ret["comment"]
    assert up.reloads() == [first], "not both"
    assert not refused(second)
    assert calls[0].hang_up() == f"log one {old} {old}"
    until(lambda: up.workers()[first]["listening"])
    ret = deploy_two(up)
    assert ret["result"] is True
    assert ret["changes"]["actions"] == [f"renew worker {second}"]
    assert calls[1].hang_up() == f"log one {old} {old}"
    until(lambda: up.workers()[second]["release"] == up.live())


def test_nobody_is_waited_for_who_does_not_run(up):
    """The state after this one starts it, with the live release; the next run goes on."""
    (first, second), old = up.ports, up.live()
    up.stop_workers(first)
    until(lambda: refused(first))
    began = time.monotonic()
    ret = deploy_two(up, patience=60)
    assert time.monotonic() - began < 10
    assert ret["result"] is False
    assert f"worker {second} still takes calls on {old}, 0 calls up; apply again" in ret["comment"]
    assert not any("renew" in action for action in ret["changes"]["actions"])
    assert not refused(second)
    assert up.caller.cmd("service.start", f"fsx-worker@{first}")
    until(lambda: up.workers()[first]["listening"])
    assert deploy_two(up)["result"] is True
    assert {worker["release"] for worker in up.workers().values()} == {up.live()}


def test_only_worker_is_renewed_when_it_has_no_call(up):
    (port, _), old = up.ports, up.live()
    call = Call(port).answered()
    ret = deploy_two(up, ports=[port], patience=1)
    assert ret["result"] is False
    assert f"worker {port} still takes calls on {old}, 1 call up" in ret["comment"]
    call.hang_up()
    until(lambda: up.workers()[port]["calls"] == 0)
    assert deploy_two(up, ports=[port])["result"] is True
    assert up.workers()[port]["release"] == up.live()


def test_release_that_does_not_come_up_is_taken_back(up):
    """It compiles, so only running it tells; the second worker is not even asked."""
    old, (first, second) = up.live(), up.ports
    files = {**application("two"), "worker.php": BROKEN}
    ret = up.deployed(up.application(files))
    assert ret["result"] is False
    assert f"fsx-worker@{first} did not listen within 3 s with release" in ret["comment"]
    assert ret["comment"].endswith(f"release {old} is live again")
    assert up.live() == old
    assert up.reloads() == [first]
    until(lambda: up.workers()[first]["listening"])
    assert [worker["release"] for worker in up.workers().values()] == [old, old]
    assert [release["since"] is None for release in up.call("releases")] == [False, True]
    with pytest.raises(CommandExecutionError, match="no release but the live one"):
        up.call("rollback")
    assert Call(second).answered().hang_up() == f"log one {old} {old}"


def test_only_worker_goes_back_to_what_was_live(up):
    port, old = up.ports[0], up.live()
    files = {**application("two"), "worker.php": BROKEN}
    ret = up.deployed(up.application(files), ports=[port])
    assert ret["comment"].endswith(f"release {old} is live again")
    until(lambda: up.workers()[port]["listening"])


def test_release_that_one_worker_cannot_run_stays_live_for_the_others(up):
    first, second = up.ports
    files = application("two")
    first_line = "declare(strict_types=1);\n"
    files["worker.php"] = files["worker.php"].replace(
        first_line, f"{first_line}if ($argv[2] === '{second}') {{ exit(1); }}\n"
    )
    ret = up.deployed(up.application(files))
    assert ret["result"] is False
    assert ret["comment"].startswith(f"fsx-worker@{second} did not listen within 3 s")
    assert ret["comment"].endswith("; others do, so it stays live")
    assert up.workers()[first]["release"] == up.live()


def test_release_of_a_call_is_kept_until_it_ends(up):
    old, (first, _) = up.live(), up.ports
    call = Call(first).answered()
    for number in range(3):
        ret = up.deployed(up.application(application(f"number {number}")), keep=1, patience=0)
        # From the second on the idle one is the last that listens, so it may not leave.
        assert ret["result"] is (number == 0)
        assert old in up.on_disk()
    assert call.hang_up() == f"log one {old} {old}"
    until(lambda: up.workers()[first]["release"] == up.live())
    told = up.deployed("salt://app", keep=1, test=True)
    ret = up.deployed("salt://app", keep=1)
    assert ret["changes"] == told["changes"]
    assert f"prune {old}" in ret["changes"]["actions"]
    assert up.on_disk() == {up.live()}


def test_another_entry_renews_the_workers(up):
    files = {**application("one"), "other.php": application("one")["worker.php"]}
    assert up.deployed(up.application(files))["result"] is True
    up.write_unit("other.php")
    ret = up.deployed("salt://app", entry="other.php")
    assert ret["result"] is True
    assert ret["changes"]["actions"] == [f"renew worker {port}" for port in up.ports]
    assert {worker["entry"] for worker in up.workers().values()} == {"other.php"}
    assert up.deployed("salt://app", entry="other.php")["changes"] == {}


def test_way_back_by_hand(up):
    one = up.live()
    assert deploy_two(up)["result"] is True
    two = up.live()
    done = up.call("rollback", ports=up.ports, patience=5)
    assert (done["result"], done["action"]) == (True, f"rollback {two} -> {one}")
    assert up.live() == one
    assert {worker["release"] for worker in done["after"]} == {one}
    done = up.call("rollback", two, ports=up.ports, patience=5)
    assert up.live() == two
    with pytest.raises(CommandExecutionError, match=f"no release abc; others: {one}"):
        up.call("rollback", "abc", ports=up.ports)


def test_crash_after_the_switch_leaves_workers_that_the_next_run_finds(up):
    """Nobody remembers that they were to be renewed: it is seen from what they run."""
    old = up.live()
    deploy_two(up, ports=[1])  # a port nobody has
    assert {worker["release"] for worker in up.workers().values()} == {old}
    ret = deploy_two(up)
    assert ret["changes"]["actions"] == [f"renew worker {port}" for port in up.ports]
    assert {worker["release"] for worker in up.workers().values()} == {up.live()}
