"""The commands, each against a daemon that says what no real one should."""

import json
import os
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.loading import load
from tests.unit.opensips.os_fake import Fake, mi

URI = "sip:10.0.0.1:5060"


def peers(link):
    node = {"node_id": 2, "url": "bin:10.0.0.2:5555", "link_state": link, "state": "enabled"}
    return {"Clusters": [{"cluster_id": 1, "Nodes": [node]}]}


PEER, NO_PEER = peers("Up"), peers("Down")


@pytest.fixture
def node(tmp_path):
    made = Fake(tmp_path)
    made.remember()
    return made


@pytest.fixture
def call(node):
    return node.module


def told(function, *arguments, match, **keywords):
    with pytest.raises(CommandExecutionError, match=match) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)


def test_commands_that_write_are_not_run(node, call):
    for command, params in [("ds_reload", {}), ("dr_gw_status", {"gw_id": "a", "status": 0}),
                            ("lb_status", {"destination_id": 1, "new_status": 0})]:  # fmt: skip
        told(call.mi, command, match="not known to only read", **params)
    assert node.asked == []
    assert call.mi("version", __pub_fun="x")["Server"].startswith("OpenSIPS")


def test_status_of_a_daemon_that_says_nonsense(node, call):
    node.answers["get_statistics"] = {"tm:inuse_transactions": "many"}
    now = call.status()
    assert (now["running"], now["responding"], now["calls"]) == (True, False, None)
    assert now["error"] == "statistics not understood"
    node.answers["get_statistics"] = mi.MiError("MI x: no answer")
    assert call.status()["error"] == "MI x: no answer"
    node.down()
    assert call.status()["running"] is False
    (node.root / "pid").write_text("not a number")
    assert call.status()["running"] is False


def test_ringing_calls_count_though_pings_of_a_large_set_hide_transactions(node, call):
    node.answers["get_statistics"] = {
        "tm:inuse_transactions": 1, "dialog:active_dialogs": 0, "dialog:early_dialogs": 3,
    }  # fmt: skip
    assert call.status()["transactions"] == 3
    node.table("dr_gateways", [{"gwid": "a", "address": "sip:x"}])
    node.answers["get_statistics"] = {"tm:inuse_transactions": 5, "dialog:active_dialogs": 7}
    assert call.status()["transactions"] == 3
    assert call.dialogs_count() == 7


def test_process_that_is_gone_or_a_zombie_is_no_life(call, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda _: "1 (a) Z 1")
    assert call._started(1) is None
    monkeypatch.undo()
    assert call._started(2**22 + 1) is None


def test_destination_state(node, call):
    told(call.dispatcher_set_state, 1, URI, "p", match="lifted by the next ping")
    told(call.dispatcher_set_state, 1, "sip:x", "i", match="sip:x is not in set 1")
    node.answers["ds_set_state"] = "OK"
    told(call.dispatcher_set_state, 1, URI, "i", match="is Active, not Inactive")
    assert call.dispatcher_set_state("1", URI, "a")["after"] == "Active"
    assert node.asked[-1][0] == "ds_list", "what is so already is not set"
    node.answers["ds_list"] = {"nonsense": 1}
    told(call.dispatcher_list, match="ds_list: answer not understood")


def set_states(node, states):
    """A daemon whose destinations can be set."""

    def look(params):
        return node.sets({"1": [(uri, state, "pbx-01") for uri, state in states.items()]})

    def set_state(params):
        states[params["address"]] = {"a": "Active", "i": "Inactive"}[params["state"]]
        return "OK"

    node.answers.update(ds_list=look, ds_set_state=set_state)


def test_destination_is_withdrawn_until_it_is_restored(node, call):
    states = {URI: "Active"}
    set_states(node, states)
    done = call.dispatcher_withdraw(URI, by="me")
    assert (done["before"], done["after"]) == (["Active"], ["Inactive"])
    assert call.withdrawn()[URI]["by"] == "me"
    assert b":1:" in (node.conf / "dbtext/dispatcher").read_bytes().splitlines()[1]
    call.dispatcher_restore(URI)
    assert (states, call.withdrawn()) == ({URI: "Active"}, {})
    told(call.dispatcher_withdraw, "sip:x", match="sip:x is in no set")


def test_destination_of_a_withdrawn_node_stays_out(node, call):
    states = {URI: "Inactive"}
    set_states(node, states)
    call._note_withdrawn({"pbx-01.lab-local": {"uris": [URI], "since": "", "by": ""}})
    told(call.dispatcher_restore, URI, match="pbx-01.lab-local is; voice.restore it")
    call.dispatcher_withdraw(URI)
    assert list(call.withdrawn()) == ["pbx-01.lab-local"], "its node is noted already"
    states[URI] = "Active"
    assert call.reapply_withdrawn() == [URI]
    assert states == {URI: "Inactive"}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]"])
def test_note_of_who_is_out_that_cannot_be_read(node, call, content):
    call._note_withdrawn({})
    (node.root / "state/withdrawn.json").write_bytes(content)
    told(call.withdrawn, match="unreadable; mend or remove it")


# -- tables --------------------------------------------------------------------------------------

