"""The states against a daemon: what they predict, what they do, what they refuse."""

import json
import os
import signal

import pytest


def plan(ret):
    return {key: ret["changes"].get(key) for key in ("disruption", "why", "actions", "files")}


def test_first_apply_then_nothing(node):
    predicted = node.configured(test=True)
    assert predicted["result"] is None
    assert not node.conf.exists()
    applied = node.configured()
    assert applied["result"] is True, applied["comment"]
    assert plan(applied) == plan(predicted)
    assert (node.conf / "freeswitch.xml").stat().st_mode & 0o777 == 0o640
    predicted = node.running(test=True)
    started = node.running()
    assert started["result"] is True, started["comment"]
    assert predicted["result"] is None
    assert predicted["changes"] == started["changes"]
    for again in (node.configured(), node.running()):
        assert again["result"] is True
        assert again["changes"] == {}
    assert node.service_log() == ["daemon-reload", "start"]
    assert node.call("ready") is True
    assert all(check["ok"] for check in node.call("checks")), node.call("checks")


CARRIER = {"profile": "external", "params": {"proxy": "127.0.0.1:5999", "register": False}}
RELOADS = [
    ({"gateways__carrier": CARRIER}, ["reloadxml", "rescan external"]),
    ({"max_sessions": 2000}, ["reloadxml", "fsctl max_sessions 2000"]),
    ({"sessions_per_second": 7}, ["reloadxml", "fsctl sps 7"]),
    ({"acl__carriers__allow": ["192.0.2.0/24"]}, ["reloadxml", "reloadacl"]),
    ({"dialplan__default": [{"name": "x", "expression": "^1$", "actions": []}]}, ["reloadxml"]),
    ({"profiles__internal__context": "default"}, ["reloadxml", "rescan internal"]),
    ({"esl_password": "another-not-a-secret"}, ["reloadxml", "reload_event_socket"]),
]


@pytest.mark.parametrize(("change", "actions"), RELOADS, ids=lambda value: str(value)[:40])
def test_reload_class_changes_apply_in_service(up, change, actions):
    context = up.changed(**change)
    before = up.call("status")
    predicted = up.configured(context, test=True)
    applied = up.configured(context)
    assert applied["result"] is True, applied["comment"]
    assert applied["changes"]["disruption"] == "reload"
    assert applied["changes"]["actions"] == actions
    assert plan(predicted) == plan(applied)
    assert up.configured(context)["changes"] == {}
    assert up.running()["changes"] == {}
    after = up.call("status")
    assert after["core_uuid"] == before["core_uuid"]
    if "max_sessions" in change:
        assert after["max_sessions"] == 2000


def test_gateway_is_added_edited_and_removed(up):
    first = up.changed(gateways__carrier=CARRIER)
    assert up.configured(first)["result"] is True
    assert up.call("gateway_status", "carrier")["proxy"].endswith("127.0.0.1:5999")
    edited = up.changed(gateways__carrier__profile="external")
    edited["gateways"]["carrier"]["params"] = {"proxy": "127.0.0.1:5998", "register": False}
    answer = up.configured(edited)
    assert answer["result"] is True, answer["comment"]
    assert answer["changes"]["actions"] == [
        "reloadxml",
        "killgw external carrier",
        "rescan external",
    ]
    assert answer["changes"]["files"] == {"changed": ["sip_profiles/external/carrier.xml"]}
    assert up.call("gateway_status", "carrier")["proxy"].endswith("127.0.0.1:5998")
    answer = up.configured(up.context)
    assert answer["changes"]["actions"] == ["reloadxml", "killgw external carrier"]
    assert up.call("gateway_status", "carrier") is None


RESTARTS = [
    ({"rtp__start_port": 20000}, "rtp-start-port 16384 -> 20000"),
    ({"profiles__internal__port": 5099}, "sip-port"),
    ({"unit__drain_seconds": 60}, "freeswitch.service.d"),
    ({"modules": ["mod_commands"]}, "no longer loaded"),
]


