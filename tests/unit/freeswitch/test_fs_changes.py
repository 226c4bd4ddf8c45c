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


@pytest.fixture(scope="session")
def classify(fsxml, fs_changes, rules):
    """Classify the way from the plain document, or `before`, to one with other `parts`."""

    def between(parts, before=None):
        sides = document(fsxml, **(before or {})), document(fsxml, **parts)
        return fs_changes.classify(*sides, rules)

    return between


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
    ({"logfile": "<other/>"}, "restart", ["restart"]),
    ({"configurations": '<configuration name="x.conf"/>'}, "restart", ["restart"]),
    ({"configurations": '<configuration name="x.conf"/>',
      "modules": PARTS["modules"] + '<load module="mod_x"/>'}, "reload",
     ["reloadxml", "load mod_x"]),
    ({"sections": '<section name="new"><x/></section>'}, "restart", ["restart"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "disruption", "actions"), TABLE, ids=[str(index) for index in range(len(TABLE))]
)
def test_table(classify, parts, disruption, actions):
    plan = classify(parts)
    assert plan["disruption"] == disruption, plan
    assert done(plan) == actions
    assert bool(plan["why"]) == (disruption != "none")


def test_what_is_new_to_us_is_named(fsxml, fs_changes, rules):
    """FreeSWITCH may read it or not; what has no row is a restart, and the plan says where."""
    plain = ROOT.format(**PARTS)
    for old, new, told in [
        ('<configuration name="switch.conf">', '<configuration name="switch.conf" x="1">',
         "switch.conf changed in a way that has no rule"),
        ("<settings><param name=\"max", "<settings>text<param name=\"max",
         "switch.conf changed in a way that has no rule"),
        ('<profile name="internal">', '<profile name="internal">text',
         "profile internal changed in a way that has no rule"),
        ('<profile name="internal">', '<profile name="internal" type="gateway">',
         "attributes of profile internal changed"),
        ('<section name="configuration">', '<section name="configuration"><stray/>',
         "elements outside of any configuration changed (stray)"),
        ("<global_settings>", "<x/><global_settings>", "<x> of sofia.conf changed"),
        ("<profiles>", "<profiles><x/>", "<x> of profiles changed"),
    ]:  # fmt: skip
        assert plain.count(old) == 1, old
        sides = [
            fsxml.load({"freeswitch.xml": text.encode()})
            for text in (plain, plain.replace(old, new))
        ]
        for one, other in (sides, sides[::-1]):
            plan = fs_changes.classify(one, other, rules)
            assert done(plan) == ["restart"], new
            assert plan["why"] == [told]
            assert plan["steps"][0]["files"] == ["freeswitch.xml"]


def test_container_that_comes_or_goes(fsxml, fs_changes, rules):
    """Its parameters come and go with it; their order has nothing to be compared with."""
    plain = ROOT.format(**PARTS)
    container = '<global_settings><param name="log-level" value="0"/></global_settings>'
    assert plain.count(container) == 1
    with_, without = (
        fsxml.load({"freeswitch.xml": text.encode()})
        for text in (plain, plain.replace(container, ""))
    )
    assert done(fs_changes.classify(without, with_, rules)) == ["reloadxml", "rescan internal"]
    assert done(fs_changes.classify(with_, without, rules)) == ["restart"]


def test_order_of_the_profiles_is_reloaded_and_no_more(classify):
    one, two = (f'<profile name="{name}"><settings/></profile>' for name in "ab")
    plan = classify({"profiles": two + one}, {"profiles": one + two})
    assert (plan["disruption"], done(plan)) == ("reload", ["reloadxml"])
    assert plan["why"] == ["order of the profiles changed, read at a start only"]


@pytest.mark.parametrize("value", ["--5", "-", "²", "٣", "9" * 5000, "-0", "00", ""])
def test_value_that_only_looks_like_a_number(classify, value):
    """1.10.12's switch_true takes any number but 0 for yes."""
    stays = {"inbound_bypass_media": "true"}
    plan = classify(settings_of(inbound_bypass_media=value), settings_of(**stays))
    assert plan["disruption"] == ("restart" if value in ("-0", "00", "") else "reload"), plan