GOOD = {
    "address_reload": ("address", [{"grp": 1, "ip": "10.0.0.0", "mask": 8}],
        {"address_dump": {}, "subnet_dump": {"Partitions": [{"Destinations": [
            {"grp": 1, "ip": "10.0.0.0", "mask": "255.0.0.0"}]}]}}),
    "clusterer_reload": ("clusterer", [
        {"cluster_id": 1, "node_id": 1, "url": "bin:a"},
        {"cluster_id": 1, "node_id": 2, "url": "bin:b"}],
        {"clusterer_list": PEER}),
    "domain_reload": ("domain", [{"domain": "a.b"}],
        {"domain_dump": {"Domains": [{"name": "a.b"}]}}),
    "dr_reload": ("dr_gateways", [{"gwid": "a", "address": "sip:x"}],
        {"dr_gw_status": {"Gateways": [{"ID": "a", "IP": "x", "State": "Active"}]}}),
    "lb_reload": ("load_balancer", [{"group_id": 1, "dst_uri": "sip:x", "resources": "calls=1"}],
        {"lb_list": {"Destinations": [{"id": 1, "uri": "sip:x", "group": 1, "enabled": "yes",
            "Resources": [{"name": "calls", "max": 1, "load": 0}]}]}}),
    "reg_reload": ("registrant", [
        {"registrar": "sip:r", "aor": "sip:a", "binding_URI": "sip:b", "state": 0}],
        {"reg_list": {"Records": [{"AOR": "sip:a", "registrar": "sip:r", "state": "X"}]}}),
    "rtpengine_reload": ("rtpengine", [{"set_id": 1, "socket": "udp:a:1=2"}],
        {"rtpengine_show": [{"Set": 1, "Nodes": [
            {"url": "udp:a:1", "disabled": 0, "recheck_ticks": 0}]}]}),
    "tcp_reload": ("tcp_mgm", [], {}),
    "fraud_reload": ("fraud_detection", [], {}),
    "ds_reload": ("dispatcher", [{"setid": 1, "destination": URI}], {}),
}  # fmt: skip
OTHER = {"ip": "11.0.0.0", "gwid": "z", "domain": "z.z", "dst_uri": "sip:z", "aor": "sip:z",
         "socket": "udp:z:1", "destination": "sip:z", "node_id": 9}  # fmt: skip
FUNCTIONS = {"ds_reload": "dispatcher_reload", "reg_reload": "registrant_reload",
             "dp_reload": "dialplan_reload"}  # fmt: skip


@pytest.mark.parametrize("command", GOOD)
def test_table_is_taken_read_and_compared(node, call, command):
    table, rows, answers = GOOD[command]
    node.table(table, rows)
    node.answers.update(answers)
    node.answers[command] = "OK"
    function = getattr(call, FUNCTIONS.get(command, command))
    done = function()
    assert done["action"] == f"dbt_reload {command}"
    assert call._Daemon().classify(call._tree(), call._tree())["actions"] == []
    assert call.config_diff()["disruption"] == "none", "what was read is remembered"
    if command == "rtpengine_reload":
        assert ("rtpengine_reload", {"type": "soft"}) in node.asked
    if answers or command == "ds_reload":
        # One row more on disk than the daemon took.
        extra = {**rows[0], **{key: OTHER[key] for key in OTHER if key in rows[0]}}
        node.table(table, [*rows, extra])
        told(function, match=f"{command} said OK but")
        assert call.config_diff()["disruption"] == "reload", "and is still owed"


def test_translations_are_asked_for_since_a_bad_one_takes_all_with_it(node, call):
    row = {"dpid": 5, "match_op": 1, "match_exp": "^1"}
    node.table("dialplan", [row])
    node.answers.update(
        dp_reload="OK", dp_translate=mi.MiError("MI x: dp_translate: No translation")
    )
    assert call.dialplan_reload()["before"] is None
    assert ("dp_translate", {"dpid": "5", "input": "0"}) in node.asked
    node.answers["dp_translate"] = mi.MiError(
        "MI x: dp_translate: No information available for dpid"
    )
    told(call.dialplan_reload, match="set 5 is gone; one of its expressions is none")


def test_reload_is_not_noted_of_a_daemon_that_is_down(node, call):
    node.down()
    node.answers["tcp_reload"] = "OK"
    assert call.tcp_reload()["result"] is True


def test_unknown_action_of_a_plan_is_refused(node, call):
    told(call._run_reload, "ds_dump", {}, match="no action 'ds_dump' is known")


def test_sqlite_is_synced_instead_of_read_again(node, call):
    node.write("conf.d/40-db.cfg", b'modparam("a", "db_url", "sqlite:///x")\n')
    node.write("dbtext/version", b"table_name(string) table_version(int)\ndispatcher:9\n")
    node.answers["ds_reload"] = "OK"
    done = call.dispatcher_reload()
    assert done["action"] == "sync ds_reload"
    assert "dbt_reload" not in node.commands()
    assert (node.root / "var/opensips.sqlite").exists()
    call._take_tables(call._tree())
    call.stand()
    call._prepare(call._tree())


def test_tables_that_calls_write_are_put_there_for_db_text(node, call):
    node.write("runtime/location", b"contact_id(long)\n")
    call._prepare(call._tree())
    assert (node.root / "var/dbtext/location").exists()


def test_address_is_looked_up_in_what_runs(node, call):
    node.answers.update(GOOD["address_reload"][2])
    assert call.address_test("10.1.2.3") is True
    assert call.address_test("10.1.2.3", 2) is False
    assert call.address_test("::1") is False
    told(call.address_test, "ten", match="'ten' is no IP address")


