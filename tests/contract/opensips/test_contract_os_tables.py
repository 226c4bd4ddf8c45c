"""Tables other than the dispatcher's: what their reloads take over, keep, and lose."""

import pytest
from os_daemon import Daemon

SQLITE = pytest.mark.parametrize("database", ["sqlite"])


def address(daemon: Daemon, number: int) -> str:
    return f"127.0.0.1:{daemon.port + number}"


# load_balancer


@pytest.fixture
def balanced(stopped: Daemon) -> Daemon:
    stopped.module("load_balancer", db_url=stopped.db_url)
    stopped.table("load_balancer", *_destinations(stopped, 1, 2))
    return stopped.start()


def _destinations(daemon: Daemon, *numbers: int) -> list[dict[str, object]]:
    return [
        {"group_id": 1, "dst_uri": f"sip:{address(daemon, n)}", "resources": "pstn=10"}
        for n in numbers
    ]


def _enabled(daemon: Daemon) -> dict[str, str]:
    rows = daemon.call("lb_list")["Destinations"]
    return {row["uri"].rpartition(":")[2]: row["enabled"] for row in rows}


def test_disabled_destination_stays_so_over_a_reload(balanced: Daemon) -> None:
    assert balanced.call("lb_status", destination_id=1, new_status=0) == "OK"
    balanced.table("load_balancer", *_destinations(balanced, 1, 2, 3))
    assert balanced.reload("lb_reload") == "OK"
    port = balanced.port
    assert _enabled(balanced) == {f"{port + 1}": "no", f"{port + 2}": "yes", f"{port + 3}": "yes"}
    assert balanced.call("lb_status", destination_id=1) == {"enable": "no"}


def test_unknown_destination_is_refused(balanced: Daemon) -> None:
    assert balanced.refused("lb_status", destination_id=77, new_status=0)[0] == 404


# drouting


@pytest.fixture
def routed(stopped: Daemon) -> Daemon:
    stopped.module("drouting", db_url=stopped.db_url)
    _gateways(stopped, 1, 2)
    stopped.table("dr_carriers", {"carrierid": "c1", "gwlist": "g1,g2"})
    stopped.table("dr_rules", {"groupid": "0", "prefix": "44", "gwlist": "#c1"})
    stopped.table("dr_groups")
    return stopped.start()


def _gateways(daemon: Daemon, *numbers: int) -> None:
    rows = [{"gwid": f"g{n}", "address": address(daemon, n)} for n in numbers]
    daemon.table("dr_gateways", *rows)


def _gateway_states(daemon: Daemon) -> dict[str, str]:
    return {row["ID"]: row["State"] for row in daemon.call("dr_gw_status")["Gateways"]}


def test_disabled_gateway_stays_so_over_a_reload(routed: Daemon) -> None:
    assert routed.call("dr_gw_status", gw_id="g1", status=0) == "OK"
    assert routed.call("dr_carrier_status", carrier_id="c1", status=0) == "OK"
    _gateways(routed, 1, 2, 3)
    assert routed.reload("dr_reload") == "OK"
    assert _gateway_states(routed) == {"g1": "Disabled MI", "g2": "Active", "g3": "Active"}
    assert routed.call("dr_carrier_status")["Carriers"][0]["Enabled"].strip() == "no"


def test_reload_of_gateways_without_inheriting_reactivates_them(routed: Daemon) -> None:
    routed.call("dr_gw_status", gw_id="g1", status=0)
    assert routed.reload("dr_reload", inherit_state="n") == "OK"
    assert _gateway_states(routed)["g1"] == "Active"


def test_rules_are_taken_over(routed: Daemon) -> None:
    assert routed.call("dr_number_routing", group_id=0, number="441")["Matched Prefix"] == "44"
    routed.table("dr_rules", {"groupid": "0", "prefix": "4", "gwlist": "g2"})
    assert routed.reload("dr_reload") == "OK"
    assert routed.call("dr_number_routing", group_id=0, number="441")["Matched Prefix"] == "4"


def test_unknown_gateway_is_refused(routed: Daemon) -> None:
    assert routed.refused("dr_gw_status", gw_id="nobody", status=0) == (404, "GW ID not found")


# dialplan


def _rule(expression: str, out: str) -> dict[str, object]:
    return {
        "dpid": 1, "match_op": 1, "match_exp": expression, "subst_exp": expression, "repl_exp": out
    }  # fmt: skip


@pytest.fixture
def planned(stopped: Daemon) -> Daemon:
    stopped.module("dialplan", db_url=stopped.db_url)
    stopped.table("dialplan", _rule("^1(.*)$", "2\\1"))
    return stopped.start()