@pytest.mark.parametrize(("change", "told"), RESTARTS, ids=lambda value: str(value)[:40])
def test_restart_class_changes_are_refused_in_service(up, change, told):
    context = up.changed(**change)
    uuid = up.call("status")["core_uuid"]
    disk = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    predicted = up.configured(context, test=True)
    assert predicted["result"] is None
    assert predicted["changes"]["disruption"] == "restart"
    assert "would refuse" in predicted["comment"]
    refused = up.configured(context)
    assert refused["result"] is False
    assert told in refused["comment"]
    assert "guardian deploy lab-local" in refused["comment"]
    assert refused["changes"] == {}
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == disk
    assert up.call("status")["core_uuid"] == uuid


def test_safe_part_of_a_mixed_change_is_applied(up):
    context = up.changed(rtp__start_port=20000, gateways__carrier=CARRIER)
    refused = up.configured(context)
    assert refused["result"] is False
    assert "rtp-start-port" in refused["comment"]
    assert refused["changes"]["disruption"] == "reload"
    assert refused["changes"]["files"] == {
        "added": ["sip_profiles/external/carrier.xml"],
        "changed": ["sip_profiles/external.xml"],
    }
    assert up.call("gateway_status", "carrier")
    assert "16384" in (up.conf / "autoload_configs/switch.conf.xml").read_text()
    again = up.configured(context)
    assert again["result"] is False
    assert again["changes"] == {}


def test_restart_happens_out_of_service_and_leaves_the_node_paused(up):
    context = up.changed(profiles__internal__port=5099)
    uuid = up.call("status")["core_uuid"]
    up.call("pause")
    (up.root / "voice" / "drained.json").write_text(json.dumps({"by": "test"}))
    predicted = up.configured(context, test=True)
    applied = up.configured(context)
    assert applied["result"] is True, applied["comment"]
    assert plan(predicted) == plan(applied)
    assert up.call("status")["core_uuid"] == uuid  # the daemon is `running`'s business
    will = up.running(test=True)
    done = up.running()
    assert done["result"] is True, done["comment"]
    assert done["changes"] == will["changes"]
    now = up.call("status")
    assert now["core_uuid"] != uuid
    assert now["paused"] is True
    assert up.call("profiles")["internal"]["url"].endswith(":5099")
    assert up.running()["changes"] == {}


def test_drained_node_is_paused_again(up):
    (up.root / "voice" / "drained.json").write_text(json.dumps({"by": "test"}))
    assert up.running(test=True)["result"] is None
    assert up.running()["changes"]["actions"] == ["pause inbound"]
    assert up.call("paused") is True
    assert up.running()["changes"] == {}


def test_crash_between_exchange_and_action_is_repaired(up, monkeypatch):
    """The record of what runs was not written: the next run owes the actions."""
    context = up.changed(max_sessions=1500)
    record = (up.root / "voice" / "freeswitch.running.json").read_bytes()
    assert up.configured(context)["result"] is True
    up.call("set_limits", max_sessions=1000)
    (up.root / "voice" / "freeswitch.running.json").write_bytes(record)
    assert up.call("config_diff")["disruption"] == "reload"
    repaired = up.configured(context)
    assert repaired["result"] is True, repaired["comment"]
    assert repaired["changes"]["actions"] == ["reloadxml", "fsctl max_sessions 1500"]
    assert up.call("status")["max_sessions"] == 1500


def test_edit_by_hand_is_put_back(up):
    path = up.conf / "autoload_configs/acl.conf.xml"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"deny", b"allow"))
    answer = up.configured()
    assert answer["result"] is True, answer["comment"]
    assert path.read_bytes() == content
    path.chmod(0o666)
    assert up.configured(test=True)["changes"]["attributes"] == ["autoload_configs/acl.conf.xml"]
    assert up.configured()["result"] is True
    assert path.stat().st_mode & 0o777 == 0o640


