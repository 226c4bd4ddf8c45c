"""Calls through the tier while everything is done to it that a deployment does: none is lost."""

import os
import shutil
import time
from contextlib import closing

import pytest

from tests.functional.freeswitch.fs_places import Network, until, workspaces
from tests.functional.opensips.os_tier import (
    CALLER,
    RATE,
    Pbx,
    Proxy,
    Tier,
    flavours,
    fleet,
    holding,
    installed,
    proven,
    proxies,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root"),
    pytest.mark.skipif(shutil.which("sipp") is None, reason="sipp is not installed"),
]
ROWS = 10_000
SPARE = {"node": "pbx-98", "uri": "sip:192.0.2.98:5060", "weight": 1}


@pytest.fixture(scope="module", autouse=True)
def voice_binary(tmp_path_factory):
    """What tells `voice` which daemons are here."""
    yield from installed(tmp_path_factory.mktemp("bin"))


def tiers(directory):
    """Return the workspaces that have what a tier is made of."""
    for workspace in workspaces():
        roles = [entry["role"] for entry in fleet(workspace, directory).values()]
        if roles.count("pbx") >= 2 and "sip" in roles:
            yield workspace


@pytest.fixture(scope="module", params=flavours("opensips", "freeswitch"))
def started(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("tier")
    tier = Tier(root, request.param, next(tiers(root / "fleets")))
    with closing(tier.network) as network:
        with network.inside():
            tier.start()
        yield tier


@pytest.fixture
def tier(started, request):
    """The tier seen from within its network; left as it was found, whatever a test did."""
    with started.network.inside():
        yield started
        request.node.user_properties.extend(started.figures().items())
        started.put_back()


# -- calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "number"), [("through", "1000"), ("renewed", "1000"), ("ended", Pbx.HANGS_UP)]
)
def test_calls_complete_through_both_pbx(tier, scenario, number):
    """The caller hangs up, renews the session, is hung up on."""
    before = [pbx.calls_in for pbx in tier.pbx]
    with tier.calls(scenario, number=number, count=20) as calls:
        pass
    calls.prove(20)
    assert [pbx.calls_in - old for pbx, old in zip(tier.pbx, before, strict=True)] == [10, 10]
    until(lambda: tier.proxy.call("dialogs_count") == 0)


def test_paused_pbx_is_passed_over_on_its_503(tier):
    """First by failover of each call, then because the pings say so."""
    paused, other = tier.pbx
    before = other.calls_in
    paused.call("pause", "inbound")
    with tier.phone() as phone:
        assert [phone.invite().status for _ in range(4)] == [200] * 4
        assert tier.proxy.states()[tier.name(paused)] == "Active", "the proxy took it for alive"
    with tier.calls(count=40) as calls:
        pass
    calls.prove(40)
    until(lambda: tier.proxy.states()[tier.name(paused)] == "Probing")
    with tier.calls(count=20) as calls:
        pass
    calls.prove(20)
    assert other.calls_in == before + 64
    paused.call("resume", "inbound")
    until(tier.is_whole)


def test_caller_is_told_503_when_all_are_paused(tier):
    for pbx in tier.pbx:
        pbx.call("pause", "inbound")
    with tier.phone() as phone:
        assert phone.invite().status == 503, "each of them said so"
        until(lambda: "Active" not in tier.states_of_pbx().values())
        assert phone.invite().status == 503, "nobody was asked"
        for pbx in tier.pbx:
            pbx.call("resume", "inbound")
        until(tier.is_whole)
        assert phone.invite().status == 200


# -- a PBX is taken out, restarted and put back --------------------------------------------------


def test_pbx_is_drained_restarted_and_put_back_under_calls(tier):
    """At 20 calls a second: no new call fails, and who holds ends it himself."""
    leaving, staying = tier.pbx
    with holding(tier, 10) as held, tier.calls() as calls:
        calls.flow()
        assert len(held.at(leaving)) == 5
        for proxy in (tier.proxy, tier.other):
            proxy.voice("withdraw", tier.id_of(leaving))
        assert tier.states_of_pbx() == {tier.name(leaving): "Inactive",
                                        tier.name(staying): "Active"}  # fmt: skip
        assert leaving.voice("drain")["drained"] is False
        held.prove()
        calls.flow()
        held.hang_up(held.at(leaving))
        until(lambda: leaving.voice("in_service")["state"] == "out_of_service")
        taken, process = leaving.calls_in, leaving.pid()
        limit = leaving.context["rtp"]["end_port"] - 2
        proven(leaving.configured(leaving.changed(rtp__end_port=limit)))
        proven(leaving.running())
        assert leaving.pid() != process
        calls.flow()
        assert leaving.calls_in == 0, (taken, "it is out until it is put back")
        leaving.voice("undrain")
        for proxy in (tier.proxy, tier.other):
            proxy.voice("restore", tier.id_of(leaving))
        until(lambda: leaving.calls_in >= RATE)
        held.prove()
    calls.prove(4 * RATE)
    assert calls.made >= calls.seconds * RATE * 0.9, "the rate was kept"