class Switch:
    """Something that has a state and a command that sets it, or does not."""

    def __init__(self, key, value, words):
        self.key, self.value, self.words, self.stuck = key, value, words, False

    def __call__(self, params):
        asked = next((params[name] for name in ("status", "new_status") if name in params), None)
        if asked is None:
            return {self.key: self.value}
        if not self.stuck:
            self.value = self.words[asked]
        return "OK"


@pytest.mark.parametrize(
    ("function", "command", "switch", "off", "on"),
    [
        ("lb_status", "lb_status", ("enable", "yes", ["no", "yes"]), False, True),
        ("dr_carrier_status", "dr_carrier_status", ("Enabled", "yes", ["no", "yes"]), False, True),
        ("dr_gateway_status", "dr_gw_status", ("State", "Active", ["Disabled MI", "Active"]),
         "i", "a"),
    ],
)  # fmt: skip
def test_what_gets_calls_is_switched_and_checked(node, call, function, command, switch, off, on):
    node.answers[command] = made = Switch(*switch)
    run = getattr(call, function)
    before = run(1)
    assert run(1, off)["after"] != before
    asked = len(node.asked)
    assert run(1, off)["before"] != before
    assert len(node.asked) == asked + 2, "what is so already is not set"
    made.stuck = True
    told(run, 1, on, match="had no effect: it is")
    if function == "dr_gateway_status":
        told(run, 1, "p", match="state must be a or i")


def test_relay_is_taken_out_and_put_back(node, call):
    row = {"url": "udp:a:1", "disabled": 0, "recheck_ticks": 0}
    node.answers["rtpengine_show"] = [{"Set": 1, "Nodes": [row]}]

    def enable(params):
        row["recheck_ticks"] = 0 if params["enable"] else 2**32 - 1
        return "OK"

    node.answers["rtpengine_enable"] = enable
    assert call.rtpengine_enable("udp:a:1", False, set_id=1)["after"] is False
    assert node.asked[-2] == ("rtpengine_enable", {"url": "udp:a:1", "enable": 0, "setid": 1})
    assert call.rtpengine_enable("udp:a:1")["after"] is True
    told(call.rtpengine_enable, "udp:b:1", match="no RTP engine udp:b:1")


# -- certificates --------------------------------------------------------------------------------


def tls(node, **changes):
    """A TLS domain that is in force; what a socket serves is the name of a certificate."""
    row = {"domain": "default", "type": 2, "match_ip_address": "*", "match_sip_domain": "*",
           "certificate": "one", "private_key": "key", "verify_cert": 0,
           "require_cert": 0}  # fmt: skip
    node.write("conf.d/10-core.cfg", b"socket=tls:127.0.0.1:5061\n")
    node.table("tls_mgm", [{**row, **changes}])
    node.served = "one"
    node.verified = []
    node.answers["tls_list"] = lambda _: {
        "Domains": [{"name": "default", "type": "TLS_DOMAIN_SRV"}]
    }
    node.answers["tls_reload"] = "OK"
    node.utils["tls_probe.served"] = lambda *asked: node.served

    def verify(domain, chain, key):
        node.verified.append(domain)
        if key == "wrong":
            raise CommandExecutionError(f"certificate {domain}: key does not match leaf CN=x")

    node.salt["certificate.verify"] = verify
    node.salt["certificate.facts"] = lambda pem: {"fingerprint": pem, "not_after": "2030"}


def test_certificates_are_verified_before_and_proven_after(node, call):
    tls(node)
    node.remember()
    done = call.tls_reload()
    assert done["after"] == {
        "default": {"side": "server", "addresses": [], "names": [], "method": ""}
    }
    assert node.verified == ["domain-default"]
    assert call.cert_served("127.0.0.1", 5061)["fingerprint"] == "one"


def test_wrong_key_puts_the_table_back_that_ran(node, call):
    tls(node)
    node.remember()
    ran = (node.conf / "dbtext/tls_mgm").read_bytes()
    tls(node, private_key="wrong")
    told(call.tls_reload, match="key does not match.*; the table that ran is back")
    assert (node.conf / "dbtext/tls_mgm").read_bytes() == ran
    assert (node.conf / "dbtext/tls_mgm").stat().st_mode & 0o777 == 0o640


def test_wrong_certificate_served_is_a_failure_also_when_the_table_is_back(node, call):
    tls(node)
    node.remember()
    tls(node, certificate="two")
    node.served = "three"
    told(call.tls_reload, match="serves another certificate.*; with the table that ran, .*another")


def test_domain_that_was_dropped_without_a_word(node, call):
    tls(node)
    node.remember()
    node.answers["tls_list"] = {"Domains": []}
    told(call.tls_reload, match="does not show what table tls_mgm holds on disk; its certificate")


def test_certificates_wait_for_a_restart_from_4_0_on(node, call):
    """It dies of a reload (measured on 4.0.1)."""
    tls(node)
    old = call._tree()
    tls(node, certificate="two")
    new, daemon = call._tree(), call._Daemon()
    assert daemon.classify(old, new)["disruption"] == "reload"
    (node.root / "opensips").touch()
    node.salt["cmd.run_stdout"] = lambda *_, **__: "version: opensips 4.0.1 (x86_64/linux)"
    assert daemon.classify(old, new)["disruption"] == "restart"
    assert daemon.safe_part(old, new)["dbtext/tls_mgm"] == old["dbtext/tls_mgm"]
    told(call.tls_reload, match="tls_reload refused")
    tls(node, private_key="wrong")
    (problem,) = daemon.problems(call._tree())
    assert "key does not match" in problem
    assert daemon.node()["state"] == "in_service"


