"""The states: what they ask of the module, and how they tell what came of it."""

import pytest
from salt.exceptions import CommandExecutionError

from tests.support.loading import load

URI = "sip:10.0.0.1:5060"


class States:
    """The state module on functions that note how they were called."""

    def __init__(self, **salt):
        self.calls = []
        self.opts = {"test": False}
        self.salt = {
            "opensips.configure": lambda *_, **__: {},
            "opensips.edit": self.note({"result": True, "changes": {}, "comment": "done"}),
        }
        self.salt.update({name.replace("__", "."): value for name, value in salt.items()})
        self.module = load("_states/opensips.py", __opts__=self.opts, __salt__=self.salt)

    def note(self, answer):
        def function(*arguments, **keywords):
            self.calls.append((arguments, keywords))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return function


def test_states_are_there_only_with_their_module():
    assert States().module.__virtual__() == "opensips"
    made = load("_states/opensips.py", __opts__={}, __salt__={})
    assert made.__virtual__()[0] is False


@pytest.mark.parametrize(
    ("state", "arguments", "table", "row"),
    [
        ("dispatcher_present", {"set_id": 1, "weight": 3, "attrs": "pbx-01", "priority": 2},
         "dispatcher", {"setid": 1, "destination": URI, "probe_mode": 1, "weight": "3",
                        "attrs": "pbx-01", "priority": 2}),
        ("lb_destination_present", {"group": "1", "resources": {"calls": 30, "x": 1}},
         "load_balancer", {"group_id": 1, "dst_uri": URI, "resources": "calls=30;x=1"}),
        ("lb_destination_present", {"group": 1, "resources": "calls=3", "probe_mode": 2},
         "load_balancer", {"group_id": 1, "dst_uri": URI, "resources": "calls=3", "probe_mode": 2}),
        ("dr_gateway_present", {"address": "sip:x", "strip": 1, "__id__": "x"},
         "dr_gateways", {"gwid": URI, "address": "sip:x", "strip": 1}),
        ("rtpengine_node_present", {"set_id": 2}, "rtpengine", {"socket": URI, "set_id": 2}),
    ],
)  # fmt: skip
def test_row_is_asked_for(state, arguments, table, row):
    states = States()
    ret = getattr(states.module, state)(URI, **arguments)
    assert (ret["name"], ret["result"]) == (URI, True)
    assert states.calls == [((table,), {"present": [row], "test": False})]


def test_rows_go_and_others_are_purged():
    states = States()
    states.module.dispatcher_absent(URI, "3")
    states.module.dispatcher_set_managed("x", 3, [{"uri": URI, "weight": 2}, {"uri": "sip:x"}])
    gone, managed = (keywords for _, keywords in states.calls)
    assert gone["absent"] == [{"setid": 3, "destination": URI}]
    assert managed["only"] == {"setid": 3}
    assert [row["destination"] for row in managed["present"]] == [URI, "sip:x"]
    assert managed["present"][0]["weight"] == "2"


def test_address_is_one():
    states = States()
    assert states.module.address_present("10.1.2.3/8", info="office", port=5060)["result"] is True
    assert states.calls[0][1]["present"] == [
        {"grp": 1, "ip": "10.0.0.0", "mask": 8, "proto": "any", "port": 5060,
         "context_info": "office"}
    ]  # fmt: skip
    refused = states.module.address_present("ten")
    assert (refused["result"], "neither an address" in refused["comment"]) == (False, True)


def test_argument_that_no_table_has_is_refused():
    states = States()
    assert (
        "no argument colour" in states.module.dr_gateway_present("a", "sip:x", colour=1)["comment"]
    )
    assert states.calls == []


def test_tls_domain_is_asked_for_by_names_only():
    states = States()
    states.salt["opensips.tls_domain"] = states.note({"result": True, "comment": "done"})
    done = states.module.tls_domain_present("a", "default", "client", ca_dir="/x")
    assert (done["name"], done["result"]) == ("a", True)
    assert states.calls == [(("a", "default", "client"), {"test": False, "ca_dir": "/x"})]
    states.salt["opensips.tls_domain"] = states.note(CommandExecutionError("key does not match"))
    refused = states.module.tls_domain_present("a", "default")
    assert (refused["result"], refused["comment"]) == (False, "key does not match")


def test_error_of_the_module_is_the_comment():
    states = States()
    states.salt["opensips.edit"] = states.note(CommandExecutionError("pillar's"))
    ret = states.module.dispatcher_absent(URI, 1)
    assert ret == {"name": URI, "result": False, "changes": {}, "comment": "pillar's"}


def listed(*found):
    return lambda: {"1": [{"uri": URI, "state": state} for state in found]}


