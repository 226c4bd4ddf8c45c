"""What each command and signal does to a call that is up, and to the next one."""

import re

import pytest
from fs_daemon import until

from tests.support.phone import Phone


def calls(daemon, count):
    until(lambda: daemon.api("show calls count") == f"\n{count} total.\n", 5)


def codes(phone):
    """The status of a new INVITE and of OPTIONS; None for silence."""
    return tuple(m.status if m else None for m in (phone.invite(), phone.options()))


def test_call_is_held_renewed_and_ended(shared, phone):
    dialog = phone.call()
    calls(shared, 1)
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    calls(shared, 0)


def test_status_counts_sessions_at_once_where_show_lags(shared, phone):
    """`show calls` reads a table that a queue fills; `status` counts what is there."""
    dialog = phone.call()
    lagging, counted = shared.api("show calls count"), shared.api("status")
    assert "\n1 session(s) - peak" in counted
    assert lagging == "\n0 total.\n"
    calls(shared, 1)
    phone.hang_up(dialog)
    calls(shared, 0)


def test_answer_offers_a_port_of_the_range(shared, phone):
    dialog = phone.call()
    port = int(re.search(rb"m=audio (\d+) RTP", dialog.answer.body)[1])
    assert 20_000 <= port <= 20_998
    assert port % 2 == 0
    phone.hang_up(dialog)


def test_answer_carries_the_proxies_route(shared, phone):
    route = "<sip:192.0.2.9;lr>"
    request = phone.request("INVITE", Record_Route=route)
    answer = phone.transact(request)
    assert (answer.status, answer.get_all("Record-Route")) == (200, [route])
    phone.send(phone.within(dialog := phone.dialog(request, answer), "ACK"))
    assert phone.hang_up(dialog) == 200


@pytest.mark.parametrize(
    ("number", "status"), [("busy", 486), ("nobody-has-this", 404), ("1000", 200)]
)
def test_dialplan_decides(shared, phone, number, status):
    assert phone.invite(number).status == status


def test_call_that_ends_by_itself_gets_bye_16(shared, phone):
    bye = phone.bye(phone.call("brief"))
    assert bye.get("Reason") == 'Q.850;cause=16;text="NORMAL_CLEARING"'


def test_cancel_ends_a_ringing_call(shared, phone):
    request = phone.request("INVITE", "ring")
    phone.send(request)
    assert phone.wait(lambda m: m.status == 180)
    cancel = phone.request("CANCEL", "ring")
    for name in ("Via", "From", "To", "Call-ID"):
        cancel.set(name, request.get(name))
    assert phone.transact(cancel).status == 200
    final = phone.wait(lambda m: m.status >= 300 and m.call_id == request.call_id)
    assert (final.status, final.cseq) == (487, (1, "INVITE"))
    phone.send(phone._ack(request, final))
    calls(shared, 0)


@pytest.mark.parametrize("method", ["BYE", "CANCEL"])
def test_request_for_a_call_it_does_not_have_is_481(shared, phone, method):
    request = phone.request(method)
    if method == "BYE":
        request.set("To", request.get("To") + ";tag=nobody")
    assert phone.transact(request).status == 481


@pytest.mark.parametrize("junk", [b"\0", b"\r\n\r\n", b"INVITE", b"\xff" * 1200, b"GET / HTTP/1.1"])
def test_junk_does_not_end_it(shared, phone, junk):
    phone.raw(junk)
    assert phone.options().status == 200


@pytest.mark.parametrize("command", ["fsctl pause inbound", "fsctl pause"])
def test_pause_refuses_what_is_new_and_leaves_calls_alone(daemon, phone, command):
    dialog = phone.call()
    assert daemon.api(command) == "+OK\n"
    invite, options = phone.invite(), phone.options()
    for refused in (invite, options, phone.transact(phone.request("REGISTER"))):
        assert (refused.status, refused.get("Retry-After")) == (503, "300")
    assert invite.reason == "Maximum Calls In Progress"
    assert options.reason == "Maximum Calls In Progress"
    assert phone.reinvite(dialog) == 200
    assert daemon.api("fsctl pause_check inbound") == "true"
    both = command == "fsctl pause"
    assert daemon.api("fsctl pause_check") == ("true" if both else "false")
    # The trap: paused for inbound calls alone, status and ready_check show nothing of it.
    assert ("is not ready" if both else "is ready") in daemon.api("status")
    assert daemon.api("fsctl ready_check") == ("false" if both else "true")
    assert phone.hang_up(dialog) == 200
    assert daemon.api("fsctl resume") == "+OK\n"
    assert codes(phone) == (200, 200)


def test_pause_outbound_lets_calls_in(daemon, phone):
    daemon.api("fsctl pause outbound")
    assert codes(phone) == (200, 200)
    assert daemon.api("fsctl pause_check outbound") == "true"
    assert daemon.api("originate loopback/1000/public &park") == "-ERR DESTINATION_OUT_OF_ORDER\n"


def test_elegant_shutdown_goes_on_accepting(daemon, phone):
    dialog = phone.call()
    calls(daemon, 1)
    connection = daemon.connect()
    connection.send("api fsctl shutdown elegant")  # answers only when it is over
    until(lambda: daemon.api("fsctl shutdown_check") == "true")
    assert codes(phone) == (200, 200)
    assert "is ready" in daemon.api("status")
    assert daemon.api("fsctl shutdown cancel") == "+OK\n"
    assert connection.read()[1] == "+OK\n"
    assert daemon.api("fsctl shutdown_check") == "false"
    assert phone.hang_up(dialog) == 200
    assert daemon.alive()