def test_domain_with_dots_in_its_name_is_told_what_is_wrong_with_it(node, call):
    tls(node, domain="Sip.example.org", private_key="wrong")
    node.salt["certificate.verify"] = load("_modules/certificate.py", __utils__=node.utils).verify
    (problem,) = with_binary(node)._Daemon().problems(call._tree())
    assert problem.startswith("certificate domain-sip-example-org: chain")


def test_list_of_ciphers_that_openssl_does_not_know_never_reaches_the_daemon(node, call):
    """OpenSIPS drops the domain and says OK."""
    tls(node)
    node.remember()
    ran = (node.conf / "dbtext/tls_mgm").read_bytes()
    tls(node, cipher_list="NONSENSE")
    (problem,) = with_binary(node)._Daemon().problems(call._tree())
    assert problem == "pillar opensips:tls:default:ciphers names none that OpenSSL has"
    (node.root / "opensips").unlink()
    told(call.tls_reload, match="default:ciphers names none.*; the table that ran is back")
    assert (node.conf / "dbtext/tls_mgm").read_bytes() == ran


def with_binary(node):
    (node.root / "opensips").touch()
    return node.module


def test_routes_are_not_reloaded_once_memory_is_short(node, call):
    """The process that has least decides; its largest pieces and its used bytes do not."""
    node.answers["reload_routes"] = "OK"
    free = {"pkmem:0-free_size": 9 << 20, "pkmem:1-free_size": 1 << 20}
    node.answers["get_statistics"] = {**free, "pkmem:1-real_used_size": 7}
    assert call._reload_routes(3, "lab-local") == 4
    node.answers["get_statistics"]["pkmem:1-free_size"] -= 1
    told(call._reload_routes, 4, "lab-local", match=r"has less than 1 MiB left; run `guardian dep")
    assert node.commands().count("reload_routes") == 1


def served_from_table(node, pillar):
    """A daemon that lists and serves what its table holds, and pillar with one bundle."""

    def domains(_):
        rows = node.utils["opensips_tables.decode"](
            "tls_mgm", (node.conf / "dbtext/tls_mgm").read_bytes()
        )
        sides = {1: "TLS_DOMAIN_CLI", 2: "TLS_DOMAIN_SRV"}
        return {"Domains": [{"name": row["domain"], "type": sides[row["type"]]} for row in rows]}

    node.answers["tls_list"] = domains
    node.utils["tls_probe.served"] = lambda address, port, name, timeout: (
        "two" if name == "sip.example.org" else "one"
    )
    node.pillar.update(pillar)


def test_tls_domain_is_added_and_its_key_is_told_to_nobody(node, call):
    tls(node)
    bundle = {"chain": "two", "key": {"secret": "key"}}
    secrets = {"key": "canary-8F3K"}
    served_from_table(node, {"certificates:example": bundle, "secret_values": secrets})
    node.remember()
    editable(node)
    columns = {"match_sip_domain": "sip.example.org", "__pub_fun": "opensips.tls_domain"}
    predicted = call.tls_domain("example", "example", test=True, **columns)
    assert (predicted["result"], list(call.tls_list())) == (None, ["default"])
    done = call.tls_domain("example", "example", **columns)
    assert done["changes"] == predicted["changes"]
    assert done["changes"]["actions"] == ["dbt_reload", "tls_reload"]
    assert list(call.tls_list()) == ["default", "example"]
    assert b"canary-8F3K" in (node.conf / "dbtext/tls_mgm").read_bytes()
    assert "canary-8F3K" not in str([done, predicted, call.rows("tls_mgm")])
    assert call.tls_domain("example", "example", **columns)["changes"] == {}, "it is kept"
    assert call.edit("tls_mgm", absent=[{"domain": "example", "type": 2}])["result"] is True
    assert list(call.tls_list()) == ["default"]


def test_tls_domain_that_cannot_be(node, call):
    tls(node)
    served_from_table(node, {"certificates:odd": {"chain": "c", "key": "wrong"}})
    before = (node.conf / "dbtext/tls_mgm").read_bytes()
    told(call.tls_domain, "a", "x", match="pillar certificates:x must hold chain and key")
    told(call.tls_domain, "a", "odd", match="certificate odd: key does not match")
    told(call.tls_domain, "a", "odd", private_key="k", match="no argument private_key; there are")
    told(call.tls_domain, "a", "odd", side="left", match="side must be server or client")
    row = {"domain": "a", "type": 2, "certificate": "c", "private_key": "k"}
    told(call.edit, "tls_mgm", present=[row], match="taken from pillar; use opensips.tls_domain")
    assert (node.conf / "dbtext/tls_mgm").read_bytes() == before


# -- routes --------------------------------------------------------------------------------------


def test_routes_are_reloaded_alone_and_not_too_often(node, call):
    node.answers["reload_routes"] = "OK"
    assert call.reload_routes()["evidence"].startswith("1 of 50")
    assert call.reload_routes()["evidence"].startswith("2 of 50")
    node.table("dispatcher", [{"setid": 2, "destination": URI}])
    told(call.reload_routes, match="it would ignore: dbtext/dispatcher")
    told(call._reload_routes, 50, "lab-local", match="50 in this process's life leak its memory")
    node.down()
    told(call.reload_routes, match="opensips is not running")