@pytest.mark.parametrize(
    ("now", "wanted", "function"),
    [
        ("Active", False, "withdraw"),
        ("Inactive", True, "restore"),
        ("Probing", False, "withdraw"),
    ],
)
def test_destination_is_made_active_or_not(now, wanted, function):
    states = States(opensips__dispatcher_list=listed(now))
    states.salt[f"opensips.dispatcher_{function}"] = states.note({})
    states.opts["test"] = True
    predicted = states.module.dispatcher_state(URI, wanted)
    assert (predicted["result"], states.calls) == (None, [])
    states.opts["test"] = False
    done = states.module.dispatcher_state(URI, wanted)
    assert done["result"] is True
    assert done["changes"] == predicted["changes"]
    assert states.calls[0][0][0] == URI


def test_destination_state_that_cannot_be():
    states = States(opensips__dispatcher_list=listed("Probing"))
    assert states.module.dispatcher_state(URI)["changes"] == {}
    assert "is in no set" in states.module.dispatcher_state("sip:x")["comment"]


def test_sharing_tag_is_had():
    states = States(opensips__shtag_list=lambda: {"vip/1": "backup"})
    states.salt["opensips.shtag_activate"] = states.note(CommandExecutionError("drained"))
    assert states.module.shtag_active("vip/1")["comment"] == "drained"
    states.salt["opensips.shtag_list"] = lambda: {"vip/1": "active"}
    assert states.module.shtag_active("vip/1")["comment"] == "vip/1 is active"


def node(state, checks=()):
    return States(
        voice__in_service=lambda: {"state": state},
        voice__checks=lambda: {
            "checks": [{"name": name, "ok": ok, "detail": "why"} for name, ok in checks]
        },
    )


def test_node_is_drained():
    assert node("out_of_service").module.drained("x")["comment"] == "drained already"
    states = node("in_service")
    states.opts["test"] = True
    assert states.module.drained("x")["comment"] == "would be drained"
    states.opts["test"] = False
    answer = {
        "result": True,
        "evidence": "0 requests in hand",
        "after": {"state": "out_of_service"},
    }
    states.salt["opensips.drain"] = states.note(answer)
    assert states.module.drained("x")["comment"] == "0 requests in hand"
    answer.update(result=False, after={"state": "draining"})
    late = states.module.drained("x", timeout=5)
    assert (late["result"], late["comment"]) == (False, "0 requests in hand after 5 s")
    assert late["changes"]["state"]["new"] == "draining"
    states.salt["opensips.drain"] = states.note(CommandExecutionError("no effect"))
    assert states.module.drained("x")["comment"] == "no effect"


def test_node_is_put_into_service_only_when_it_is_healthy():
    sick = node("out_of_service", [("a", True), ("b", False)]).module.in_service("x")
    assert (sick["result"], sick["comment"]) == (False, "checks failed: b: why")
    assert node("in_service").module.in_service("x")["changes"] == {}
    states = node("out_of_service")
    states.opts["test"] = True
    assert states.module.in_service("x")["result"] is None
    states.opts["test"] = False
    states.salt["voice.undrain"] = states.note({})
    assert states.module.in_service("x")["result"] is True
    states.salt["voice.undrain"] = states.note(CommandExecutionError("no effect"))
    assert states.module.in_service("x")["comment"] == "no effect"


class Packages:
    """`voice.install_package` that installs what it is told to."""

    def __init__(self, results):
        self.results, self.asked = results, []

    def __call__(self, name, **keywords):
        self.asked.append((name, keywords["version"]))
        result = self.results.get(name, True)
        return {"result": result, "comment": name, "changes": {"package": name} if result else {}}


def installed(results, **arguments):
    packages = Packages(results)
    states = States(voice__install_package=packages, pkg__version=lambda name: "3.4.18")
    ret = states.module.installed("opensips", modules=["opensips-sqlite-module"], **arguments)
    return ret, packages.asked


def test_modules_come_in_the_version_of_the_daemon():
    ret, asked = installed({})
    assert asked == [("opensips", None), ("opensips-sqlite-module", "3.4.18")]
    assert ret["changes"] == {
        "package": "opensips", "opensips-sqlite-module": {"package": "opensips-sqlite-module"}
    }  # fmt: skip
    assert (ret["result"], ret["comment"]) == (True, "opensips; opensips-sqlite-module")
    assert installed({}, version="3.4.19")[1][1] == ("opensips-sqlite-module", "3.4.19")
    assert installed({"opensips": None})[0]["result"] is None
    ret, asked = installed({"opensips": False})
    assert (ret["result"], len(asked)) == (False, 1)


def test_whole_is_configured_and_run():
    states = States()
    states.salt["opensips.configure"] = states.note({"result": True})
    states.salt["opensips.ensure_running"] = states.note({"result": True})
    assert states.module.configured()["result"] is True
    assert states.module.running()["result"] is True


def test_context_may_be_json_text():
    states = States()
    states.salt["opensips.configure"] = states.note({"result": True})
    for context in ({"a": 1}, '{"a": 1}', None):
        states.module.configured(context=context)
    assert [arguments[1] for arguments, _ in states.calls] == [{"a": 1}, {"a": 1}, {}]
    answer = states.module.configured(context="{nonsense")
    assert answer["result"] is False
    assert "neither a mapping nor JSON" in answer["comment"]