def test_removals_that_need_a_restart(classify):
    before = {"aliases": '<alias name="a"/>'}
    assert classify({}, before)["disruption"] == "restart"
    before = {"profiles": '<profile name="p"><settings/></profile>'}
    plan = classify({}, before)
    assert (plan["disruption"], plan["why"]) == ("restart", ["profile p removed"])


def test_event_socket_that_controls_calls_is_not_reloaded_under_them(classify):
    outbound = {"dialplan": '<action application="socket" data="127.0.0.1:9000"/>'}
    after = {**outbound, **change("esl", "old-word", "new-word")}
    plan = classify(after, outbound)
    assert plan["disruption"] == "restart"


def test_variable_removed_while_the_dialplan_asks_for_it(classify):
    asks = {"dialplan": '<action application="log" data="${tone}"/>'}
    plan = classify({**asks, "vars": ""}, asks)
    assert plan["disruption"] == "restart"
    assert classify({"vars": ""})["disruption"] == "reload"


def test_why_tells_the_values_but_never_a_secret(classify):
    plan = classify(change("profile", "5060", "5090"))
    assert plan["why"] == ["sip-port 5060 -> 5090 (internal): binds the socket"]
    for part in ("esl", "users"):
        plan = classify(change(part, "old-word", "new-word"))
        assert "word ->" not in str(plan).replace("password", "")
        assert "old-word" not in str(plan)
        assert "new-word" not in str(plan)


def test_a_tree_that_does_not_parse_is_a_restart(fsxml, fs_changes, rules):
    broken = fsxml.load({"freeswitch.xml": b"<document>"})
    assert fs_changes.classify(document(fsxml), broken, rules)["disruption"] == "restart"


def test_every_row_cites_its_source(fs_table):
    rows = (*fs_table.PROFILE_RESCAN, *fs_table.SOFIA_GLOBAL_RESCAN)
    assert all(".c" in row.source for row in rows)
    tables = (fs_table.SWITCH_FSCTL, fs_table.LOOKED_UP, fs_table.CONFIGURATIONS)
    for row in itertools.chain(*tables):
        assert ".c" in row[-1]
    names = [row.name for row in fs_table.PROFILE_RESCAN]
    assert names == sorted(set(names))
    always = {row.name for row in fs_table.PROFILE_RESCAN if not row.since}
    assert not always & set(fs_table.PROFILE_RESTART)


def settings_of(**values):
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return {"profile": "".join(f'<param name="{n}" value="{v}"/>' for n, v in named.items())}


@pytest.mark.parametrize(
    ("old", "new", "disruption"),
    [
        # What a rescan leaves behind: sofia.c config_sofia.
        ({"inbound_codec_negotiation": "scrooge"}, {"inbound_codec_negotiation": "greedy"},
         "restart"),
        ({"inbound_codec_negotiation": "greedy"}, {"inbound_codec_negotiation": "scrooge"},
         "reload"),
        ({"nat_options_ping": "yes"}, {"nat_options_ping": "udp-only"}, "restart"),
        ({"nat_options_ping": "udp-only"}, {"nat_options_ping": "false"}, "reload"),
        ({"multiple_registrations": "contact"}, {"multiple_registrations": "call-id"}, "restart"),
        ({"inbound_bypass_media": "true"}, {"inbound_bypass_media": "false"}, "restart"),
        # Empty values are passed over, removed ones stay.
        ({"context": "public"}, {"context": ""}, "restart"),
        ({"username": "a"}, {}, "restart"),
        ({"auth_messages": "false"}, {}, "reload"),
        # Addresses only while nothing has to be asked for them.
        ({"rtp_ip": "10.0.0.1"}, {"rtp_ip": "10.0.0.2"}, "reload"),
        ({"rtp_ip": "10.0.0.1"}, {"rtp_ip": "auto"}, "restart"),
        ({"ext_rtp_ip": "192.0.2.1"}, {"ext_rtp_ip": "stun:stun.example.net"}, "restart"),
        # The last of these wins, so their order counts; that of the sockets does to a start.
        ({"codec_prefs": "G722", "inbound_codec_prefs": "PCMA"},
         {"inbound_codec_prefs": "PCMA", "codec_prefs": "G722"}, "reload"),
        ({"tls": "true", "tls_bind_params": "a"}, {"tls_bind_params": "a", "tls": "true"},
         "restart"),
    ],
)  # fmt: skip
def test_what_a_rescan_makes_of_a_profile(classify, old, new, disruption):
    plan = classify(settings_of(**new), settings_of(**old))
    assert plan["disruption"] == disruption, plan
    if disruption == "reload":
        assert {"do": "rescan", "profile": "internal"} in plan["actions"]