# -- drain ---------------------------------------------------------------------------------------


def test_drain_is_written_down_for_whoever_starts_it(node, call):
    done = call.set_draining(True)
    assert (done["before"], done["after"], done["evidence"]) == (False, True, "shv_get")
    assert b"draining=i:1" in (node.conf / "conf.d/15-standing.cfg").read_bytes()
    call.set_draining(False)
    assert b"draining=i:0" in (node.conf / "conf.d/15-standing.cfg").read_bytes()
    node.mark = {"by": "x"}
    assert call.stand() == ["conf.d/15-standing.cfg"]
    node.answers["shv_set"] = "OK"
    told(call.set_draining, True, match="shv_set draining had no effect")


def with_health(node, opened):
    unit = node.root / "system/etc/systemd/system/opensips-health.socket"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.touch()
    if opened:
        (node.root / "opensips-health.socket").touch()


def test_health_socket_fails_while_it_drains(node, call):
    assert call._health() is None
    with_health(node, opened=True)
    assert "closed" in call.set_draining(True)["evidence"]
    assert "open" in call.set_draining(False)["evidence"]
    assert node.services == ["stop opensips-health.socket", "start opensips-health.socket"]
    node.salt["service.stop"] = lambda name: False
    told(call.set_draining, True, match="systemd could not stop opensips-health.socket")


def clustered(node, peers=PEER):
    """A tag that is ours until the peer is told to take it."""
    node.table("clusterer", [{"cluster_id": 1, "node_id": 1, "url": "bin:a"}])
    node.state = "active"
    node.answers["clusterer_list_shtags"] = lambda _: [
        {"Tag": "vip", "Cluster": 1, "State": node.state}
    ]
    node.answers["clusterer_list"] = peers
    node.answers["clusterer_list_cap"] = {"Clusters": [
        {"cluster_id": 1, "Capabilities": [{"name": "dialog", "state": "Ok"}]}]}  # fmt: skip

    def send(params):
        node.state = "backup"
        return "OK"

    node.answers["cluster_send_mi"] = send
    node.answers["clusterer_shtag_set_active"] = "OK"


def test_sharing_tag_is_given_by_having_the_peer_take_it(node, call, monkeypatch):
    clustered(node)
    assert call.cluster_status()["capabilities"] == {"1": {"dialog": "Ok"}}
    assert "vip/1 given to node 2" in call.set_draining(True)["evidence"]
    (sent,) = [params for command, params in node.asked if command == "cluster_send_mi"]
    assert sent == {"cluster_id": 1, "destination": 2, "cmd_name": "clusterer_shtag_set_active",
                    "cmd_params": ["vip/1"]}  # fmt: skip
    node.state = "active"
    node.answers["cluster_send_mi"] = "OK"
    monkeypatch.setattr(call, "TAG_SECONDS", 0.1)
    told(call.set_draining, True, match="node 2 did not take vip/1 within 0.1 s")


def test_sharing_tag_stays_where_no_peer_is_up(node, call):
    clustered(node, NO_PEER)
    assert "vip/1 stays: no peer is up" in call.set_draining(True)["evidence"]


def test_sharing_tag_is_taken(node, call):
    clustered(node)
    assert call.shtag_activate("vip/1")["after"] == "active"
    node.state = "backup"
    told(call.shtag_activate, "vip/1", match="had no effect: it is backup")
    told(call.shtag_activate, "vap/1", match="no sharing tag vap/1; there are: vip/1")
    node.mark = {"by": "x"}
    told(call.shtag_activate, "vip/1", match="this proxy is drained")


def test_drain_tells_what_is_left(node, call):
    clustered(node, NO_PEER)
    node.salt["voice.drain"] = lambda timeout, by: {"drained": True, "calls": 4, "by": by}
    node.salt["voice.undrain"] = lambda: "undrained"
    done = call.drain(timeout=1)
    assert done["evidence"] == "0 requests in hand, 4 dialogs; no peer is up to take vip/1"
    assert done["after"]["flat"] is True
    node.table("clusterer", [])
    (node.conf / "dbtext/clusterer").unlink()
    assert call.drain()["evidence"] == "0 requests in hand, 4 dialogs"
    assert call.undrain() == "undrained"
    node.down()
    assert call.drain_status(0)["tags_held"] == []


# -- start and restart ---------------------------------------------------------------------------


def test_restart_keeps_out_whom_a_person_took_out_by_hand(node, call, monkeypatch):
    monkeypatch.setattr(call, "POLL_SECONDS", 0)
    node.answers["ds_list"] = node.sets({"1": [(URI, "Inactive", "pbx-01")]})
    node.salt["service.enabled"] = lambda name: False
    call._Daemon().service("restart")
    assert b":1:" in (node.conf / "dbtext/dispatcher").read_bytes().splitlines()[1]
    assert node.services == ["enable opensips", "restart opensips"]
    node.salt["service.start"] = lambda name: False
    told(call._Daemon().service, "start", match="systemd could not start opensips")


