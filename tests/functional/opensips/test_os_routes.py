"""How a request travels through the rendered routes, seen from all who are around the proxy."""

import re

import pytest

from tests.functional.opensips import os_callers
from tests.functional.opensips.os_callers import (
    CARRIER,
    DOMAIN,
    OTHER_USER,
    PBX,
    SECOND_CARRIER,
    SECOND_PBX,
    SPARE_PBX,
    STRANGER,
    USER,
    Rtpengine,
    Tier,
    Victim,
    ha1,
    until,
)
from tests.support.answerer import SILENT

USERS = {"domains": [DOMAIN], "users": {DOMAIN: {n: {"ha1": ha1(n)} for n in ("100", "101")}}}
IDENTITY = (
    "eyJhbGciOiJFUzI1NiIsInR5cCI6InBhc3Nwb3J0IiwicHB0Ijoic2hha2VuIiwieDV1IjoiaHR0cHM6Ly9jZXJ0In0."
    "eyJhdHRlc3QiOiJBIn0.c2lnbmF0dXJl;info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken"
)


@pytest.fixture
def proxy(flavour, tmp_path):
    """Make proxies that run; what they are given may name `port`, everybody's SIP port."""
    made: list[Tier] = []

    def start(**pillar) -> Tier:
        tier = Tier(tmp_path / str(len(made)), flavour, pillar)
        made.append(tier)
        try:
            return tier.start()
        except AssertionError as err:
            lacks = re.search(r"this twin has no \w+", str(err))
            if lacks is None:
                raise
            pytest.skip(lacks[0])

    yield start
    for tier in made:
        tier.close()


def destinations(*addresses, **settings):
    """Destinations for a pillar, made whole by Tier: its port is not known before it is there."""
    names = {PBX: "pbx-01", SECOND_PBX: "pbx-02", SPARE_PBX: "pbx-03"}
    return [{"node": names[one], "uri": one, **settings} for one in addresses]


def carriers(*, first=None, second=None):
    return {
        "gateways": {
            "first": {"address": CARRIER, **(first or {})},
            "second": {"address": SECOND_CARRIER, **(second or {})},
        },
        "carriers": {"one": {"gateways": ["first"]}, "two": {"gateways": ["second"]}},
        "outbound": [{"prefix": "", "carriers": ["one", "two"]}],
    }


# calls from outside


@pytest.mark.parametrize("status", [500, 503, SILENT])
def test_next_destination_takes_the_call(proxy, status):
    tier = proxy(dispatcher={"1": destinations(PBX, SECOND_PBX)})
    refusing, willing = tier.answerer(PBX, status), tier.answerer(SECOND_PBX)
    phone = tier.phone(CARRIER)
    assert [phone.invite("1000").status for _ in range(2)] == [200, 200]
    assert "INVITE" in refusing.methods()
    assert willing.methods().count("INVITE") == 2


def test_503_stays_503_when_nobody_is_left(proxy):
    tier = proxy(dispatcher={"1": destinations(PBX, SECOND_PBX)})
    everyone = [tier.answerer(PBX, 503), tier.answerer(SECOND_PBX, 503)]
    assert tier.phone(CARRIER).invite("1000").status == 503
    assert [one.methods().count("INVITE") for one in everyone] == [1, 1]


def test_phone_that_rings_out_is_no_silent_destination(proxy):
    tier = proxy(
        dispatcher={"1": destinations(PBX, SECOND_PBX)},
        timers={"final_reply": 2, "ringing": 2},
        ping={"interval": 60, "failures": 1},
    )
    ringing = [tier.answerer(PBX, 180), tier.answerer(SECOND_PBX, 180)]
    assert tier.phone(CARRIER).invite("1000").status == 408
    assert sorted(one.methods().count("INVITE") for one in ringing) == [0, 1]
    assert set(tier.states().values()) == {"Active"}


