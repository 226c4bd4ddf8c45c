"""A call handed to a worker by the dialplan's `socket`, and one that finds no worker."""

import pytest
from fs_daemon import until
from fs_worker import Worker

from tests.support.phone import Phone
from tests.support.ports import free_ports


@pytest.fixture
def worker():
    with Worker() as worker:
        yield worker


def hand_over(stopped, *ports):
    """Start a daemon whose dialplan gives calls for `fsx` to a worker, else answers 486."""
    hosts = "|".join(f"127.0.0.1:{port}" for port in ports)
    stopped.tree.dialplan(
        '<extension name="fsx">\n<condition field="destination_number" expression="^fsx$">\n'
        f'<action application="socket" data="{hosts} async full"/>\n'
        '<action application="respond" data="486 Busy Here"/>\n</condition>\n</extension>'
    )
    return stopped.start()


def invited(phone):
    """Call `fsx` without waiting for an answer."""
    request = phone.request("INVITE", "fsx")
    phone.send(request)
    return request


def answered(phone, request):
    final = phone.wait(lambda m: m.call_id == request.call_id and m.status >= 200, 5)
    assert final is not None
    assert final.status == 200
    return phone.dialog(request, final)


def test_worker_learns_who_calls_answers_and_holds(stopped, worker):
    daemon = hand_over(stopped, worker.port)
    with Phone(daemon.sip) as phone:
        request = invited(phone)
        channel = worker.take()
        about = channel.ask("connect")
        assert about["Event-Name"] == "CHANNEL_DATA"
        assert about["Caller-Destination-Number"] == "fsx"
        assert about["Caller-Caller-ID-Number"] == "caller"
        assert len(about["Unique-ID"]) == 36
        assert channel.ask("myevents")["Reply-Text"] == "+OK Events Enabled"
        assert channel.ask("linger 5")["Reply-Text"] == "+OK will linger 5 seconds"
        assert channel.execute("answer")["Reply-Text"].startswith("+OK")
        dialog = answered(phone, request)
        assert channel.execute("echo")["Reply-Text"].startswith("+OK")
        until(lambda: daemon.api("show calls count") == "\n1 total.\n", 5)
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200
        notice = channel.await_type("text/disconnect-notice")
        assert notice["Content-Disposition"] == "linger"
        assert channel.is_closed()
        until(lambda: daemon.api("show calls count") == "\n0 total.\n", 5)


def test_without_linger_the_connection_ends_with_the_call(stopped, worker):
    daemon = hand_over(stopped, worker.port)
    with Phone(daemon.sip) as phone:
        request = invited(phone)
        channel = worker.take()
        channel.ask("connect")
        channel.execute("answer")
        phone.hang_up(answered(phone, request))
        assert channel.is_closed()


def test_worker_ends_the_call(stopped, worker):
    daemon = hand_over(stopped, worker.port)
    with Phone(daemon.sip) as phone:
        request = invited(phone)
        channel = worker.take()
        channel.ask("connect")
        channel.execute("answer")
        dialog = answered(phone, request)
        channel.execute("hangup", "NORMAL_CLEARING")
        assert phone.bye(dialog) is not None
        assert channel.is_closed()


def test_next_worker_is_tried_when_the_first_refuses(stopped, worker):
    daemon = hand_over(stopped, free_ports(), worker.port)
    with Phone(daemon.sip) as phone:
        request = invited(phone)
        channel = worker.take()
        channel.ask("connect")
        channel.execute("answer")
        assert phone.hang_up(answered(phone, request)) == 200


def test_dialplan_goes_on_when_no_worker_listens(stopped):
    daemon = hand_over(stopped, free_ports(), free_ports())
    with Phone(daemon.sip) as phone:
        assert phone.invite("fsx").status == 486


def left_alone(phone, worker, *applications):
    """A call whose worker went away after these applications; its dialog."""
    request = invited(phone)
    channel = worker.take()
    channel.ask("connect")
    channel.execute("answer")
    dialog = answered(phone, request)
    for application in applications:
        channel.execute(application)
    channel.close()
    return dialog


def test_call_in_an_application_outlives_its_worker(stopped, worker):
    with Phone(hand_over(stopped, worker.port).sip) as phone:
        dialog = left_alone(phone, worker, "echo")
        assert phone.bye(dialog, 1) is None
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200


def test_parked_call_goes_on_in_the_dialplan_when_its_worker_goes(stopped, worker):
    """Here that ends it; so a worker leaves only after its last call."""
    with Phone(hand_over(stopped, worker.port).sip) as phone:
        dialog = left_alone(phone, worker)
        assert phone.bye(dialog, 3) is not None
