"""What the proxy does with calls, as the callers and the destinations behind it see it."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from conftest import Proxy

from tests.support.answerer import SILENT, Answerer
from tests.support.phone import Phone


class Region(NamedTuple):
    """A running proxy with a caller in front and its destinations behind."""

    proxy: Proxy
    phone: Phone
    pbx: tuple[Answerer, Answerer]
    fsx: Answerer

    def called(self) -> list[str]:
        names = {"pbx-01": self.pbx[0], "pbx-02": self.pbx[1], "fsx-01": self.fsx}
        return [name for name, one in names.items() if "INVITE" in one.methods()]


@pytest.fixture
def region(running: Proxy) -> Iterator[Region]:
    answerers = [Answerer(running.port + number) for number in (1, 2, 3)]
    with Phone(("127.0.0.1", running.port), through_proxy=True) as phone:
        yield Region(running, phone, (answerers[0], answerers[1]), answerers[2])
    for one in answerers:
        one.close()


def test_call_passes_with_record_route_and_its_end_follows_it(region: Region) -> None:
    dialog = region.phone.call("1000")
    (route,) = dialog.answer.get_all("Record-Route")
    assert f"127.0.0.1:{region.proxy.port};lr" in route
    assert region.phone.hang_up(dialog) == 200
    (name,) = region.called()
    answered_by = region.pbx[int(name[-1]) - 1]
    assert answered_by.methods() == ["INVITE", "ACK", "BYE"]


def test_calls_are_spread(region: Region) -> None:
    for _ in range(6):
        assert region.phone.invite("1000").status == 200
    assert region.called() == ["pbx-01", "pbx-02"]


@pytest.mark.parametrize(
    ("number", "called"), [("8001", ["fsx-01"]), ("9*1", ["fsx-01"]), ("80011", ["pbx"])]
)
def test_number_chooses_the_set(region: Region, number: str, called: list[str]) -> None:
    assert region.phone.invite(number).status == 200
    assert [name[: len(called[0])] for name in region.called()] == called


@pytest.mark.parametrize("status", [500, 503, SILENT])
def test_next_destination_is_tried(region: Region, status: int) -> None:
    region.pbx[0].status = status
    assert [region.phone.invite("1000").status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("status", [404, 486, 603])
def test_answer_of_a_destination_in_service_is_final(region: Region, status: int) -> None:
    for one in region.pbx:
        one.status = status
    assert region.phone.invite("1000").status == status
    assert len(region.called()) == 1


def test_caller_is_told_when_all_refuse(region: Region) -> None:
    for one in region.pbx:
        one.status = 503
    assert region.phone.invite("1000").status == 503
    assert region.called() == ["pbx-01", "pbx-02"]


def test_inactive_destination_gets_no_new_call_and_keeps_the_old_one(region: Region) -> None:
    dialogs = [region.phone.call("1000") for _ in range(2)]
    uri = f"sip:127.0.0.1:{region.pbx[0].port}"
    region.proxy.call("ds_set_state", state="i", group=1, address=uri)
    before = region.pbx[0].methods().count("INVITE")
    for _ in range(4):
        assert region.phone.invite("1000").status == 200
    assert region.pbx[0].methods().count("INVITE") == before
    assert [region.phone.hang_up(dialog) for dialog in dialogs] == [200, 200]


def test_nobody_left_is_503(region: Region) -> None:
    for one in region.pbx:
        address = f"sip:127.0.0.1:{one.port}"
        region.proxy.call("ds_set_state", state="i", group=1, address=address)
    assert region.phone.invite("1000").status == 503
    assert region.called() == []


def test_draining_refuses_what_is_new_and_serves_what_is_up(region: Region) -> None:
    dialog = region.phone.call("1000")
    region.proxy.call("shv_set", name="draining", type="int", value=1)
    refused = region.phone.invite("1000")
    assert (refused.status, refused.get("Retry-After")) == (503, "5")
    assert region.phone.options().status == 503
    assert region.phone.reinvite(dialog) == 200
    assert region.phone.hang_up(dialog) == 200


def test_call_outlives_a_restart_of_the_proxy(region: Region) -> None:
    """Requests within a dialog find their way by Record-Route alone."""
    dialog = region.phone.call("1000")
    region.proxy.stop()
    assert region.proxy.start()
    assert region.phone.reinvite(dialog) == 200
    assert region.phone.hang_up(dialog) == 200


def test_stranger_is_refused(region: Region) -> None:
    region.proxy.edit("dbtext/address", "127.0.0.1", "127.0.0.9")
    region.proxy.call("dbt_reload")
    region.proxy.call("address_reload")
    assert region.phone.invite("1000").status == 403
    assert region.called() == []


def test_cancelled_call_ends_at_the_destination_too(region: Region) -> None:
    for one in region.pbx:
        one.status = 180
    invite = region.phone.request("INVITE", "1000")
    region.phone.send(invite)
    ringing = region.phone.wait(lambda m: m.status == 180)
    assert ringing is not None
    (name,) = region.called()
    cancel = region.phone.request("CANCEL", "1000")
    for header in ("Via", "From", "To", "Call-ID"):
        cancel.set(header, invite.get(header))
    cancel.set("CSeq", "1 CANCEL")
    assert region.phone.transact(cancel).status == 200
    assert region.pbx[int(name[-1]) - 1].wait_for("CANCEL").call_id == invite.call_id


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", 200), ("REGISTER", 405), ("MESSAGE", 405), ("BYE", 405)]
)
def test_requests_outside_of_a_dialog(region: Region, method: str, status: int) -> None:
    assert region.phone.transact(region.phone.request(method)).status == status


def test_message_going_in_circles_is_stopped(region: Region) -> None:
    assert region.phone.invite("1000", Max_Forwards="0").status == 483