def test_silent_destination_is_left_alone_until_it_answers(proxy):
    tier = proxy(
        dispatcher={"1": destinations(PBX, SECOND_PBX)},
        timers={"final_reply": 2, "ringing": 5},
        ping={"interval": 60, "failures": 1},
    )
    silent = tier.answerer(PBX, SILENT)
    tier.answerer(SECOND_PBX)
    phone = tier.phone(CARRIER)
    for _ in range(3):
        assert phone.invite("1000").status == 200
    assert tier.states() == {"pbx-01": "Probing", "pbx-02": "Active"}
    assert len({one.call_id for one in silent.requests if one.method == "INVITE"}) == 1


def test_inactive_destination_stays_inactive_although_it_is_silent(proxy):
    tier = proxy(dispatcher={"1": destinations(PBX)}, timers={"final_reply": 2, "ringing": 5})
    tier.call("ds_set_state", state="i", group=1, address=tier.uri(PBX))
    assert tier.phone(CARRIER).invite("1000").status == 503
    assert tier.states() == {"pbx-01": "Inactive"}


def test_spare_waits_for_all_others(proxy):
    spare = destinations(SPARE_PBX, standby=True)
    tier = proxy(dispatcher={"1": destinations(PBX, SECOND_PBX) + spare})
    first, second = tier.answerer(PBX), tier.answerer(SECOND_PBX)
    third, phone = tier.answerer(SPARE_PBX), tier.phone(CARRIER)
    for _ in range(4):
        assert phone.invite("1000").status == 200
    first.status = 503
    assert phone.invite("1000").status == 200
    assert third.methods() == []
    second.status = 503
    assert phone.invite("1000").status == 200
    assert third.methods().count("INVITE") == 1
    for address in (PBX, SECOND_PBX):
        tier.call("ds_set_state", state="i", group=1, address=tier.uri(address))
    assert phone.invite("1000").status == 200
    assert third.methods().count("INVITE") == 2


def test_destination_takes_no_more_calls_than_it_may(proxy):
    tier = proxy(dispatcher={"1": destinations(PBX, SECOND_PBX, calls=1)})
    both = [tier.answerer(PBX), tier.answerer(SECOND_PBX)]
    phone = tier.phone(CARRIER)
    held = [phone.call("1000") for _ in range(2)]
    assert [one.methods().count("INVITE") for one in both] == [1, 1]
    refused = phone.invite("1000")
    assert (refused.status, refused.get("Retry-After")) == (503, "5")
    assert phone.hang_up(held.pop()) == 200
    assert phone.invite("1000").status == 200


def test_limited_destinations_pass_on_to_their_spare(proxy):
    main = destinations(PBX, calls=1)
    tier = proxy(dispatcher={"1": main + destinations(SPARE_PBX, standby=True, calls=1)})
    first, spare = tier.answerer(PBX), tier.answerer(SPARE_PBX)
    phone = tier.phone(CARRIER)
    for _ in range(2):
        phone.call("1000")
    assert [one.methods().count("INVITE") for one in (first, spare)] == [1, 1]
    assert phone.invite("1000").status == 503


# calls to outside


def test_carriers_are_tried_in_their_order(proxy):
    tier = proxy(**carriers())
    first, second = tier.answerer(CARRIER), tier.answerer(SECOND_CARRIER)
    pbx = tier.phone(PBX)
    for status in (200, 503, 500):
        first.status = status
        assert pbx.invite("4420").status == 200
    assert first.methods().count("INVITE") == 3
    assert second.methods().count("INVITE") == 2
    first.status = 486
    assert pbx.invite("4420").status == 486, "somebody is there, and busy"
    assert second.methods().count("INVITE") == 2


def test_silent_gateway_is_left_alone(proxy):
    tier = proxy(
        **carriers(), timers={"final_reply": 2, "ringing": 5}, ping={"interval": 60, "failures": 1}
    )
    silent, second = tier.answerer(CARRIER, SILENT), tier.answerer(SECOND_CARRIER)
    pbx = tier.phone(PBX)
    assert [pbx.invite("4420").status for _ in range(3)] == [200] * 3
    assert len({one.call_id for one in silent.requests if one.method == "INVITE"}) == 1
    assert second.methods().count("INVITE") == 3