def test_pillar_that_does_not_render_changes_nothing(up):
    disk = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    missing = {key: value for key, value in up.context.items() if key != "esl_password"}
    bad = [
        (missing, "'esl_password' is undefined"),
        (up.changed(esl_password="ClueCon"), "public default"),
        (up.changed(domain="a\nb"), "control character"),
        (up.changed(domain="$${secret}"), "$${"),
        (up.changed(loglevel="*" * 10), "masked"),
        (up.changed(profiles__external__port=up.context["profiles"]["internal"]["port"]), "taken"),
        (up.changed(**{"gateways__a/../b": CARRIER}), "name may hold"),
        (up.changed(gateways__x={"profile": "../..", "params": {}}), "outside the tree"),
    ]
    for context, told in bad:
        answer = up.configured(context)
        assert answer["result"] is False
        assert told in answer["comment"], answer["comment"]
        assert "\n" not in answer["comment"]
        assert answer["changes"] == {}
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == disk


def test_secrets_show_nowhere(up):
    context = up.changed(esl_password="canary-8F3K", gateways__carrier=CARRIER)
    context["gateways"]["carrier"]["params"] = {
        "proxy": "127.0.0.1:5999",
        "username": "u",
        "password": "canary-8F3K",
        "register": False,
    }
    shown = [up.configured(context, test=True), up.configured(context), up.running()]
    context["gateways"]["carrier"]["params"]["password"] = "canary-9G4L"
    shown += [up.configured(context), up.call("gateways"), up.call("checks"), up.call("status")]
    assert shown[1]["result"] is True, shown[1]
    assert shown[3]["result"] is True, shown[3]
    assert "canary" not in json.dumps(shown)


def test_one_run_predicts_its_restart(up):
    """`configured` and `running` in one run: what test=True names is what the apply does."""
    context = up.changed(rtp__start_port=20000)
    up.call("pause")
    sls = {
        "conf": {"freeswitch.configured": [{"name": str(up.conf)}, {"context": context}]},
        "daemon": {"freeswitch.running": [{"require": [{"freeswitch": "conf"}]}]},
    }
    (up.root / "files").mkdir()
    (up.root / "files" / "pair.sls").write_text("#!yaml\n" + json.dumps(sls))
    runs = [up.caller.cmd("state.sls", "pair", test=test) for test in (True, False)]
    predicted, applied = (
        {ret["__id__"]: (ret["result"], ret["changes"]) for ret in run.values()} for run in runs
    )
    assert {key: result for key, (result, _) in predicted.items()} == {"conf": None, "daemon": None}
    assert {key: result for key, (result, _) in applied.items()} == {"conf": True, "daemon": True}
    assert {key: changes for key, (_, changes) in predicted.items()} == {
        key: changes for key, (_, changes) in applied.items()
    }
    again = up.caller.cmd("state.sls", "pair")
    assert all(ret["result"] is True and not ret["changes"] for ret in again.values())


def test_a_daemon_that_hangs_is_not_taken_for_one_that_is_down(up):
    """Restarting it would drop calls nobody can count."""
    pid = int((up.root / "run" / "freeswitch.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        now = up.call("status")
        assert (now["running"], now["responding"], now["calls"]) == (True, False, None)
        assert up.caller.cmd("voice.in_service")["state"] == "in_service"
        answer = up.running()
        assert answer["result"] is False
        assert "is FreeSWITCH hung?" in answer["comment"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert up.service_log().count("start") == 1


def test_a_daemon_that_died_is_started(up):
    pid = int((up.root / "run" / "freeswitch.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert up.call("status")["running"] is False
    assert up.running(test=True)["changes"]["actions"] == ["start"]
    assert up.running()["result"] is True
    assert up.call("ready") is True


def test_an_action_that_fails_is_undone(up):
    disk = {path: path.read_bytes() for path in up.conf.rglob("*.xml")}
    context = up.changed(
        gateways__carrier=CARRIER, modules=[*up.context["modules"], "mod_does_not_exist"]
    )
    answer = up.configured(context)
    assert answer["result"] is False
    assert answer["comment"].startswith("load mod_does_not_exist failed")
    assert "the previous configuration is back" in answer["comment"]
    assert {path: path.read_bytes() for path in up.conf.rglob("*.xml")} == disk
    assert up.call("gateway_status", "carrier") is None
    assert up.call("config_diff")["disruption"] == "none"
    assert up.configured()["changes"] == {}
    assert up.call("ready") is True