def test_restart_waits_for_a_quiet_moment_but_not_for_ever(node, call, monkeypatch):
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls):
            return cls.now

        @classmethod
        def sleep(cls, seconds):
            cls.now += seconds

    monkeypatch.setattr(call, "time", Clock)
    node.answers["get_statistics"] = {"tm:inuse_transactions": 99, "dialog:active_dialogs": 0}
    call._settle()
    assert Clock.now == call.SETTLE_SECONDS
    node.answers["get_statistics"] = {"tm:inuse_transactions": 0, "dialog:active_dialogs": 3}
    Clock.now = 0.0
    call._settle()
    assert Clock.now == call.POLL_SECONDS, "two looks alike are enough"


def test_start_is_awaited_until_it_has_read_its_tables(node, call, monkeypatch):
    monkeypatch.setattr(call, "START_SECONDS", 0.05)
    call._Daemon().await_start("")
    node.answers["sr_get_status"] = {"Status": -1}
    told(call._Daemon().await_start, "", match="opensips is not up 0.05 s after its start")
    node.answers["sr_get_status"] = mi.MiError("unknown")
    call._Daemon().await_start("")
    node.down()
    told(call._Daemon().await_start, "", match="opensips is not running")


def test_what_strayed_is_put_back(node, call):
    daemon = call._Daemon()
    assert daemon.strayed() == []
    with_health(node, opened=False)
    assert daemon.strayed() == ["start opensips-health.socket"]
    daemon.keep_out()
    assert node.services == ["start opensips-health.socket"]
    clustered(node)
    node.mark = {"by": "x"}
    assert daemon.strayed() == ["draining", "stop opensips-health.socket", "give vip/1 to node 2"]
    assert daemon.kept_out() == ["draining"]
    daemon.keep_out()
    assert daemon.strayed() == []
    daemon.units_changed()
    assert node.services[-1] == "daemon-reload"


def test_plan_is_carried_out_in_its_order(node, call):
    node.answers.update(ds_reload="OK", reload_routes="OK", address_reload="OK",
                        **GOOD["address_reload"][2])  # fmt: skip
    node.table(*GOOD["address_reload"][:2])
    order = ("dbt_reload", "address_reload", "ds_reload", "reload_routes")
    plan = {"actions": [{"do": name} for name in order]}
    daemon = call._Daemon()
    assert daemon.act(plan, {"reloads": 4}) == 5
    assert [name for name in node.commands() if "reload" in name] == [
        step["do"] for step in plan["actions"]
    ]
    daemon.verify(plan, call._tree())
    node.answers["ds_list"] = node.sets({})
    told(daemon.verify, plan, call._tree(), match="ds_reload said OK but ds_list does not show")
    node.answers["dbt_reload"] = mi.MiError("gone")
    daemon.undo(plan, {}, {"reloads": 0})
    assert daemon.rehearse("", {}) == []


def test_safe_part_and_classes_are_those_of_the_files(node, call):
    old = {"conf.d/10-core.cfg": b"a=1", "routes.d/a.cfg": b"x"}
    new = {"conf.d/10-core.cfg": b"a=2", "routes.d/a.cfg": b"y"}
    assert call._Daemon().safe_part(old, new) == {**old, "routes.d/a.cfg": b"y"}
    (node.root / "other/routes.d").mkdir(parents=True)
    (node.root / "other/routes.d/a.cfg").write_text("x")
    assert call.classify_change(str(node.root / "other"), str(node.conf))["disruption"] == "restart"


def test_checks_of_a_healthy_proxy_and_of_one_that_is_not(node, call):
    tls(node)
    clustered(node)
    node.remember()
    node.write("conf.d/10-core.cfg", b"socket=udp:127.0.0.1:5060\nsocket=tls:127.0.0.1:5061\n")
    node.remember()
    code = [200]
    node.utils["sip.options"] = lambda *_: code[0]
    assert [check for check in call.checks() if not check["ok"]] == []
    code[0], node.served = 0, "other"
    node.answers["ds_list"] = node.sets({})
    behind = {"name": "dialog", "state": "not synced"}
    node.answers["clusterer_list_cap"] = {"Clusters": [{"cluster_id": 1, "Capabilities": [behind]}]}
    node.write("conf.d/10-core.cfg", b"socket=udp:127.0.0.1:5060\nsocket=tls:127.0.0.1:5062\n")
    failed = {check["name"]: check["detail"] for check in call.checks() if not check["ok"]}
    assert failed["127.0.0.1:5060 answers OPTIONS"] == "silence"
    assert failed["what the cluster replicates is synced"] == "dialog"
    assert "serves another certificate" in failed["TLS sockets serve the certificates on disk"]
    assert len(failed) == 5
    node.down()
    assert [check["ok"] for check in call.checks()] == [False]


TEMPLATES = {
    "manifest.yaml": """
tree:
  - {path: conf.d/15-standing.cfg, template: standing}
  - {path: routes.d/10-request.cfg, template: routes}
system: []
""",
    "standing": """modparam("cfgutils", "shvset", "draining=i:{{ 1 if draining else 0 }}")\n""",
    "routes": "# {{ local_driver }} {{ release | join('.') }} {{ algorithm }}\n",
}


def templates(node):
    source = node.root / "templates"
    source.mkdir()
    for name, text in TEMPLATES.items():
        (source / name).write_text(text)
    node.utils["opensips_rows.rows"] = lambda context, read: {
        "dispatcher": [{"setid": 1, "destination": uri} for uri in context["wanted"]]
    }
    return str(source)


