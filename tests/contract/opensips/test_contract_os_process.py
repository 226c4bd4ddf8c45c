"""The process: when it is ready, how it ends, what outlives it, and who may talk to it."""

import os
import signal
import stat
import time

import pytest
from os_daemon import Daemon, mi

from tests.support.answerer import Answerer


@pytest.fixture
def daemon(stopped: Daemon) -> Daemon:
    stopped.choose = f'$du = "sip:127.0.0.1:{stopped.port + 1}";'
    return stopped.start()


def test_management_socket_is_the_groups_and_not_everybodys(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_readiness_is_told_apart_from_answering(daemon: Daemon) -> None:
    told = daemon.call("sr_get_status", group="core")
    assert told == {"Readiness": True, "Status": 1, "Details": "running"}
    assert daemon.refused("sr_get_status", group="nobody")[1] == "Group not found"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_says_no_goodbye_and_calls_go_on_after_the_next_start(
    daemon: Daemon, number: int
) -> None:
    pbx = Answerer(daemon.port + 1)
    with daemon.phone() as phone:
        dialog = phone.call()
        assert daemon.call("get_statistics", statistics=["active_dialogs"]) == {
            "dialog:active_dialogs": 1
        }
        os.kill(daemon.pid, number)
        daemon.wait()
        assert "BYE" not in pbx.methods()
        daemon.start()
        assert daemon.call("get_statistics", statistics=["active_dialogs"]) == {
            "dialog:active_dialogs": 0
        }
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200
    assert "BYE" in pbx.methods()
    pbx.close()


def test_second_start_fails_and_the_first_goes_on(daemon: Daemon) -> None:
    assert daemon.run().wait(15) == 255
    assert "running process found in the pid file" in daemon.log.read_text()
    assert daemon.call("uptime")
    with daemon.phone() as phone:
        assert phone.options().status == 200


def test_killing_the_main_process_leaves_its_workers_serving(stopped: Daemon) -> None:
    """The next start fails and takes their management socket away: stop the whole group."""
    if stopped.flavour == "twin":
        pytest.skip("the twin is one process")
    stopped.core.append(f"socket=tcp:127.0.0.1:{stopped.port}")
    stopped.module("proto_tcp").start()
    os.kill(stopped.pid, signal.SIGKILL)
    stopped.wait()
    with stopped.phone() as phone:
        assert phone.options().status == 200
        assert stopped.call("uptime")
        assert stopped.run().wait(15) in (0, 255)  # from 3.6 on TCP is bound late, and 0 is seen
        assert "Address already in use" in stopped.log.read_text()
        assert phone.options().status == 200
    with pytest.raises(OSError, match="No such file"):
        stopped.call("uptime")


def test_after_a_kill_a_second_one_shares_the_port_where_all_is_udp(daemon: Daemon) -> None:
    """Old workers with the old configuration then serve beside the new."""
    if daemon.flavour == "twin":
        pytest.skip("the twin is one process")
    first = daemon.pid
    os.kill(first, signal.SIGKILL)
    daemon.wait()
    daemon.start()
    assert os.getpgid(daemon.pid) != first
    os.killpg(first, 0)  # they are still there
    os.killpg(first, signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "params", "code"),
    [
        ("no_such_command", {}, -32601),
        ("ds_list", {}, -32601),
        ("shv_set", {"name": "x"}, -32602),
        ("shv_set", {"name": "x", "type": "int", "value": "words"}, -32602),
        ("shv_get", {"name": "nobody"}, 404),
    ],
)
def test_refusals(daemon: Daemon, command: str, params: dict, code: int) -> None:
    assert daemon.refused(command, **params)[0] == code


def test_variable_that_nobody_has_is_made(daemon: Daemon) -> None:
    assert daemon.call("shv_set", name="made", type="int", value=3) == "OK"
    assert daemon.call("shv_get") == [[{"name": "made", "type": "integer", "value": 3}]]


def test_answer_that_is_too_long_for_a_datagram_is_no_json(stopped: Daemon) -> None:
    stopped.module("dispatcher", db_url=stopped.db_url)
    rows = [
        {"setid": 1, "destination": f"sip:10.0.{n // 250}.{n % 250}:5060", "attrs": "a" * 60}
        for n in range(700)
    ]
    stopped.table("dispatcher", *rows)
    stopped.start()
    with pytest.raises(mi.MiError) as caught:
        stopped.call("ds_list")
    assert caught.value.code == 0
    assert stopped.call("ds_reload") == "OK"


