"""The classification table: what each change costs and which action applies it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PARTS = {
    "vars": '<X-PRE-PROCESS cmd="set" data="tone=one"/>',
    "modules": '<load module="mod_sofia"/>',
    "switch": """<param name="max-sessions" value="1000"/>
      <param name="sessions-per-second" value="30"/>
      <param name="loglevel" value="info"/>
      <param name="rtp-start-port" value="16384"/>""",
    "acl": '<list name="proxies" default="deny"/>',
    "esl": '<param name="password" value="old-word"/>',
    "logfile": "<settings/>",
    "global": '<param name="log-level" value="0"/>',
    "profile": """<param name="sip-port" value="5060"/>
      <param name="context" value="public"/>
      <param name="auth-calls" value="true"/>
      <param name="apply-inbound-acl" value="proxies"/>
      <param name="user-agent-string" value="x"/>""",
    "gateways": '<gateway name="kept"><param name="proxy" value="192.0.2.9"/></gateway>',
    "aliases": "",
    "profiles": "",
    "dialplan": '<extension name="a"/>',
    "users": '<user id="1"><params><param name="password" value="old-word"/></params></user>',
    "sections": "",
    "configurations": "",
}
ROOT = """<document>
{vars}
  <section name="configuration">
    <configuration name="modules.conf"><modules>{modules}</modules></configuration>
    <configuration name="switch.conf"><settings>{switch}</settings></configuration>
    <configuration name="acl.conf"><network-lists>{acl}</network-lists></configuration>
    <configuration name="event_socket.conf"><settings>{esl}</settings></configuration>
    <configuration name="logfile.conf">{logfile}</configuration>
    <configuration name="sofia.conf">
      <global_settings>{global}</global_settings>
      <profiles>
        <profile name="internal">
          <aliases>{aliases}</aliases>
          <gateways>{gateways}</gateways>
          <settings>{profile}</settings>
        </profile>
        {profiles}
      </profiles>
    </configuration>
    {configurations}
  </section>
  <section name="dialplan"><context name="public">{dialplan}</context></section>
  <section name="directory"><domain name="d">{users}</domain></section>
  {sections}