def test_tree_is_rendered_with_what_the_node_knows(node, call):
    source = templates(node)
    node.down()
    node.mark = {"by": "x"}
    node.opts["test"] = True
    context = {"wanted": [URI], "algorithm": {"secret": "four"}}
    told(call.configure, source, context, match="secret four of opensips:algorithm is not in this")
    node.pillar["secret_values"] = {"four": "4"}
    call.configure(source, context)
    assert b"draining=i:1" in (node.conf / "conf.d/15-standing.cfg").read_bytes()
    routes = (node.conf / "routes.d/10-request.cfg").read_bytes()
    assert routes == b"# text 3.4.0 4\n"
    digests = call.render(source, context)
    assert set(digests) >= {"dbtext/dispatcher", "conf.d/15-standing.cfg"}
    assert call.configure(source, context, test=True)["changes"] == {}


def test_what_opensips_says_of_a_tree_is_told(node, call):
    node.utils["opensips_lint.problems"] = lambda tree: ["routes.d/a.cfg:1: wrong"]
    assert call.config_check() == {"result": False, "problems": ["routes.d/a.cfg:1: wrong"]}
    node.utils["opensips_lint.problems"] = lambda tree: []
    node.utils["opensips_lint.explain"] = lambda said, *_, up=False: [] if up else [said]
    node.utils["opensips_trial.check"] = lambda binary, path, memory: (False, f"C {memory}")
    (node.root / "system/etc/default").mkdir(parents=True)
    (node.root / "system/etc/default/opensips").write_text("S_MEMORY=64\nP_MEMORY=8\n")
    assert call.config_check()["problems"] == ["C {'shared': 64, 'private': 8}"]
    node.utils["opensips_trial.check"] = lambda *_: (True, "")
    assert call.config_check(boot=False)["result"] is True
    node.utils["opensips_trial.boot"] = lambda *_, **__: (False, "B")
    assert call.config_check()["problems"] == ["B"]
    node.utils["opensips_trial.boot"] = lambda *_, **__: (True, "")
    assert call.config_check()["result"] is True
    daemon = call._Daemon()
    assert daemon.problems({}) == [f"{node.root}/opensips is not installed"]
    (node.root / "opensips").touch()
    assert daemon.problems(call._tree()) == []
    assert not (node.root / ".conf.staged").exists()


def test_daemon_that_is_up_is_left_alone(node, call):
    assert call.__virtual__() == "opensips"
    assert call.ensure_running()["changes"] == {}
    assert node.services == []


# -- rows beside pillar's ------------------------------------------------------------------------

ROW = {"setid": 7, "destination": "sip:10.0.0.9:5060"}


def editable(node):
    node.answers["ds_reload"] = "OK"
    node.utils["opensips_trial.problems"] = lambda *_, **__: []
    node.opts["test"] = True  # no binary is there to ask


def follow(node):
    """A daemon that takes over the table that is on disk."""

    def look(_):
        rows = node.utils["opensips_tables.decode"](
            "dispatcher", (node.conf / "dbtext/dispatcher").read_bytes()
        )
        sets = {}
        for row in rows:
            state = "Inactive" if row["state"] else "Active"
            sets.setdefault(str(row["setid"]), []).append((row["destination"], state, ""))
        return node.sets(sets)

    node.answers["ds_list"] = look


def test_row_is_added_kept_and_taken_away(node, call):
    editable(node)
    follow(node)
    predicted = call.edit("dispatcher", present=[ROW], test=True)
    assert predicted["changes"]["actions"] == ["dbt_reload", "ds_reload"]
    assert not (node.root / "state/opensips.rows.json").exists()
    done = call.edit("dispatcher", present=[ROW])
    assert done["changes"] == predicted["changes"]
    assert [row["setid"] for row in call.rows("dispatcher")] == [1, 7]
    assert call.edit("dispatcher", present=[ROW])["changes"] == {}
    pillars = {"dbtext/dispatcher": node.utils["opensips_tables.encode"](
        "dispatcher", [{"setid": 1, "destination": URI}])}  # fmt: skip
    assert (
        call._with_extra(pillars)["dbtext/dispatcher"]
        == (node.conf / "dbtext/dispatcher").read_bytes()
    )
    assert call._with_extra({}) == {}
    assert call.edit("dispatcher", absent=[ROW])["result"] is True
    assert [row["setid"] for row in call.rows("dispatcher")] == [1]
    assert not (node.root / "state/opensips.rows.json").exists()


def test_row_of_a_withdrawn_destination_comes_back_inactive(node, call):
    editable(node)
    follow(node)
    call._note_withdrawn({"pbx-09": {"uris": [ROW["destination"]]}})
    call.edit("dispatcher", present=[ROW])
    assert call.rows("dispatcher")[1]["state"] == 1


def test_rows_of_pillar_are_not_fought_over(node, call):
    editable(node)
    mine = {"setid": 1, "destination": URI}
    assert call.edit("dispatcher", present=[mine])["changes"] == {}
    for arguments in ({"present": [{**mine, "weight": "9"}]}, {"absent": [mine]},
                      {"only": {"setid": 1}}):  # fmt: skip
        told(call.edit, "dispatcher", match="is a row of pillar opensips", **arguments)
    told(call.edit, "dialplan", match="table dialplan is not part of this configuration")
    told(call.edit, "load_balancer", match="is not part of this configuration")
    told(call.edit, "dispatcher", present=[{"nonsense": 1}], match="no column nonsense")