def test_gateway_takes_no_more_calls_than_it_may(proxy):
    tier = proxy(**carriers(first={"calls": 1}, second={"calls": 1}))
    first, second = tier.answerer(CARRIER), tier.answerer(SECOND_CARRIER)
    pbx = tier.phone(PBX)
    held = [pbx.call("4420") for _ in range(2)]
    assert [one.methods().count("INVITE") for one in (first, second)] == [1, 1]
    refused = pbx.invite("4420")
    assert (refused.status, refused.get("Retry-After")) == (503, "5")
    assert pbx.hang_up(held[0]) == 200
    assert pbx.invite("4420").status == 200


def test_number_is_written_as_its_gateway_wants_it(proxy):
    tier = proxy(**carriers(first={"strip": 2, "prefix": "+"}))
    first = tier.answerer(CARRIER)
    assert tier.phone(PBX).invite("0044201").status == 200
    assert first.wait_for("INVITE").uri.startswith(f"sip:+44201@{CARRIER}")


def test_number_without_a_rule_is_refused(proxy):
    wanted = carriers()
    wanted["outbound"] = [{"prefix": "44", "carriers": ["one"]}]
    tier = proxy(**wanted)
    assert tier.phone(PBX).invite("4920").status == 404


# topology hiding


INTERNAL = re.compile(rb"127\.0\.0\.3[123]")


def test_nobody_outside_learns_an_inside_address(proxy):
    tier = proxy(topology_hiding=True, **carriers(first={"hide_topology": True}))
    pbx, outside = tier.answerer(PBX), tier.answerer(CARRIER)
    phone = tier.phone(CARRIER)
    dialog = phone.call("1000")
    assert not INTERNAL.search(dialog.answer.build())
    assert b"127.0.0.21" not in _without_from(pbx.wait_for("INVITE"))
    assert phone.hang_up(dialog) == 200
    tier.phone(PBX).invite("4420")
    assert not INTERNAL.search(_without_from(outside.wait_for("INVITE")))


def _without_from(message):
    """The message without what names a person: From is the caller's to choose."""
    kept = message.copy()
    for name in ("From", "To", "Call-ID"):
        kept.remove(name)
    kept.body = b""
    return kept.build()


@pytest.mark.parametrize("hidden", [False, True])
def test_call_outlives_a_restart_in_both_directions(proxy, hidden):
    tier = proxy(topology_hiding=hidden)
    pbx, phone = tier.answerer(PBX), tier.phone(CARRIER)
    dialog, other = phone.call("1000"), phone.call("1000")
    tier.restart()
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    invite = [
        one for one in pbx.requests if one.method == "INVITE" and one.call_id == other.call_id
    ]
    bye = tier.backwards(invite[0], "BYE", pbx)
    back = tier.phone(PBX)
    back.send(bye)
    assert phone.wait(lambda m: m.method == "BYE" and m.call_id == other.call_id, 3) is not None
    assert back.wait(lambda m: m.status == 200, 3) is not None


@pytest.mark.parametrize("hidden", [False, True])
def test_dialogs_and_their_requests_are_known(proxy, hidden):
    tier = proxy(topology_hiding=hidden)
    pbx, phone = tier.answerer(PBX), tier.phone(CARRIER)
    dialog = phone.call("1000")
    assert tier.dialogs() == 1
    for method in ("UPDATE", "INFO", "REFER", "NOTIFY", "PRACK"):
        assert phone.transact(phone.within(dialog, method)).status == 200, method
    assert phone.hang_up(dialog) == 200
    came = [one for one in pbx.methods() if one != "ACK"]  # a worker of its own may be slower
    assert came == ["INVITE", "UPDATE", "INFO", "REFER", "NOTIFY", "PRACK", "BYE"]
    until(lambda: tier.dialogs() == 0)


