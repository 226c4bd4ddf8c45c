"""The states against a daemon: what they predict, what they do, what they refuse."""

import json
import os
import signal
import time

import pytest
from salt.exceptions import CommandExecutionError


def plan(ret):
    return {key: ret["changes"].get(key) for key in ("disruption", "why", "actions", "files")}


def test_first_apply_then_nothing(node):
    predicted = node.configured(test=True)
    assert predicted["result"] is None
    assert not node.conf.exists()
    applied = node.configured()
    assert applied["result"] is True, applied["comment"]
    assert plan(applied) == plan(predicted)
    assert (node.conf / "opensips.cfg").stat().st_mode & 0o777 == 0o640
    predicted = node.running(test=True)
    started = node.running()
    assert started["result"] is True, started["comment"]
    assert predicted["changes"] == started["changes"]
    for again in (node.configured(), node.running()):
        assert again["result"] is True
        assert again["changes"] == {}
    assert node.service_log() == ["daemon-reload", "start"]
    assert [check for check in node.call("checks") if not check["ok"]] == []


RELOADS = [
    # The new destination is one of the fleet, hence two tables.
    ({"dispatcher__2": [{"node": "x", "uri": "sip:127.0.0.9:3"}]},
     ["taken", "address_reload", "ds_reload"]),
    ({"trusted": ["127.0.0.1", "192.0.2.0/24"]}, ["taken", "address_reload"]),
    ({"numbers": [{"expression": "^8", "set": 1}]}, ["reload_routes"]),
    ({"algorithm": 9}, ["reload_routes"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "actions"), RELOADS, ids=lambda value: str(value)[:40])
def test_reload_class_changes_apply_in_service(up, change, actions):
    context, before = up.changed(**change), up.pid()
    actions = [up.taken() if action == "taken" else action for action in actions]
    predicted = up.configured(context, test=True)
    applied = up.configured(context)
    assert applied["result"] is True, applied["comment"]
    assert (applied["changes"]["disruption"], applied["changes"]["actions"]) == ("reload", actions)
    assert plan(predicted) == plan(applied)
    assert up.configured(context)["changes"] == {}
    assert up.running()["changes"] == {}
    assert up.pid() == before
    if "dispatcher__2" in change:
        assert set(up.call("dispatcher_list")) == {"1", "2"}
    if "trusted" in change:
        assert "192.0.2.0/24" in str(up.call("address_dump"))


def test_restart_class_change_is_refused_in_service_and_the_rest_applied(up):
    context = up.changed(workers=6, trusted=["127.0.0.1", "192.0.2.7"])
    before = up.pid()
    predicted = up.configured(context, test=True)
    assert predicted["result"] is None
    assert predicted["comment"].startswith("a plain apply would refuse: restart needed")
    refused = up.configured(context)
    assert refused["result"] is False
    assert "udp_workers=4 -> udp_workers=6" in refused["comment"]
    assert "0 calls up; run `guardian deploy lab-local`" in refused["comment"]
    assert f"applied meanwhile: {up.taken()}, address_reload" in refused["comment"]
    assert "192.0.2.7" in str(up.call("address_dump"))
    assert "udp_workers=4" in (up.conf / "conf.d" / "10-core.cfg").read_text()
    assert up.running()["result"] is True
    assert up.pid() == before
    assert up.service_log() == ["daemon-reload", "start"]


def test_drained_proxy_is_restarted_and_stays_drained(up):
    context, before = up.changed(workers=6), up.pid()
    assert up.voice("drain")["drained"]
    assert up.configured(context)["result"] is True
    predicted, answer = up.running(test=True), up.running()
    assert answer["result"] is True, answer["comment"]
    assert answer["changes"] == predicted["changes"]
    assert up.pid() != before
    assert up.call("status")["draining"] is True
    assert up.voice("undrain")["after"] == "in_service"


def test_file_that_stays_unread_on_a_running_proxy_is_noticed(up):
    """Somebody edits the live tree by hand: the disk is not what runs."""
    file = up.conf / "conf.d" / "10-core.cfg"
    file.write_text(file.read_text().replace("udp_workers=4", "udp_workers=8"))
    checks = {check["name"]: check for check in up.call("checks")}
    assert not checks["running configuration is the one on disk"]["ok"]
    answer = up.running()
    assert answer["result"] is False
    assert "udp_workers=4 -> udp_workers=8" in answer["comment"]
    assert up.configured()["result"] is True, "the pillar's tree is what runs"
    assert up.running()["changes"] == {}


def broken(node, name, old, new):
    template = node.source / f"{name}.jinja"
    text = template.read_text()
    assert old in text
    template.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("routes.d/10-request.cfg", "record_route();", "record_rute();", "record_rute"),
        # These pass -C; only a boot finds them.
        ("routes.d/10-request.cfg", "route(admit);", "route(nowhere);", "nowhere"),
    ],
)
def test_tree_that_opensips_refuses_is_never_live(up, name, old, new, told):
    before = {path: path.read_bytes() for path in up.conf.rglob("*") if path.is_file()}
    broken(up, name, old, new)
    for test in (True, False):
        refused = up.configured(test=test)
        assert refused["result"] is False
        assert refused["comment"].startswith("refused, nothing changed: ")
        assert told in refused["comment"]
        assert "\n" not in refused["comment"]
        assert str(up.conf.with_name(".conf.staged")) not in refused["comment"]
    assert {path: path.read_bytes() for path in up.conf.rglob("*") if path.is_file()} == before
    assert not up.conf.with_name(".conf.staged").exists()