def test_rules_of_a_plan_are_taken_over(planned: Daemon) -> None:
    assert planned.call("dp_translate", dpid=1, input="100")["Output"] == "200"
    planned.table("dialplan", _rule("^1(.*)$", "3\\1"))
    assert planned.reload("dp_reload") == "OK"
    assert planned.call("dp_translate", dpid=1, input="100")["Output"] == "300"


def test_broken_rule_is_passed_over_and_the_reload_says_ok(planned: Daemon) -> None:
    planned.table("dialplan", _rule("^1(.*)$", "3\\1"), _rule("^5((.*$", "6\\1"))
    assert planned.reload("dp_reload") == "OK"
    assert planned.call("dp_translate", dpid=1, input="100")["Output"] == "300"
    planned.table("dialplan", _rule("^1((.*$", "3\\1"))
    assert planned.reload("dp_reload") == "OK"
    told = planned.refused("dp_translate", dpid=1, input="100")
    assert told[1] == "No information available for dpid"


# domain, address


def test_domains_are_taken_over(stopped: Daemon) -> None:
    stopped.module("domain", db_url=stopped.db_url, db_mode=1)
    stopped.table("domain", {"domain": "one.example"})
    stopped.start()
    stopped.table("domain", {"domain": "two.example"})
    assert stopped.reload("domain_reload") == "OK"
    assert [one["name"] for one in stopped.call("domain_dump")["Domains"]] == ["two.example"]


def _addresses(daemon: Daemon) -> list[str]:
    (partition,) = daemon.call("address_dump")["Partitions"]
    return [row["ip"] for row in partition["Destinations"]]


@pytest.mark.parametrize("bad", [{"ip": "no-address"}, {"ip": "192.0.2.7", "mask": 33}])
def test_address_that_is_none_is_passed_over_without_a_word(stopped: Daemon, bad: dict) -> None:
    stopped.module("permissions", db_url=stopped.db_url)
    stopped.table("address", {"grp": 1, "ip": "192.0.2.1"})
    stopped.start()
    stopped.table("address", {"grp": 1, "ip": "192.0.2.2"}, {"grp": 1, **bad})
    assert stopped.reload("address_reload") == "OK"
    assert _addresses(stopped) == ["192.0.2.2"]


# rtpengine


@pytest.fixture
def media(stopped: Daemon) -> Daemon:
    stopped.module("rtpengine", db_url=stopped.db_url)
    stopped.table("rtpengine", {"socket": f"udp:{address(stopped, 5)}", "set_id": 1})
    return stopped.start()


def _is_disabled_by_mi(daemon: Daemon) -> bool:
    ((node,),) = [one["Nodes"] for one in daemon.call("rtpengine_show")]
    return node["recheck_ticks"] > 1_000_000_000


@pytest.mark.parametrize(("kind", "stays"), [({"type": "soft"}, True), ({}, False)])
def test_only_a_soft_reload_keeps_a_disabled_engine(
    media: Daemon, kind: dict[str, str], stays: bool
) -> None:
    url = f"udp:{address(media, 5)}"
    assert media.call("rtpengine_enable", url=url, enable=0) == "OK"
    assert _is_disabled_by_mi(media)
    assert media.reload("rtpengine_reload", **kind) == "OK"
    assert _is_disabled_by_mi(media) == stays


def test_unknown_engine_is_refused(media: Daemon) -> None:
    told = media.refused("rtpengine_enable", url="udp:127.0.0.1:9", enable=0)
    assert told == (404, "RTP engine not found")


@SQLITE
def test_reload_of_engines_without_their_table_ends_the_daemon(media: Daemon) -> None:
    with media.sql() as link:
        link.execute("DROP TABLE rtpengine")
    with pytest.raises(OSError):
        media.call("rtpengine_reload", type="soft")
    assert media.wait() != 0


# clusterer


@pytest.fixture
def clustered(stopped: Daemon) -> Daemon:
    stopped.core.append(f"socket=bin:{address(stopped, 5)}")
    stopped.module("proto_bin")
    stopped.module("clusterer", db_url=stopped.db_url, my_node_id=1, sharing_tag="vip/1=backup")
    stopped.table("clusterer", _node(stopped, 1))
    return stopped.start()


def _node(daemon: Daemon, number: int) -> dict[str, object]:
    url = f"bin:{address(daemon, 6 - number)}"
    return {"cluster_id": 1, "node_id": number, "url": url}


def _tags(daemon: Daemon) -> dict[str, str]:
    return {row["Tag"]: row["State"] for row in daemon.call("clusterer_list_shtags")}