def test_pipe_has_no_such_limit(stopped: Daemon) -> None:
    pipe = stopped.socket.with_suffix(".fifo")
    stopped.module("mi_fifo", fifo_name=str(pipe), fifo_mode=0o660, reply_dir=f"{stopped.root}/")
    stopped.module("dispatcher", db_url=stopped.db_url)
    rows = [{"setid": 1, "destination": f"sip:10.0.{n // 250}.{n % 250}:5060"} for n in range(900)]
    stopped.table("dispatcher", *rows)
    stopped.start()
    (partition,) = stopped.call("ds_list")["PARTITIONS"]
    assert sum(len(one["Destinations"]) for one in partition["SETS"]) == 900
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o660


# names


def test_old_names_work_on_every_release(daemon: Daemon) -> None:
    assert daemon.call("uptime")
    assert daemon.call("shv_set", name="x", type="int", value=1) == "OK"
    listed = daemon.call("which")
    names = (
        ("core:uptime", "cfgutils:shv_set") if daemon.release >= (4, 0) else ("uptime", "shv_set")
    )
    assert set(names) <= set(listed)
    assert "core:uptime" in listed or ":" not in "".join(listed)


def _raw(daemon: Daemon, command: str) -> int:
    """The code that exactly this name is refused with, 0 for none."""
    try:
        mi._ask(command, None, str(daemon.socket), time.monotonic() + 5)
    except mi.MiError as err:
        return err.code
    return 0


def test_4_0_hides_old_names_and_has_none_for_two_modules(stopped: Daemon) -> None:
    stopped.module("domain", db_url=stopped.db_url, db_mode=1)
    stopped.module("rtpengine", db_url=stopped.db_url)
    stopped.table("domain")
    stopped.table("rtpengine", {"socket": "udp:127.0.0.1:2", "set_id": 1})
    stopped.start()
    is_4 = stopped.release >= (4, 0)
    assert _raw(stopped, "uptime") == 0
    assert _raw(stopped, "core:uptime") == (0 if is_4 else -32601)
    for old, new in (("domain_reload", "domain:reload"), ("rtpengine_show", "rtpengine:show")):
        assert _raw(stopped, old) == (-32601 if is_4 else 0)
        assert _raw(stopped, new) == (0 if is_4 else -32601)
    assert stopped.call("domain_reload") == "OK"


# what -C does not see


@pytest.mark.parametrize(
    "fault",
    ["route", "driver", "table", "address", "modparam", "flags", "interval", "version"],
)
def test_check_passes_what_cannot_start(stopped: Daemon, fault: str) -> None:
    stopped.module("dispatcher", db_url=stopped.db_url)
    stopped.table("dispatcher")
    match fault:
        case "route":
            stopped.choose = "route(nowhere);"
        case "driver":
            stopped.module("dispatcher", db_url="mysql://nobody@127.0.0.1/nothing")
        case "table":
            (stopped.conf / "dbtext/dispatcher").unlink()
        case "address":
            stopped.core.append("socket=udp:192.0.2.1:5060")
        case "modparam":
            stopped.modules["dispatcher"] = {}
            stopped.module("tls_mgm", server_domain="default")
        case "flags":
            stopped.choose = 'ds_select_dst(1, 4, "q");'
        case "interval":
            stopped.module("uac_auth")
            stopped.module("uac_registrant", db_url=stopped.db_url, timer_interval=1)
            stopped.table("registrant")
        case "version":
            text = (stopped.conf / "dbtext/version").read_text()
            (stopped.conf / "dbtext/version").write_text(text.replace(":9", ":8"))
    assert stopped.check()[0] == 0
    assert not stopped.try_start()


def test_socket_that_cannot_be_resolved(stopped: Daemon) -> None:
    """From 3.6 on it is left out, and all else is served."""
    stopped.core.append("socket=udp:nowhere.invalid:5060")
    code, text = stopped.check()
    if stopped.release < (3, 6):
        assert code == 255
        assert "resolve" in text
        return
    assert code == 0
    stopped.start()
    assert "could not resolve nowhere.invalid" in stopped.log.read_text()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('loadmodule "nobody.so"', "failed to load module"),
        ('modparam("tm", "nobody", 1)', "<nobody> not found"),
        ('modparam("tm", "fr_timeout", "5")', "<fr_timeout> not found"),
        ("nobody=1", "parse error"),
        ("route[again] { nobody(); }", "unknown command <nobody>"),
    ],
)
def test_check_sees(stopped: Daemon, line: str, told: str) -> None:
    stopped.more = line
    code, text = stopped.check()
    assert code == 255
    assert told in text