</document>
"""


def document(fsxml, **parts):
    text = ROOT.format(**{**PARTS, **parts})
    return fsxml.load({"freeswitch.xml": text.encode()})


def change(part, old, new):
    assert old in PARTS[part]
    return {part: PARTS[part].replace(old, new)}


def classify(fsxml, fs_changes, parts, before=None):
    return fs_changes.classify(document(fsxml, **(before or {})), document(fsxml, **parts))


def done(plan):
    return [" ".join(action.values()) for action in plan["actions"]]


GATEWAY = PARTS["gateways"]
TABLE = [
    ({}, "none", []),
    ({"vars": PARTS["vars"] + "\n<!-- a note -->"}, "none", []),
    (change("vars", "tone=one", "tone=two"), "reload", ["reloadxml"]),
    ({"dialplan": '<extension name="b"/>'}, "reload", ["reloadxml"]),
    (change("users", "old-word", "new-word"), "reload", ["reloadxml", "xml_flush_cache"]),
    (change("acl", "deny", "allow"), "reload", ["reloadxml", "reloadacl"]),
    (change("switch", '"1000"', '"9"'), "reload", ["reloadxml", "fsctl max_sessions 9"]),
    (change("switch", '"30"', '"9"'), "reload", ["reloadxml", "fsctl sps 9"]),
    (change("switch", "info", "debug"), "reload", ["reloadxml", "fsctl loglevel debug"]),
    (change("switch", "16384", "20000"), "restart", ["restart"]),
    (change("switch", '<param name="max-sessions" value="1000"/>', ""), "restart", ["restart"]),
    ({"switch": PARTS["switch"] + '<param name="new" value="1"/>'}, "restart", ["restart"]),
    ({"switch": PARTS["switch"] + "</settings><x/><settings>"}, "restart", ["restart"]),
    ({"modules": PARTS["modules"] + '<load module="mod_x"/>'}, "reload",
     ["reloadxml", "load mod_x"]),
    ({"modules": ""}, "restart", ["restart"]),
    ({"modules": '<load module="mod_sofia" critical="true"/>'}, "restart", ["restart"]),
    (change("esl", "old-word", "new-word"), "reload", ["reloadxml", "reload_event_socket"]),
    (change("global", '"0"', '"9"'), "reload", ["reloadxml", "rescan internal"]),
    ({"global": '<param name="auto-restart" value="true"/>'}, "restart", ["restart"]),
    (change("profile", '"public"', '"other"'), "reload", ["reloadxml", "rescan internal"]),
    (change("profile", '"true"', '"false"'), "reload", ["reloadxml", "rescan internal"]),
    (change("profile", '<param name="apply-inbound-acl" value="proxies"/>', ""), "reload",
     ["reloadxml", "rescan internal"]),
    (change("profile", '<param name="context" value="public"/>', ""), "restart", ["restart"]),
    (change("profile", "5060", "5090"), "restart", ["restart"]),
    (change("profile", '"x"', '"y"'), "restart", ["restart"]),
    ({"profile": PARTS["profile"] + '<param name="never-heard-of" value="1"/>'}, "restart",
     ["restart"]),
    ({"profile": PARTS["profile"] + "<other/>"}, "restart", ["restart"]),
    ({"gateways": GATEWAY + '<gateway name="new"/>'}, "reload", ["reloadxml", "rescan internal"]),
    (change("gateways", "192.0.2.9", "192.0.2.8"), "reload",
     ["reloadxml", "killgw internal kept", "rescan internal"]),
    ({"gateways": ""}, "reload", ["reloadxml", "killgw internal kept"]),
    ({"aliases": '<alias name="a"/>'}, "reload", ["reloadxml", "rescan internal"]),
    ({"profiles": '<profile name="p"><settings/></profile>'}, "reload", ["reloadxml", "start p"]),
    ({"logfile": "<settings><x/></settings>"}, "restart", ["restart"]),
    ({"configurations": '<configuration name="x.conf"/>'}, "restart", ["restart"]),
    ({"configurations": '<configuration name="x.conf"/>',
      "modules": PARTS["modules"] + '<load module="mod_x"/>'}, "reload",
     ["reloadxml", "load mod_x"]),
    ({"sections": '<section name="new"><x/></section>'}, "restart", ["restart"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "disruption", "actions"), TABLE, ids=[str(index) for index in range(len(TABLE))]
)
def test_table(fsxml, fs_changes, parts, disruption, actions):
    plan = classify(fsxml, fs_changes, parts)
    assert plan["disruption"] == disruption, plan
    assert done(plan) == actions
    assert bool(plan["why"]) == (disruption != "none")


def test_removals_that_need_a_restart(fsxml, fs_changes):
    before = {"aliases": '<alias name="a"/>'}
    assert classify(fsxml, fs_changes, {}, before)["disruption"] == "restart"
    before = {"profiles": '<profile name="p"><settings/></profile>'}
    plan = classify(fsxml, fs_changes, {}, before)
    assert (plan["disruption"], plan["why"]) == ("restart", ["profile p removed"])


def test_event_socket_that_controls_calls_is_not_reloaded_under_them(fsxml, fs_changes):
    outbound = {"dialplan": '<action application="socket" data="127.0.0.1:9000"/>'}
    after = {**outbound, **change("esl", "old-word", "new-word")}
    plan = classify(fsxml, fs_changes, after, outbound)
    assert plan["disruption"] == "restart"


def test_variable_removed_while_the_dialplan_asks_for_it(fsxml, fs_changes):
    asks = {"dialplan": '<action application="log" data="${tone}"/>'}
    plan = classify(fsxml, fs_changes, {**asks, "vars": ""}, asks)
    assert plan["disruption"] == "restart"
    assert classify(fsxml, fs_changes, {"vars": ""})["disruption"] == "reload"


def test_why_tells_the_values_but_never_a_secret(fsxml, fs_changes):
    plan = classify(fsxml, fs_changes, change("profile", "5060", "5090"))
    assert plan["why"] == ["sip-port 5060 -> 5090 (internal)"]
    for part in ("esl", "users"):
        plan = classify(fsxml, fs_changes, change(part, "old-word", "new-word"))
        assert "word ->" not in str(plan).replace("password", "")
        assert "old-word" not in str(plan)
        assert "new-word" not in str(plan)


def test_a_tree_that_does_not_parse_is_a_restart(fsxml, fs_changes):
    broken = fsxml.load({"freeswitch.xml": b"<document>"})
    assert fs_changes.classify(document(fsxml), broken)["disruption"] == "restart"


def test_every_row_cites_its_source(fs_changes):
    tables = (fs_changes.PROFILE_RESCAN, fs_changes.SWITCH_FSCTL, fs_changes.LOOKED_UP,
              fs_changes.CONFIGURATIONS)  # fmt: skip
    for row in itertools.chain(*tables):
        assert row[-1].strip()
    names = [row[0] for row in fs_changes.PROFILE_RESCAN]
    assert names == sorted(set(names))
    assert not set(names) & set(fs_changes.PROFILE_RESTART)


ROWS = [(parts, rank) for parts, rank, _ in TABLE if len(parts) == 1]
RANK = {"none": 0, "reload": 1, "restart": 2}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(range(len(ROWS))), max_size=5))
def test_a_mixture_costs_as_much_as_its_worst_part(fsxml, fs_changes, chosen):
    parts, worst = {}, 0
    for index in chosen:
        change_of, disruption = ROWS[index]
        if not set(change_of) & set(parts):
            parts.update(change_of)
            worst = max(worst, RANK[disruption])
    plan = classify(fsxml, fs_changes, parts)
    if worst == 2 and "x.conf" in str(parts):
        return  # a module that comes with its configuration is a row of its own
    assert RANK[plan["disruption"]] == worst


NAMES = st.sampled_from(["sip-port", "context", "new-param", "auth-calls", "rtp-ip", "debug"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 3)), st.dictionaries(NAMES, st.integers(0, 3)))
def test_only_listed_parameters_are_spared_a_restart(fsxml, fs_changes, old, new):
    def part(values):
        return {
            "profile": "".join(
                f'<param name="{name}" value="{value}"/>' for name, value in values.items()
            )
        }

    plan = classify(fsxml, fs_changes, part(new), part(old))
    spared = {name for name, _, _ in fs_changes.PROFILE_RESCAN}
    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    if not differing:
        assert plan["disruption"] == "none"
    elif differing <= spared and not set(old) - set(new):
        assert plan["disruption"] == "reload"
    elif differing - spared:
        assert plan["disruption"] == "restart"