def test_elegant_shutdown_ends_with_the_last_call(daemon, phone):
    dialog = phone.call()
    calls(daemon, 1)
    daemon.api("bgapi fsctl shutdown elegant")
    until(lambda: daemon.api("fsctl shutdown_check") == "true")
    assert phone.hang_up(dialog) == 200
    assert daemon.process.wait(30) == 0


def test_asap_shutdown_refuses_and_cancel_lifts_it(daemon, phone):
    dialog = phone.call()
    calls(daemon, 1)
    daemon.api("bgapi fsctl shutdown asap")
    until(lambda: "is not ready" in daemon.api("status"))
    assert codes(phone) == (503, 503)
    assert phone.reinvite(dialog) == 200
    daemon.api("fsctl shutdown cancel")
    until(lambda: daemon.api("fsctl pause_check inbound") == "false")  # at its next look, 0.5 s
    assert codes(phone) == (200, 200)
    assert phone.hang_up(dialog) == 200


def test_cancelling_a_shutdown_lifts_a_pause_too(daemon, phone):
    dialog = phone.call()
    daemon.api("fsctl pause inbound")
    daemon.api("fsctl shutdown cancel")  # nothing to cancel: nothing changes
    assert daemon.api("fsctl pause_check inbound") == "true"
    daemon.api("bgapi fsctl shutdown elegant")
    until(lambda: daemon.api("fsctl shutdown_check") == "true")
    daemon.api("fsctl shutdown cancel")
    until(lambda: daemon.api("fsctl pause_check inbound") == "false")
    assert phone.hang_up(dialog) == 200


@pytest.mark.parametrize("how", ["SIGTERM", "fsctl shutdown"])
def test_stop_drops_every_call_with_701(daemon, phone, how):
    dialogs = [phone.call() for _ in range(3)]
    calls(daemon, 3)
    if how == "SIGTERM":
        daemon.terminate()
    else:
        daemon.api("bgapi fsctl shutdown")
    for dialog in dialogs:
        assert phone.bye(dialog).get("Reason") == 'SIP;cause=701;text="SYSTEM_SHUTDOWN"'
    assert daemon.process.wait(30) == 0


def test_elegant_term_makes_sigterm_wait(stopped):
    daemon = stopped.start("-elegant-term")
    with Phone(daemon.sip) as phone:
        dialog = phone.call()
        calls(daemon, 1)
        daemon.terminate()
        until(lambda: daemon.api("fsctl shutdown_check") == "true")
        assert phone.bye(dialog, 1.0) is None
        assert phone.hang_up(dialog) == 200
        assert daemon.process.wait(30) == 0


def test_max_sessions_refuses_both_at_the_limit(daemon, phone):
    dialog = phone.call()
    assert daemon.api("fsctl max_sessions 1") == "+OK max sessions: 1\n"
    assert codes(phone) == (503, 503)
    assert phone.hang_up(dialog) == 200
    daemon.api("fsctl max_sessions 500")
    assert codes(phone) == (200, 200)


def test_sps_refuses_invites_and_leaves_options(daemon, phone):
    assert daemon.api("fsctl sps 1") == "+OK sessions per second: 1\n"
    until(lambda: phone.invite().status == 503)
    assert phone.options().status == 200


def test_hupall_ends_calls_with_703(daemon, phone):
    dialog = phone.call()
    calls(daemon, 1)
    daemon.api("hupall")
    assert phone.bye(dialog).get("Reason") == 'SIP;cause=703;text="MANAGER_REQUEST"'


def test_uuid_kill_ends_one_call(daemon, phone):
    kept, killed = phone.call("1000"), phone.call("2000")
    calls(daemon, 2)
    rows = daemon.api("show channels")
    uuid = next(line.split(",")[0] for line in rows.splitlines() if ",2000," in line)
    assert daemon.api(f"uuid_kill {uuid}") == "+OK\n"
    assert phone.bye(killed).get("Reason") == 'Q.850;cause=16;text="NORMAL_CLEARING"'
    assert phone.reinvite(kept) == 200


def test_sighup_rotates_the_log_and_leaves_calls(daemon, phone):
    dialog = phone.call()
    daemon.api("fsctl send_sighup")
    logs = daemon.root / "log"
    until(lambda: len(list(logs.glob("freeswitch.log*"))) == 2)
    assert phone.reinvite(dialog) == 200


def test_sighup_opens_a_new_log_after_logrotate_took_the_old(daemon, phone):
    log = daemon.root / "log" / "freeswitch.log"
    log.rename(log.with_name("freeswitch.log-20260101"))
    daemon.api("fsctl send_sighup")
    until(log.exists)
    phone.hang_up(phone.call())
    until(lambda: log.stat().st_size)


def test_stranger_is_refused_by_the_list(stopped):
    stopped.tree.acl(proxies=("192.0.2.0/24",))
    daemon = stopped.start()
    with Phone(daemon.sip) as phone:
        assert phone.invite().status == 403
        stopped.tree.acl(proxies=("127.0.0.1/32",))
        assert daemon.api("reloadacl") == "+OK acl reloaded\n"
        assert phone.invite().status == 200


def test_calls_and_registrations_ask_for_the_password(stopped):
    # The hash is MD5 of bob:127.0.0.1:hushed.
    stopped.tree.user("alice", password="hushed")
    stopped.tree.user("bob", a1_hash="99a453dc138653e99623744951bd509c")
    stopped.tree.acl(proxies=("192.0.2.0/24",))
    stopped.tree.profile("internal", stopped.tree.sip_port, auth_calls="true")
    daemon = stopped.start()
    with Phone(daemon.sip) as phone:
        for user in ("alice", "bob"):
            assert phone.register(user, "hushed") == [401, 200]
            assert phone.register(user, "wrong") == [401, 403]
        assert phone.invite().status == 407
        until(lambda: daemon.api("show registrations count") == "\n2 total.\n")