def test_what_fails_is_not_noted(node, call):
    editable(node)
    node.answers["ds_reload"] = mi.MiError("MI x: ds_reload: ERROR Reloading data")
    told(call.edit, "dispatcher", present=[ROW], match="the previous configuration is back")
    assert call._extra() == {}
    node.utils["opensips_trial.problems"] = lambda *_, **__: ["it is broken"]
    call._Daemon.problems = lambda self, tree: ["it is broken"]
    assert call.edit("dispatcher", present=[ROW])["result"] is False
    assert call._extra() == {}


@pytest.mark.parametrize("content", ["[]", "{", "7"])
def test_note_of_added_rows_that_cannot_be_read(node, call, content):
    (node.root / "state").mkdir(exist_ok=True)
    (node.root / "state/opensips.rows.json").write_text(content)
    told(call._extra, match="unreadable; remove it, then apply the states")


def test_rows_of_other_tables_have_no_state_of_drain(node, call):
    row = {"set_id": 1, "socket": "udp:a:1"}
    node.table("rtpengine", [])
    node.answers.update(rtpengine_reload="OK", rtpengine_show=[
        {"Set": 1, "Nodes": [{"url": "udp:a:1", "disabled": 0}]}])  # fmt: skip
    node.remember()
    editable(node)
    assert call.edit("rtpengine", present=[row])["changes"]["disruption"] == "reload"


def test_table_that_is_not_rendered_keeps_its_rows_in_the_note(node, call):
    call._note_extra({"address": [{"grp": 1, "ip": "10.0.0.1", "mask": 32}], "odd": [{}]})
    tree = {"dbtext/odd": b""}
    assert call._with_extra(tree) == tree
    told(call.rows, "address", match="not part of this configuration")


# -- rendering -----------------------------------------------------------------------------------


def test_release_is_that_of_the_binary(node, call):
    assert call._release() == [3, 4, 0]
    (node.root / "opensips").touch()
    assert call._release() == [3, 6, 8]
    node.salt["cmd.run_stdout"] = lambda *_, **__: "what?"
    assert call._release() == [3, 6, 8], "it is asked once"
    os.utime(node.root / "opensips", (1, 1))
    assert call._release() == [3, 4, 0]


def test_driver_is_sqlite_where_its_module_is(node, call, monkeypatch):
    assert call._local_driver({"database": {"local": "text"}}) == "text"
    assert call._local_driver({"module_path": str(node.root)}) == "text"
    (node.root / "db_sqlite.so").touch()
    assert call._local_driver({"module_path": str(node.root)}) == "sqlite"
    monkeypatch.setattr(call, "LIBRARIES", str(node.root))
    assert call._local_driver({"database": None}) == "text"
    place = node.root / "x86_64-linux-gnu/opensips/modules"
    place.mkdir(parents=True)
    (place / "db_sqlite.so").touch()
    assert call._local_driver({}) == "sqlite"


# -- voice ---------------------------------------------------------------------------------------


class Proxy:
    """`voice` of a proxy whose daemon says what the test wants."""

    def __init__(self, root, *told):
        self.stood, self.told = 0, list(told)
        self.voice = load(
            "_modules/voice.py",
            __opts__={"id": "sip-01.lab-local", "voice.state_dir": str(root)},
            __salt__={
                "cmd.which": lambda name: "/usr/sbin/opensips",
                "opensips.status": lambda: self.told.pop(0) if self.told[1:] else self.told[0],
                "opensips.set_draining": lambda wanted: None,
                "opensips.stand": self.stand,
                "opensips.withdrawn": dict,
                "opensips.dispatcher_list": lambda: {"1": [
                    {"uri": URI, "state": "Active", "node": "pbx-01"}]},
                "opensips.dispatcher_set_state": lambda *_: {
                    "before": "a", "after": "i", "action": "x"},
            },
            __utils__={
                "staged.write_file": load("_utils/staged.py").write_file,
                "nodelock.hold": load("_utils/nodelock.py").hold,
            },
        )  # fmt: skip
        self.voice.POLL_SECONDS = 0.01

    def stand(self):
        self.stood += 1


def proxy_status(calls, busy=0, running=True):
    return {"running": running, "responding": running, "draining": True, "calls": calls,
            "transactions": busy, "error": ""}  # fmt: skip


def test_drain_of_a_proxy_looks_twice(tmp_path):
    first = proxy_status(5)
    proxy = Proxy(tmp_path, first, proxy_status(5), proxy_status(6), proxy_status(6, busy=1),
                  proxy_status(6), proxy_status(6))  # fmt: skip
    assert proxy.voice.drain(timeout=5) == {"drained": True, "calls": 6, "stuck": []}
    assert len(proxy.told) == 1


def test_proxy_that_is_down_starts_drained(tmp_path):
    proxy = Proxy(tmp_path, proxy_status(0, running=False))
    assert proxy.voice.drain(timeout=60)["drained"] is True
    assert proxy.stood == 1


def test_who_is_withdrawn_is_written_for_the_next_start(tmp_path):
    proxy = Proxy(tmp_path, proxy_status(0))
    proxy.voice.withdraw("pbx-01.lab-local")
    assert json.loads((tmp_path / "withdrawn.json").read_text())["pbx-01.lab-local"]["uris"] == [
        URI
    ]
    proxy.voice.restore("pbx-01.lab-local")
    assert proxy.stood == 2
