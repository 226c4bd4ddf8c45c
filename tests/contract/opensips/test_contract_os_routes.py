"""reload_routes: what it takes over, and what it silently leaves as it was."""

from collections.abc import Iterator

import pytest
from os_daemon import Daemon, until

from tests.support.answerer import Answerer
from tests.support.phone import Phone


@pytest.fixture
def pbx(stopped: Daemon) -> Iterator[Answerer]:
    answerer = Answerer(stopped.port + 1)
    yield answerer
    answerer.close()


@pytest.fixture
def running(stopped: Daemon, pbx: Answerer) -> Daemon:
    """It sends calls to one destination and adds a header of its own."""
    stopped.choose = _choose(stopped, "one")
    stopped.more = _route("first")
    return stopped.start()


def _choose(daemon: Daemon, name: str) -> str:
    text = f'append_hf("X-Script: {name}\\r\\n"); t_on_failure("again");'
    return f'{text} $du = "sip:127.0.0.1:{daemon.port + 1}";'


def _route(reason: str) -> str:
    return f'failure_route[again] {{ t_reply(480, "{reason}"); }}'


@pytest.fixture
def phone(running: Daemon) -> Iterator[Phone]:
    with running.phone() as phone:
        yield phone


def _settled(daemon: Daemon, name: str, phone: Phone, pbx: Answerer) -> None:
    """All workers have taken the script over."""

    def shown() -> str:
        phone.invite()
        return [r.get("X-Script") for r in pbx.requests if r.method == "INVITE"][-1]

    until(lambda: [shown() for _ in range(4)] == [name] * 4)


def test_new_requests_follow_the_new_script(running: Daemon, phone: Phone, pbx: Answerer) -> None:
    phone.invite()
    running.choose = _choose(running, "two")
    running.write_routes()
    assert running.call("reload_routes") == "OK"
    _settled(running, "two", phone, pbx)
    assert pbx.requests[0].get("X-Script") == "one"


@pytest.mark.parametrize(("route", "told"), [("second", (480, "second")), ("", (486, "As Told"))])
def test_transaction_under_way_takes_its_failure_route_from_the_new_script(
    running: Daemon, phone: Phone, pbx: Answerer, route: str, told: tuple[int, str]
) -> None:
    """By its name; one that is gone is passed over."""
    pbx.status = 180
    phone.send(phone.request("INVITE", "1000"))
    assert phone.wait(lambda m: m.status == 180)
    running.more = _route(route) if route else ""
    running.choose = _choose(running, "two") if route else "exit;"
    running.write_routes()
    assert running.call("reload_routes") == "OK"
    _worker_pause(running, phone)
    pbx.finish(486)
    final = phone.wait(lambda m: m.status >= 200)
    assert final is not None
    assert (final.status, final.reason) == told


def test_call_that_is_up_goes_on(running: Daemon, phone: Phone, pbx: Answerer) -> None:
    dialog = phone.call()
    running.choose = _choose(running, "two")
    running.write_routes()
    assert running.call("reload_routes") == "OK"
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    assert "BYE" in pbx.methods()


@pytest.mark.parametrize("broken", ["record_rute();", 'route("nowhere");', "exit", "}"])
def test_broken_script_is_refused_and_the_old_one_stays(
    running: Daemon, phone: Phone, pbx: Answerer, broken: str
) -> None:
    running.choose = f"{_choose(running, 'two')} {broken}"
    running.write_routes()
    assert running.refused("reload_routes") == (500, "reload failed")
    phone.invite()
    assert pbx.requests[0].get("X-Script") == "one"


def test_all_else_is_ignored_without_a_word(running: Daemon, phone: Phone, pbx: Answerer) -> None:
    """A module, a parameter, a core parameter and a socket more: OK, and nothing of it is there."""
    commands = running.call("which")
    running.core += [f"socket=udp:127.0.0.1:{running.port + 2}", 'server_header="Server: other"']
    running.module("pike").module("cfgutils", shvset="late=i:1")
    running.choose = _choose(running, "two")
    running.write()
    assert running.call("reload_routes") == "OK"
    _settled(running, "two", phone, pbx)
    assert running.call("which") == commands
    assert running.refused("shv_get", name="late") == (404, "Not found")
    with Phone(("127.0.0.1", running.port + 2)) as other:
        assert other.options(1.0) is None


def test_memory_a_reload_takes_is_never_given_back(running: Daemon) -> None:
    """Why reloads are counted: 30 KB each for a script of this size, in every process."""
    used = _private(running)
    for _ in range(10):
        assert running.call("reload_routes") == "OK"
        _pause(running)
    until(lambda: _private(running) - used > 10 * 10_000, 15.0, 0.2)


def _private(daemon: Daemon) -> int:
    """Private memory in use, the process that uses most."""
    told = daemon.call("get_statistics", statistics=["pkmem:"])
    return max(int(value) for name, value in told.items() if name.endswith("-real_used_size"))


def _worker_pause(daemon: Daemon, phone: Phone) -> None:
    """Until every worker has read the new script: each answers for itself in turn."""
    for _ in range(8):
        phone.options()


def _pause(daemon: Daemon) -> None:
    """Until the workers have taken the script over: the next reload must not meet this one."""
    daemon.call("uptime")


def test_draining_variable_refuses_what_is_new(running: Daemon, phone: Phone) -> None:
    """A variable that the script reads; the proxy's own script is held to it elsewhere."""
    running.options = 'if ($shv(draining) == 1) { send_reply(503, "Draining"); exit; } ' + (
        'send_reply(200, "OK");'
    )
    running.write_routes()
    running.call("reload_routes")
    assert running.call("shv_set", name="draining", type="int", value=1) == "OK"
    until(lambda: phone.options().status == 503)
    assert running.call("shv_get", name="draining") == {"VAR": {"type": "integer", "value": 1}}
    assert running.call("shv_set", name="draining", type="int", value=0) == "OK"
    assert phone.options().status == 200