LOGFILE = '<configuration name="logfile.conf"><profiles>{}</profiles></configuration>'


def test_module_that_reads_its_file_when_reloaded(classify):
    """logfile.conf stands in every document here; it is its module's when that is loaded."""
    loaded = {"modules": PARTS["modules"] + '<load module="mod_logfile"/>'}
    plan = classify({**loaded, "logfile": "<profiles/>"}, loaded)
    assert done(plan) == ["reloadxml", "reload_module mod_logfile"]
    assert done(classify({"logfile": "<profiles/>"})) == ["reloadxml"]


CALLCENTER = """<configuration name="callcenter.conf">
  <queues>{queues}</queues><agents>{agents}</agents><tiers>{tiers}</tiers></configuration>"""
QUEUE = '<queue name="support@default"><param name="strategy" value="{}"/></queue>'
TIER = '<tier agent="a" queue="support@default" level="{}"/>'


@pytest.mark.parametrize(
    ("old", "new", "actions"),
    [
        ({}, {"queues": QUEUE.format(1)}, ["callcenter queue load support@default"]),
        ({"queues": QUEUE.format(1)}, {"queues": QUEUE.format(2)},
         ["callcenter queue reload support@default"]),
        ({"queues": QUEUE.format(1)}, {}, ["restart"]),
        ({}, {"agents": '<agent name="a"/>'}, ["callcenter agent reload a"]),
        ({"agents": '<agent name="a"/>'}, {}, ["callcenter agent del a"]),
        ({"tiers": TIER.format(1)}, {"tiers": TIER.format(2)},
         ["callcenter tier reload support@default a"]),
        ({"tiers": TIER.format(1)}, {}, ["callcenter tier del support@default a"]),
        ({"agents": '<agent name="a"/><agent name="b"/>'},
         {"agents": '<agent name="a"/><agent name="b" type="callback"/>'},
         ["callcenter agent reload b"]),
    ],
)  # fmt: skip
def test_callcenter_has_commands_of_its_own(classify, old, new, actions):
    empty = {"queues": "", "agents": "", "tiers": ""}
    sides = [{"configurations": CALLCENTER.format(**{**empty, **one})} for one in (new, old)]
    plan = classify(*sides)
    assert done(plan) == (actions if actions == ["restart"] else ["reloadxml", *actions])


def test_what_the_directory_feeds_besides_itself(classify):
    lists = {"acl": '<list name="users" default="deny"><node domain="d"/></list>'}
    user = {"users": '<user id="1" cidr="192.0.2.1/32"/>'}
    assert "reloadacl" in done(classify({**lists, **user}, lists))
    assert "reloadacl" not in done(classify(user))
    domains = {"profile": '</settings><domains><domain name="all"/></domains><settings>'}
    gateway = {"users": '<user id="1"><gateways><gateway name="g"/></gateways></user>'}
    assert classify({**domains, **gateway}, domains)["disruption"] == "restart"
    assert classify(gateway)["disruption"] == "reload"


@pytest.mark.parametrize("part", ["modules", "gateways", "switch", "esl"])
def test_order_that_nobody_reads_is_reloaded_all_the_same(classify, part):
    """What runs is compared with the disk, so the daemon must hold the new order as well."""
    one, two = {
        "modules": ('<load module="a"/>', '<load module="b"/>'),
        "gateways": ('<gateway name="a"/>', '<gateway name="b"/>'),
    }.get(part, ('<param name="a" value="1"/>', '<param name="b" value="1"/>'))
    plan = classify({part: two + one}, {part: one + two})
    assert done(plan) == ["reloadxml"]


ROWS = [(parts, rank) for parts, rank, _ in TABLE if len(parts) == 1]
RANK = {"none": 0, "reload": 1, "restart": 2}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(range(len(ROWS))), max_size=5))
def test_a_mixture_costs_as_much_as_its_worst_part(classify, chosen):
    parts, worst = {}, 0
    for index in chosen:
        change_of, disruption = ROWS[index]
        if not set(change_of) & set(parts):
            parts.update(change_of)
            worst = max(worst, RANK[disruption])
    plan = classify(parts)
    if worst == 2 and "x.conf" in str(parts):
        return  # a module that comes with its configuration is a row of its own
    assert RANK[plan["disruption"]] == worst