@pytest.mark.parametrize("hidden", [False, True])
def test_signed_identity_arrives_byte_by_byte(proxy, hidden):
    tier = proxy(topology_hiding=hidden)
    pbx = tier.answerer(PBX)
    headers = {"Identity": IDENTITY, "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}
    assert tier.phone(CARRIER).invite("1000", **headers).status == 200
    arrived = pbx.wait_for("INVITE")
    for name, value in headers.items():
        assert arrived.get(name) == value
    assert arrived.get_all("From") and arrived.body.startswith(b"v=0\r\no=- 1 1 IN IP4 127.0.0.1")


# users


def test_user_logs_in_calls_and_is_called(proxy):
    tier = proxy(registrar=USERS)
    pbx, user = tier.answerer(PBX), tier.phone(USER)
    assert user.login("100") == 200
    dialog = user.call_as("100")
    assert user.reinvite(dialog) == 200
    assert user.hang_up(dialog) == 200
    invite = pbx.wait_for("INVITE")
    assert not invite.get("Proxy-Authorization"), "credentials are for the proxy alone"
    assert tier.call_user("100", user) == 200


def test_user_who_is_away_is_not_called(proxy):
    tier = proxy(registrar=USERS)
    user = tier.phone(USER)
    assert tier.call_user("100", user) == 480
    assert user.login("100") == 200
    assert user.login("100", expires=0) == 200
    assert tier.call_user("100", user) == 480


def test_all_phones_of_a_user_ring(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin rings one phone of a user")
    tier = proxy(registrar=USERS)
    phones = [tier.phone(USER), tier.phone(OTHER_USER)]
    assert [one.login("100") for one in phones] == [200, 200]
    pbx = tier.phone(PBX)
    pbx.send(tier.to_user(pbx, "100"))
    for one in phones:
        assert one.wait(lambda m: m.method == "INVITE", 3) is not None


def test_phone_behind_nat_is_reached_where_its_packets_come_from(proxy):
    tier = proxy(registrar=USERS)
    pbx, user = tier.answerer(PBX), tier.phone(USER)
    inside = "sip:100@192.168.1.77:5060"
    request = user.registration("100")
    request.set("Contact", f"<{inside}>")
    assert user.authorized(request, "100", os_callers.PASSWORD).status == 200
    assert tier.call_user("100", user) == 200
    invite = user.invitation("1000", "100")
    invite.set("Contact", f"<{inside}>")
    assert user.authorized(invite, "100", os_callers.PASSWORD).status == 200
    assert f"@{USER}:{user.port}" in pbx.wait_for("INVITE").get("Contact")


@pytest.mark.parametrize("hidden", [False, True])
def test_call_of_a_user_outlives_a_restart(proxy, hidden, flavour):
    if flavour == "twin":
        pytest.skip("the twin keeps registrations in memory")
    tier = proxy(registrar=USERS, topology_hiding=hidden)
    pbx, user = tier.answerer(PBX), tier.phone(USER)
    assert user.login("100") == 200
    dialog = user.call_as("100")
    tier.restart()
    if flavour == "real":  # read by a worker, a moment after the first answer
        until(lambda: tier.registered() == 1)
    assert user.reinvite(dialog) == 200
    assert user.hang_up(dialog) == 200
    assert "BYE" in pbx.methods()
    assert tier.call_user("100", user) == 200, "who is registered is remembered"


def test_hidden_phone_behind_nat_hears_of_the_end_of_its_call(proxy):
    tier = proxy(registrar=USERS, topology_hiding=True)
    pbx, user = tier.answerer(PBX), tier.phone(USER)
    invite = user.invitation("1000", "100")
    invite.set("Contact", "<sip:100@192.168.1.77:5060>")
    challenge = user.transact(invite)
    again = user.answer(invite, challenge, "100", os_callers.PASSWORD)
    user.dialog(again, user.transact(again))
    back = tier.phone(PBX)
    back.send(tier.backwards(pbx.wait_for("INVITE"), "BYE", pbx))
    assert user.wait(lambda m: m.method == "BYE", 3) is not None


@pytest.mark.parametrize("transport", ["TCP", "WS"])
def test_user_is_called_over_the_connection_it_came_by(proxy, transport):
    tier = proxy(registrar=USERS, extra_socket=transport.lower())
    pbx = tier.answerer(PBX)
    with tier.stream_phone(USER, transport) as user:
        assert user.login("100") == 200
        dialog = user.call_as("100")
        assert user.reinvite(dialog) == 200
        assert user.hang_up(dialog) == 200
        assert pbx.methods().count("BYE") == 1
        assert tier.call_user("100", user) == 200


def test_one_may_not_call_in_the_name_of_another(proxy):
    tier = proxy(registrar=USERS)
    tier.answerer(PBX)
    user = tier.phone(USER)
    request = user.invitation("1000", "101")
    assert user.authorized(request, "100", os_callers.PASSWORD).status == 403
    request = user.registration("101")
    assert user.authorized(request, "100", os_callers.PASSWORD).status == 403


# limits


def test_proxy_takes_no_more_calls_than_it_may(proxy):
    tier = proxy(limits={"calls": 2})
    tier.answerer(PBX)
    phone = tier.phone(CARRIER)
    held = [phone.call("1000") for _ in range(2)]
    refused = phone.invite("1000")
    assert (refused.status, refused.get("Retry-After")) == (503, "1")
    assert phone.hang_up(held[0]) == 200
    until(lambda: tier.dialogs() == 1)
    assert phone.invite("1000").status == 200


def test_proxy_takes_no_more_calls_a_second_than_it_may(proxy):
    tier = proxy(limits={"calls_per_second": 2})
    tier.answerer(PBX)
    phone = tier.phone(CARRIER)
    told = [phone.invite("1000").status for _ in range(8)]
    assert 200 in told
    assert 503 in told
    until(lambda: phone.invite("1000").status == 200)


def test_account_has_limits_of_its_own(proxy):
    tier = proxy(registrar=USERS, limits={"account_calls": 1, "account_calls_per_second": 50})
    tier.answerer(PBX)
    user, other = tier.phone(USER), tier.phone(OTHER_USER)
    held = user.call_as("100")
    assert user.call_as("100") == 486
    assert user.hang_up(other.call_as("101")) == 200
    assert user.hang_up(held) == 200
    until(lambda: tier.dialogs() == 0)
    assert user.hang_up(user.call_as("100")) == 200


def test_account_may_not_begin_calls_without_end(proxy):
    tier = proxy(registrar=USERS, limits={"account_calls_per_second": 1})
    tier.answerer(PBX)
    user = tier.phone(USER)
    told = [user.call_as("100") for _ in range(6)]
    assert 503 in told
    assert any(one != 503 for one in told)


def test_fraud_is_stopped(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin counts no fraud")
    rules = [{"prefix": "9", "calls": {"warning": 1, "critical": 3}}]
    tier = proxy(registrar=USERS, fraud={"1": rules})
    tier.answerer(PBX)
    user = tier.phone(USER)
    told = [user.call_as("100", "99900") for _ in range(5)]
    assert told[-1] == 403
    assert not isinstance(told[0], int)
    assert tier.said("fraud suspected of 100@")


# draining


def test_drained_proxy_sends_what_is_new_elsewhere(proxy):
    tier = proxy(registrar=USERS)
    tier.answerer(PBX)
    user, phone = tier.phone(USER), tier.phone(CARRIER)
    dialog = phone.call("1000")
    tier.draining(1)
    for request in (phone.request("INVITE"), phone.request("OPTIONS"), user.registration("100")):
        refused = (
            phone.transact(request) if request.method != "REGISTER" else user.transact(request)
        )
        assert (refused.status, refused.get("Retry-After")) == (503, "5"), request.method
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    tier.draining(0)
    assert user.login("100") == 200


# who nobody knows


def normal(answer, request):
    """An answer without what it repeats of its request and without what is ever new."""
    text = answer.build().decode()
    for name in ("From", "To", "Call-ID", "Via"):
        for value in request.get_all(name):
            text = text.replace(value, name)
    text = re.sub(r"tag=[\w.-]+|;(received|rport|branch)(=[\w.]+)?|nonce=\"[^\"]+\"", "", text)
    return re.sub(r"^Via:.*$", "Via", text, flags=re.MULTILINE)


def answers(phone, requests, user="", password="wrong"):
    """What each request is answered, credentials given when asked for; in its normal form."""
    found = []
    for request in requests:
        first = phone.transact(request)
        found.append(normal(first, request))
        if first.status in (401, 407):
            again = phone.answer(request, first, request.get("To").split(":")[1].split("@")[0],
                                 password)  # fmt: skip
            found.append(normal(phone.transact(again), again))
    return found


def same_for_all(told, count):
    """Each of `count` requests was answered alike."""
    size = len(told) // count
    first = [one.replace("100", "USER") for one in told[:size]]
    for at in range(0, len(told), size):
        part = [re.sub(r"\b(100|999|101)\b", "USER", one) for one in told[at : at + size]]
        assert part == first


def test_answers_do_not_tell_accounts_apart(proxy):
    tier = proxy(registrar=USERS, defence={"failed_logins": 100, "packets_per_second": 1000})
    pbx, phone = tier.answerer(PBX), tier.phone(STRANGER)
    tier.phone(USER).login("101")
    names = ("100", "999", "101")  # somebody, nobody, somebody who is there
    same_for_all(answers(phone, [phone.registration(name) for name in names]), 3)
    invites = []
    for name in names:
        request = phone.invitation("1000", name)
        request.set("To", f"<sip:{name}@{DOMAIN}>")
        request.uri = f"sip:{name}@{DOMAIN}"
        invites.append(request)
    same_for_all(answers(phone, invites), 3)
    pings = []
    for name in names:
        request = phone.request("OPTIONS", name)
        request.uri = f"sip:{name}@{DOMAIN}"
        pings.append(request)
    same_for_all(answers(phone, pings), 3)
    assert pbx.methods() == []


def test_unknown_domain_is_challenged_like_ours(proxy):
    tier = proxy(registrar=USERS, defence={"failed_logins": 100})
    phone = tier.phone(STRANGER)
    told = []
    for domain in (DOMAIN, "other.example"):
        request = phone.registration("100", domain)
        told += [one.replace(domain, "DOMAIN") for one in answers(phone, [request])]
    assert told[:2] == told[2:]


def test_right_password_of_no_user_of_ours_is_wrong(proxy):
    tier = proxy(registrar=USERS)
    assert tier.phone(STRANGER).login("100", domain="other.example") == 401


def test_stranger_gets_no_call_through(proxy):
    tier = proxy(registrar=USERS)
    pbx, phone = tier.answerer(PBX), tier.phone(STRANGER)
    assert phone.call_as("100", password="wrong") == 407
    assert phone.call_as("999") == 407
    assert pbx.methods() == []


def test_failing_address_is_banned_and_comes_back(proxy):
    tier = proxy(registrar=USERS, defence={"failed_logins": 3, "window": 60, "ban": 1})
    phone = tier.phone(STRANGER)
    assert [phone.login("100", "wrong") for _ in range(3)] == [401] * 3
    assert phone.options(0.6) is None
    assert tier.said(f"refused login over udp from {STRANGER}") == 3
    assert tier.phone(USER).login("100") == 200, "another address is not meant"
    until(lambda: phone.options(0.5))
    assert phone.login("100") == 200


def test_user_is_not_banned_for_a_neighbour_who_fails(proxy):
    tier = proxy(registrar=USERS, defence={"failed_logins": 2, "window": 60, "ban": 60})
    tier.answerer(PBX)
    user, neighbour = tier.phone(USER), tier.phone(USER)
    assert user.login("100") == 200
    assert [neighbour.login("101", "wrong") for _ in range(4)] == [401] * 4
    assert neighbour.login("101") == 401, "tried too often to be heard"
    assert user.login("100") == 200
    assert user.hang_up(user.call_as("100")) == 200
    assert tier.said("refused login over") == 0, "no line that a jail would take it for"


@pytest.mark.parametrize("name", ["100", "999"])
def test_nonce_of_nobody_counts_as_no_failure(proxy, name):
    """Who cannot hear our answers, since the address is not theirs, gets nobody banned."""
    tier = proxy(registrar=USERS, defence={"failed_logins": 2, "ban": 60})
    phone = tier.phone(STRANGER)
    for _ in range(4):
        request = phone.registration(name)
        challenge = phone.transact(request)
        forged = phone.answer(request, challenge, name, "wrong")
        text = forged.get("Authorization")
        forged.set("Authorization", re.sub(r'nonce="[^"]+"', 'nonce="bm9uc2Vuc2U"', text))
        assert phone.transact(forged).status == 401
    assert phone.options() is not None
    assert tier.said("refused login") == 0


@pytest.mark.parametrize(
    ("setting", "agent"),
    [({}, "friendly-scanner"), ({}, "SIPVicious"), ({"scanners": ["nastiness"]}, "Nastiness/1.0")],
)
def test_scanner_hears_nothing(proxy, setting, agent):
    tier = proxy(defence=setting)
    request = tier.phone(STRANGER).request("OPTIONS", User_Agent=agent)
    assert tier.phone(STRANGER).transact(request, 0.6) is None
    assert tier.said(f"refused scanner over udp from {STRANGER}")
    trusted = tier.phone(CARRIER)
    assert trusted.transact(trusted.request("OPTIONS", User_Agent=agent)).status == 200


def test_proxy_without_a_list_of_scanners_answers(proxy):
    tier = proxy(defence={"scanners": []})
    assert tier.phone(STRANGER).options().status == 200


def test_banned_network_hears_nothing(proxy):
    tier = proxy(banned=["127.0.0.64/28"])
    assert tier.phone(STRANGER).options(0.6) is None
    assert tier.phone(USER).options().status == 200


def test_carrier_in_a_banned_network_is_heard(proxy):
    tier = proxy(banned=["127.0.0.0/24"])
    tier.answerer(PBX)
    assert tier.phone(CARRIER).invite("1000").status == 200


def test_flood_is_dropped_and_a_carrier_never_is(proxy):
    tier = proxy(defence={"packets_per_second": 20})
    stranger, carrier = tier.phone(STRANGER), tier.phone(CARRIER)
    for _ in range(200):
        stranger.send(stranger.request("OPTIONS"))
    assert len(_heard(stranger, 200)) < 100
    assert [carrier.options().status for _ in range(200)] == [200] * 200
    assert tier.said(f"refused flood over udp from {STRANGER}")


def _heard(phone, most):
    found = []
    while len(found) < most and (one := phone.receive(0.5 if found else 4)) is not None:
        found.append(one)
    return found


def test_many_registrations_of_a_stranger_are_not_answered(proxy):
    tier = proxy(registrar=USERS, defence={"registers_per_second": 5, "packets_per_second": 1000})
    phone = tier.phone(STRANGER)
    for _ in range(60):
        phone.send(phone.registration("100"))
    assert 1 <= len(_heard(phone, 60)) <= 20


def test_malformed_request_is_refused(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin takes a host name with a space in it")
    tier = proxy()
    phone = tier.phone(STRANGER)
    request = phone.request("OPTIONS")
    request.set("From", "<sip:caller@exa mple>;tag=1")
    answer = phone.transact(request, 0.6)
    assert answer is None or answer.status == 400
    assert tier.phone(CARRIER).options().status == 200


# open relay


@pytest.mark.parametrize("method", ["INVITE", "BYE", "MESSAGE", "ACK", "OPTIONS"])
@pytest.mark.parametrize("sender", [STRANGER, CARRIER, USER])
def test_preloaded_route_leads_nowhere(proxy, method, sender):
    tier = proxy(registrar=USERS)
    phone, victim = tier.phone(sender), Victim(tier.port)
    if sender == USER:
        assert phone.login("100") == 200
    for tag in (";tag=forged", ""):
        for routes in ([f"<{tier.uri(os_callers.PROXY)};lr>"],
                       [f"<{tier.uri(os_callers.PROXY)};lr;did=1.2>", f"<{victim.uri};lr>"],
                       [f"<{victim.uri};lr>"], []):  # fmt: skip
            request = phone.request(method, "anybody")
            request.uri = victim.uri
            request.set("To", f"<sip:anybody@{DOMAIN}>{tag}")
            for route in routes:
                request.add("Route", route)
            phone.send(request)
    sentinel = phone.request("OPTIONS")
    assert phone.transact(sentinel) is not None
    assert victim.heard() == []
    victim.close()


def test_route_of_a_call_that_is_up_leads_nowhere_else(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin takes any route of a call it knows")
    tier = proxy(registrar=USERS)
    pbx, user, victim = tier.answerer(PBX), tier.phone(USER), Victim(tier.port)
    assert user.login("100") == 200
    dialog = user.call_as("100")
    for target, route in ((victim.uri, ""), (dialog.target, victim.uri)):
        request = user.within(dialog, "INFO")
        request.uri = target
        if route:
            request.add("Route", f"<{route};lr>")
        assert user.transact(request).status == 404
    assert victim.heard() == []
    victim.close()
    assert user.hang_up(dialog) == 200
    assert pbx.methods().count("BYE") == 1


@pytest.mark.parametrize("sender", [STRANGER, CARRIER])
def test_forged_hiding_contact_leads_nowhere(proxy, sender, flavour):
    if flavour == "twin":
        pytest.skip("the twin does not hide topology")
    tier = proxy(topology_hiding=True)
    victim = Victim(tier.port)
    phone = tier.phone(sender)
    request = phone.request("BYE", "anybody")
    secret = os_callers.hiding(f"{victim.uri}", os_callers.PROXY, tier.port)
    request.uri = f"sip:{os_callers.PROXY}:{tier.port};thinfo={secret}"
    request.set("To", f"<sip:anybody@{DOMAIN}>;tag=forged")
    phone.send(request)
    assert phone.options() is not None
    assert victim.heard() == []
    victim.close()


# accounts of calls


def test_calls_are_accounted_for(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin writes no records of calls")
    tier = proxy()
    pbx, phone = tier.answerer(PBX), tier.phone(CARRIER)
    dialog = phone.call("1000")
    # A call that ends within a millisecond of its answer is not accounted for.
    assert phone.reinvite(dialog) == 200
    assert phone.hang_up(dialog) == 200
    until(lambda: tier.said("ACC: call ended"))
    pbx.status = 486
    phone.invite("1000")
    until(lambda: tier.said("ACC: call missed"))


# media


def test_media_of_users_goes_through_the_relay(proxy, flavour):
    if flavour == "twin":
        pytest.skip("the twin has no media relay")
    with Rtpengine() as relay:
        tier = proxy(registrar=USERS, rtpengine={"1": [relay.socket]})
        pbx, user = tier.answerer(PBX), tier.phone(USER)
        pbx.sdp = b"v=0\r\no=- 1 1 IN IP4 127.0.0.31\r\ns=-\r\nc=IN IP4 127.0.0.31\r\nt=0 0\r\n"
        assert user.login("100") == 200
        dialog = user.call_as("100")
        assert b"relay" in pbx.wait_for("INVITE").body
        assert user.reinvite(dialog) == 200
        assert user.hang_up(dialog) == 200
        until(lambda: "delete" in relay.commands)
        assert relay.commands[0] == "offer"
        assert relay.commands.count("offer") == 2
        carrier = tier.phone(CARRIER)
        before = len(relay.commands)
        assert carrier.invite("1000").status == 200
        assert len(relay.commands) == before, "a carrier's media goes straight to the PBX"
        assert tier.call_user("100", user) == 200
        until(lambda: relay.commands[before : before + 2] == ["offer", "answer"])