def test_reload_that_fails_puts_the_previous_tree_back(up, monkeypatch):
    """The daemon turns down what it accepted a moment ago: after 50 reloads it is due a restart."""
    record = up.root / "voice" / "opensips.running.json"
    note = json.loads(record.read_text())
    record.write_text(json.dumps({**note, "reloads": 50}))
    before = (up.conf / "routes.d" / "20-dispatch.cfg").read_text()
    failed = up.configured(up.changed(algorithm=9))
    assert failed["result"] is False
    assert "reload_routes refused: 50 in this process's life" in failed["comment"]
    assert "the previous configuration is back" in failed["comment"]
    assert (up.conf / "routes.d" / "20-dispatch.cfg").read_text() == before
    assert up.running()["changes"] == {}


def restarted_by_somebody(node):
    """A restart that Salt knows nothing of, as systemd's after a crash."""
    os.kill(node.pid(), signal.SIGKILL)
    os.waitpid(node.pid(), 0)
    for left in (node.pidfile, node.root / "run" / "opensips_mi.sock"):
        left.unlink(missing_ok=True)
    node.caller.cmd("service.start", "opensips")
    deadline = time.monotonic() + 10
    while not node.call("status")["responding"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_withdrawn_peer_and_drain_outlive_a_restart_by_somebody_else(up):
    up.voice("withdraw", "pbx-02.lab-local")
    up.voice("drain")
    assert up.states()["pbx-02"] == "Inactive"
    restarted_by_somebody(up)
    assert up.states() == {"pbx-01": "Active", "pbx-02": "Inactive"}, "from its first moment on"
    assert up.call("status")["draining"] is True
    assert up.configured()["changes"] == {}
    assert up.running()["changes"] == {}
    # Even where a person lifts it behind Salt's back.
    mi = {"state": "a", "group": 1, "address": "sip:127.0.0.1:2"}
    up.mi("ds_set_state", mi)
    up.mi("shv_set", {"name": "draining", "type": "int", "value": 0})
    predicted = up.running(test=True)
    answer = up.running()
    assert answer["result"] is True, answer["comment"]
    assert answer["changes"] == predicted["changes"]
    assert answer["changes"]["actions"] == ["draining", "ds_set_state i sip:127.0.0.1:2"]
    assert up.states() == {"pbx-01": "Active", "pbx-02": "Inactive"}
    assert up.call("status")["draining"] is True
    assert up.running()["changes"] == {}
    up.voice("undrain")
    up.voice("restore", "pbx-02.lab-local")
    assert up.states()["pbx-02"] == "Active"


def test_start_before_the_last_edit_is_not_trusted(up):
    """Nobody noted what the process read, and the files are younger than it."""
    restarted_by_somebody(up)
    file = up.conf / "conf.d" / "10-core.cfg"
    file.write_text(file.read_text())
    answer = up.running()
    assert answer["result"] is False
    assert "what runs is not known (files changed after the daemon started)" in answer["comment"]


def test_new_dispatcher_row_of_a_withdrawn_peer_stays_out(up):
    """A reload must not bring back who was taken out."""
    up.voice("withdraw", "pbx-02.lab-local")
    context = up.changed(dispatcher={"1": [up.destination(number) for number in (1, 2, 3)]})
    assert up.configured(context)["result"] is True
    assert up.states() == {"pbx-01": "Active", "pbx-02": "Inactive", "pbx-03": "Active"}


def test_hung_daemon_counts_as_in_service(up):
    processes = os.getpgid(up.pid())
    os.killpg(processes, signal.SIGSTOP)
    try:
        assert up.voice("in_service")["state"] == "in_service"
        refused = up.configured(up.changed(workers=6))
        assert refused["result"] is False
        assert "calls unknown" in refused["comment"]
    finally:
        os.killpg(processes, signal.SIGCONT)


def test_reading_functions_write_nothing(up):
    before = (up.root / "voice").stat().st_mtime_ns
    for function in ("status", "dispatcher_list", "address_dump", "config_diff", "checks"):
        up.call(function)
    assert (up.root / "voice").stat().st_mtime_ns == before
    for command in ("ds_reload", "dbt_dump", "reload_routes"):
        with pytest.raises(CommandExecutionError, match="not known to only read"):
            up.call("mi", command)


SPARE = "sip:127.0.0.8:5060"


def test_rows_beside_pillars_stay_and_are_never_fought_over(up):
    """States add what pillar does not name; `configured` keeps it; neither undoes the other."""
    arguments = {"name": SPARE, "set_id": 1, "attrs": "pbx-09"}
    predicted = up.state("dispatcher_present", True, **arguments)
    added = up.state("dispatcher_present", False, **arguments)
    assert added["result"] is True, added["comment"]
    assert added["changes"] == predicted["changes"]
    assert added["changes"]["actions"] == [up.taken(), "ds_reload"]
    assert set(up.states()) == {"pbx-01", "pbx-02", "pbx-09"}
    for again in (
        up.state("dispatcher_present", False, **arguments),
        up.configured(),
        up.running(),
    ):
        assert (again["result"], again["changes"]) == (True, {})
    refused = up.state("dispatcher_absent", False, name="sip:127.0.0.1:1", set_id=1)
    assert refused["result"] is False
    assert "is a row of pillar opensips; change it there" in refused["comment"]
    up.voice("withdraw", "pbx-09.lab-local")
    assert up.state("dispatcher_absent", False, name=SPARE, set_id=1)["result"] is True
    assert set(up.states()) == {"pbx-01", "pbx-02"}
    assert up.state("dispatcher_present", False, **arguments)["result"] is True
    assert up.states()["pbx-09"] == "Inactive", "its row came back, it did not"
    assert up.configured()["changes"] == {}


def test_other_rows_and_sets(up):
    managed = {"name": "seven", "set_id": 7, "destinations": [{"uri": SPARE, "attrs": "pbx-09"}]}
    assert up.state("dispatcher_set_managed", False, **managed)["result"] is True
    up.state("dispatcher_present", False, name="sip:127.0.0.7:5060", set_id=7)
    assert len(up.call("dispatcher_list")["7"]) == 2
    purged = up.state("dispatcher_set_managed", False, **managed)
    assert purged["result"] is True, purged["comment"]
    assert [row["uri"] for row in up.call("dispatcher_list")["7"]] == [SPARE]
    assert up.state("address_present", False, name="198.51.100.0/24")["result"] is True
    assert up.call("address_test", "198.51.100.9") is True
    out = {"name": SPARE, "active": False}
    assert up.state("dispatcher_state", True, **out)["result"] is None
    assert up.state("dispatcher_state", False, **out)["result"] is True
    assert up.call("dispatcher_list")["7"][0]["state"] == "Inactive"
    assert up.state("dispatcher_state", False, **out)["changes"] == {}
    absent = up.state("lb_destination_present", False, name=SPARE, group=1, resources="calls=1")
    assert "table load_balancer is not part of this configuration" in absent["comment"]
    assert up.configured()["changes"] == {}


def test_node_is_drained_and_put_back_by_states(up):
    assert up.state("drained", True, name="x")["result"] is None
    assert up.state("drained", False, name="x", timeout=30)["result"] is True
    assert up.call("drain_status", 0)["state"] == "out_of_service"
    served = up.state("in_service", False, name="x")
    assert served["result"] is True, served["comment"]
    assert served["changes"]["state"]["new"] == "in_service"
    assert up.state("in_service", False, name="x")["changes"] == {}