# -- the proxy is changed ------------------------------------------------------------------------


def test_routes_are_reloaded_under_calls(tier):
    numbers = [*tier.proxy.context["numbers"], {"expression": "^77", "set": 1}]
    with holding(tier, 4) as held, tier.calls() as calls:
        calls.flow()
        for context in (tier.proxy.changed(numbers=numbers), tier.proxy.context):
            answer = proven(tier.proxy.configured(context))
            assert answer["changes"]["actions"] == ["reload_routes"]
            calls.flow()
        held.prove()
    calls.prove(3 * RATE)


def test_destination_is_added_and_removed_under_calls(tier):
    """One reload each, and who is out stays out."""
    out = tier.pbx[1]
    proxy = tier.proxy
    proxy.voice("withdraw", tier.id_of(out))
    before = tier.states_of_pbx()
    with tier.calls() as calls:
        calls.flow()
        for context in (proxy.changed(dispatcher__9=[SPARE]), proxy.context):
            answer = proven(proxy.configured(context))
            assert answer["changes"]["actions"].count("ds_reload") == 1
            assert "reload_routes" not in answer["changes"]["actions"]
            assert ("9" in proxy.call("dispatcher_list")) == ("9" in context["dispatcher"])
            assert tier.states_of_pbx() == before
            calls.flow()
    calls.prove(3 * RATE)
    assert before[tier.name(out)] == "Inactive"


# -- the proxy is taken out ----------------------------------------------------------------------


def restart(proxy):
    """Restart a proxy that is out of service, for a change that needs it."""
    process = proxy.pid()
    until(lambda: proxy.voice("in_service")["state"] == "out_of_service", 20)
    proxy.context = proxy.changed(workers=proxy.context["workers"] + 1)
    proven(proxy.configured())
    proven(proxy.running())
    assert proxy.pid() != process


def test_held_calls_outlive_the_restart_of_a_drained_proxy(tier):
    with holding(tier, 10) as held:
        tier.proxy.voice("drain")
        assert held.phone.invite().status == 503
        assert held.phone.options().status == 503
        restart(tier.proxy)
        assert held.phone.invite().status == 503, "it stays drained"
        held.prove()
        tier.proxy.voice("undrain")
        assert held.phone.invite().status == 200
        held.hang_up()


def test_second_proxy_takes_over_while_the_first_is_out(tier):
    """Callers that are told 503 call again by the second: no new call fails, none is lost."""
    over = {"other": tier.other.address[0]}
    with holding(tier, 6) as held, tier.calls("second", keys=over) as calls:
        calls.flow()
        tier.proxy.voice("drain")
        calls.flow()
        restart(tier.proxy)
        calls.flow()
        held.prove()
        tier.proxy.voice("undrain")
        taken = tier.proxy.call("status")["calls"]
        until(lambda: tier.proxy.call("status")["calls"] > taken)
        calls.flow()
        held.hang_up()
    calls.prove(4 * RATE)


# -- many destinations ---------------------------------------------------------------------------


def destinations(count):
    return [
        {"node": f"pbx-{n}", "uri": f"sip:10.{n >> 16}.{n >> 8 & 255}.{n & 255}:5060", "weight": 1}
        for n in range(count)
    ]


@pytest.mark.parametrize("flavour", flavours("opensips"))
@pytest.mark.parametrize("driver", ["text", "sqlite"])
def test_reload_of_many_destinations_keeps_every_state(flavour, driver, tmp_path, request):
    (minion_id, *_) = proxies()
    rows, seconds = destinations(ROWS), {}
    told = {"memory": {"shared": 256, "private": 16}, "trusted": [CALLER],
            "ping": {"interval": 300, "failures": 2}, "database": {"local": driver}}  # fmt: skip
    proxy = Proxy(tmp_path / "proxy", flavour, minion_id, **told)
    proxy.context.update(dispatcher={"1": rows}, numbers=[])
    with closing(Network([proxy.address[0]])) as network, network.inside():
        proxy.start()
        assert (proxy.root / "var/opensips.sqlite").exists() == (driver == "sqlite")
        for row in rows[::3]:
            proxy.mi("ds_set_state", state="i", group=1, address=row["uri"])
        before = proxy.states()
        assert len(before) == ROWS
        assert list(before.values()).count("Inactive") == len(rows[::3])
        more = proxy.changed(dispatcher__1=[*rows, SPARE])
        began = time.monotonic()
        answer = proven(proxy.configured(more))
        seconds["apply"] = round(time.monotonic() - began, 2)
        assert answer["changes"]["actions"].count("ds_reload") == 1
        assert proxy.states() == {**before, SPARE["node"]: "Active"}
        began = time.monotonic()
        proxy.call("dispatcher_reload")
        seconds["reload"] = round(time.monotonic() - began, 2)
        assert proxy.states() == {**before, SPARE["node"]: "Active"}
    request.node.user_properties.append(("seconds", seconds))