def test_tag_becomes_active_by_command_and_stays_so_over_a_reload(clustered: Daemon) -> None:
    assert _tags(clustered) == {"vip": "backup"}
    assert clustered.call("clusterer_shtag_set_active", tag="vip/1") == "OK"
    assert clustered.reload("clusterer_reload") == "OK"
    assert _tags(clustered) == {"vip": "active"}


def test_active_tag_is_backup_again_after_a_start(clustered: Daemon) -> None:
    clustered.call("clusterer_shtag_set_active", tag="vip/1")
    clustered.restart()
    assert _tags(clustered) == {"vip": "backup"}


def test_node_is_added_by_a_reload(clustered: Daemon) -> None:
    clustered.table("clusterer", _node(clustered, 1), _node(clustered, 2))
    assert clustered.reload("clusterer_reload") == "OK"
    (cluster,) = clustered.call("clusterer_list")["Clusters"]
    assert [node["node_id"] for node in cluster["Nodes"]] == [2]


def test_tag_that_nobody_has_is_made(clustered: Daemon) -> None:
    """A name mistyped is no error: look whether the right one became active."""
    assert clustered.call("clusterer_shtag_set_active", tag="nobody/1") == "OK"
    assert _tags(clustered) == {"vip": "backup", "nobody": "active"}
    told = clustered.refused("clusterer_shtag_set_active", tag="vip")
    assert told[1] == "Bad tag format <name/cluster_id>"
    assert clustered.refused("clusterer_shtag_set_active", tag="vip/9")[1] == "Cluster ID not found"


# uac_registrant, tcp_mgm


def test_registrations_elsewhere_are_taken_over(stopped: Daemon) -> None:
    stopped.module("uac_auth").module("uac_registrant", db_url=stopped.db_url)
    stopped.table("registrant", {
        "registrar": f"sip:{address(stopped, 1)}", "aor": "sip:a@127.0.0.1", "username": "a",
        "binding_URI": f"sip:a@{address(stopped, 0)}", "expiry": 600,
    })  # fmt: skip
    stopped.start()
    assert [one["AOR"] for one in stopped.call("reg_list")["Records"]] == ["sip:a@127.0.0.1"]
    stopped.table("registrant")
    assert stopped.reload("reg_reload") == "OK"
    assert stopped.call("reg_list")["Records"] == []


def test_limits_of_connections_are_taken_over(stopped: Daemon) -> None:
    stopped.core.append(f"socket=tcp:{address(stopped, 4)}")
    stopped.module("proto_tcp").module("tcp_mgm", db_url=stopped.db_url)
    stopped.table("tcp_mgm")
    stopped.start()
    stopped.table("tcp_mgm", {"proto": "tcp", "remote_addr": "127.0.0.1", "connect_timeout": 50})
    assert stopped.reload("tcp_reload") == "OK"


# what all have in common

_MISSING = {
    "load_balancer": ("load_balancer", "lb_reload", (500, "Failed to reload")),
    "drouting": ("dr_gateways", "dr_reload", (500, "Failed to reload")),
    "dialplan": ("dialplan", "dp_reload", (-32000, "Server error")),
    "domain": ("domain", "domain_reload", (500, "Domain table reload failed")),
    "permissions": ("address", "address_reload", (400, "failed to reload partition default!")),
}


def _with_all(daemon: Daemon) -> Daemon:
    for module in _MISSING:
        daemon.module(module, db_url=daemon.db_url)
    daemon.module("domain", db_mode=1)
    for table in ("load_balancer", "dr_gateways", "dr_carriers", "dr_rules", "dr_groups",
                  "dialplan", "domain", "address"):  # fmt: skip
        daemon.table(table)
    return daemon.start()


@SQLITE
def test_missing_table_is_refused(stopped: Daemon) -> None:
    _with_all(stopped)
    for table, command, refusal in _MISSING.values():
        with stopped.sql() as link:
            link.execute(f"DROP TABLE {table}")
        assert stopped.refused(command) == refusal


def test_missing_text_table_is_not_told_by_its_reload(stopped: Daemon) -> None:
    _with_all(stopped)
    for table, command, _ in _MISSING.values():
        (stopped.conf / "dbtext" / table).unlink()
        assert stopped.refused("dbt_reload") == (500, "Internal error")
        assert stopped.call(command) == "OK"


def test_reading_goes_on_past_a_missing_text_table(stopped: Daemon) -> None:
    _with_all(stopped)
    stopped.table("domain", {"domain": "one.example"})
    (stopped.conf / "dbtext/address").unlink()
    assert stopped.refused("dbt_reload") == (500, "Internal error")
    assert stopped.call("domain_reload") == "OK"
    assert [one["name"] for one in stopped.call("domain_dump")["Domains"]] == ["one.example"]