NAMES = st.sampled_from(
    ["sip-port", "context", "new-param", "auth-calls", "rtp-timeout-sec", "debug"]
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 3)), st.dictionaries(NAMES, st.integers(0, 3)))
def test_only_listed_parameters_are_spared_a_restart(classify, rules, old, new):
    def part(values):
        return {
            "profile": "".join(
                f'<param name="{name}" value="{value}"/>' for name, value in sorted(values.items())
            )
        }

    plan = classify(part(new), part(old))
    spared = set(rules["profile"])
    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    if not differing:
        assert plan["disruption"] == "none"
    elif differing <= spared and not set(old) - set(new):
        assert plan["disruption"] == "reload"
    elif differing - spared:
        assert plan["disruption"] == "restart"


def test_new_certificate_by_version(fsxml, fs_changes, fs_table):
    """A version that can take it up while calls go on does so, for all its profiles at once."""
    old, new = (f'<param name="tls-cert-dir" value="/etc/tls/{name}"/>' for name in "ab")
    sides = document(fsxml, profile=old), document(fsxml, profile=new)
    for version, actions in {
        (): ["restart"],
        (1, 10, 12): ["restart"],
        (1, 11, 0): ["restart"],
        (1, 11, 1): ["reloadxml", "rescan internal", "reloadcert"],
        (1, 11, 2): ["reloadxml", "rescan internal", "reloadcert"],
    }.items():
        plan = fs_changes.classify(*sides, fs_table.rules(version))
        assert done(plan) == actions, version


@pytest.mark.parametrize("forgotten", ["tls-ciphers", "tls-passphrase"])
@pytest.mark.parametrize("holder", ["itself", "another"])
def test_new_certificate_needs_a_restart_where_reloadcert_forgets(
    fsxml, fs_changes, fs_table, forgotten, holder
):
    """It opens every profile's certificates anew, without these: lab on 1.11.2."""
    kept = f'<param name="{forgotten}" value="x"/>'
    other = f'<profile name="b"><settings>{kept}</settings></profile>' if holder != "itself" else ""
    sides = [
        document(
            fsxml,
            profile=f'<param name="tls-cert-dir" value="/etc/tls/{name}"/>'
            + (kept if holder == "itself" else ""),
            profiles=other,
        )
        for name in "ab"
    ]
    plan = fs_changes.classify(*sides, fs_table.rules((1, 11, 2)))
    assert done(plan) == ["restart"]
    assert f"reloadcert forgets {forgotten}" in plan["why"][0]


def test_what_is_read_at_a_start_only_among_the_variables(classify):
    for name in ("disable_system_api_commands", "disable_system_app_commands", "api_on_startup"):
        plan = classify({"vars": f'<X-PRE-PROCESS cmd="set" data="{name}=true"/>'}, {"vars": ""})
        assert plan["disruption"] == "restart"
        assert "read at a start only" in plan["why"][0]


def test_setting_that_only_a_later_version_can_change(fsxml, fs_changes, fs_table):
    sides = [document(fsxml, switch=f'<param name="uuid-version" value="{n}"/>') for n in (4, 7)]
    for version, actions in {
        (): ["restart"],
        (1, 10, 12): ["restart"],
        (1, 11, 0): ["reloadxml", "fsctl uuid_version 7"],
    }.items():
        assert done(fs_changes.classify(*sides, fs_table.rules(version))) == actions


def test_module_that_would_not_come_back_is_not_reloaded(classify):
    """lab: mod_xml_curl refuses to load without a binding, and is gone after its reload."""
    holder = '<configuration name="xml_curl.conf"><bindings>{}</bindings></configuration>'
    loaded = PARTS["modules"] + '<load module="mod_xml_curl"/>'
    one, other = (
        {"configurations": holder.format(f'<binding name="{name}"/>'), "modules": loaded}
        for name in "ab"
    )
    none = {"configurations": holder.format(""), "modules": loaded}
    assert done(classify(other, one)) == ["reloadxml", "reload_module mod_xml_curl"]
    plan = classify(none, one)
    assert plan["disruption"] == "restart"
    assert plan["why"] == ["xml_curl.conf left without any binding"]
