"""How the configuration is read: by line, with a preprocessor, and silent where it hurts."""

import pytest
from fs_daemon import until

from tests.support.phone import Phone

GATEWAY = '<gateway name="carrier">\n<param name="proxy" value="127.0.0.1:9"/>\n' \
          '<param name="register" value="false"/>\n</gateway>\n'  # fmt: skip


def test_one_line_gateway_vanishes(stopped):
    text = GATEWAY.replace("\n", "")
    stopped.tree.write("gateways/internal-carrier.xml", f"<include>{text}</include>\n")
    daemon = stopped.start()
    assert daemon.api("sofia xmlstatus gateway carrier") == "Invalid Gateway!\n"
    assert daemon.api("reloadxml") == "+OK [Success]\n"


PREPROCESSED = [
    pytest.param('<X-PRE-PROCESS cmd="set" data="colour=blue"/>', "blue", id="set"),
    pytest.param('<!-- <X-PRE-PROCESS cmd="set" data="colour=red"/> -->', "red", id="commented"),
    pytest.param('<x-pre-process cmd="set" data="colour = grey"/>', "grey", id="any case"),
    pytest.param('<a/><X-PRE-PROCESS cmd="set" data="colour=tan"/><b/>', "tan", id="not alone"),
    pytest.param('<X-PRE-PROCESS cmd="set" data="colour=x$${nothing}y"/>', "xy", id="undefined"),
    pytest.param('<X-PRE-PROCESS data="colour=pink" cmd="set"/>', "none", id="data first"),
    pytest.param("<X-PRE-PROCESS cmd='set' data='colour=pale'/>", "none", id="single quotes"),
]


@pytest.mark.parametrize(("line", "colour"), PREPROCESSED)
def test_preprocessor(shared, line, colour):
    start = '<X-PRE-PROCESS cmd="set" data="colour=none"/>\n'
    shared.tree.write("vars.conf.xml", f"{start}{line}\n")
    assert shared.api("reloadxml") == "+OK [Success]\n"
    assert shared.api("global_getvar colour") == colour
    expanded = shared.root / "log" / "freeswitch.xml.fsxml"
    assert "<a/>" not in expanded.read_text()  # text around it is lost
    assert "<b/>" not in expanded.read_text()


def test_a_set_outlives_its_line(shared):
    shared.tree.write("vars.conf.xml", '<X-PRE-PROCESS cmd="set" data="lingering=yes"/>\n')
    shared.api("reloadxml")
    shared.tree.write("vars.conf.xml", "")
    shared.api("reloadxml")
    assert shared.api("global_getvar lingering") == "yes"


def test_exec_puts_its_output_in(shared):
    line = """<X-PRE-PROCESS cmd="exec" data="echo '<executed>yes</executed>'"/>\n"""
    shared.tree.write("vars.conf.xml", line)
    assert shared.api("reloadxml") == "+OK [Success]\n"
    assert "<executed>yes" in (shared.root / "log" / "freeswitch.xml.fsxml").read_text()
    shared.tree.write("vars.conf.xml", "")


def test_expanded_file_holds_the_secrets(shared):
    assert "contract-not-a-secret" in (shared.root / "log" / "freeswitch.xml.fsxml").read_text()


BROKEN = [
    pytest.param("<context>\n", "unexpected closing tag </section>", id="unclosed"),
    pytest.param("</context>\n", "unexpected closing tag </context>", id="closed twice"),
    pytest.param("<a><b></a></b>\n", "unexpected closing tag </a>", id="crossed"),
    pytest.param('<a b="c\n', "unexpected closing tag </context>", id="quote"),
    pytest.param("<a b='c\n", "missing '", id="single quote"),
    pytest.param("<!-- never\n", "unclosed <!--", id="comment"),
    pytest.param("<1/>\n", "unexpected <", id="no name"),
]


@pytest.mark.parametrize(("text", "why"), BROKEN)
def test_broken_xml_is_an_ok_with_an_error_inside(shared, text, why):
    shared.tree.write("dialplan/broken.xml", text)
    try:
        said = shared.api("reloadxml")
        lines = (shared.root / "log" / "freeswitch.xml.fsxml").read_text().count("\n") + 1
        assert said.startswith("+OK [[error near line ")
        assert said.endswith(f"]: {why}]\n")
        assert 1 <= int(said.split("line ")[1].split("]")[0]) <= lines
        refused = shared.api("reloadacl")
        assert refused == "-ERR [" + said.removeprefix("+OK [")
    finally:
        (shared.tree.conf / "dialplan" / "broken.xml").unlink()
    assert shared.api("reloadxml") == "+OK [Success]\n"


TOLERATED = [
    pytest.param("<a b=c/>\n", id="bare value"),
    pytest.param("<a b/>\n", id="no value"),
    pytest.param("<a>fish & chips</a>\n", id="ampersand"),
    pytest.param('<a b="1" b="2"/>\n', id="attribute twice"),
    pytest.param('<a b="x < y"/>\n', id="less-than in a value"),
    pytest.param("<a>&nothing;</a>\n", id="unknown entity"),
]


@pytest.mark.parametrize("text", TOLERATED)
def test_what_is_no_xml_but_is_taken(shared, text):
    shared.tree.write("dialplan/odd.xml", text)
    try:
        assert shared.api("reloadxml") == "+OK [Success]\n"
    finally:
        (shared.tree.conf / "dialplan" / "odd.xml").unlink()


def test_broken_reload_keeps_the_old_dialplan(daemon, phone):
    daemon.tree.dialplan('<extension name="x"><condition><action application="respond"')
    assert "error near line" in daemon.api("reloadxml")
    assert phone.invite().status == 200


def test_reloadxml_changes_the_dialplan_at_once(daemon, phone):
    dialog = phone.call()
    refuse = (
        '<extension name="x">\n<condition field="destination_number" expression="^1000$">\n'
        '<action application="respond" data="486 Busy Here"/>\n</condition>\n</extension>'
    )
    daemon.tree.dialplan(refuse)
    assert daemon.api("reloadxml") == "+OK [Success]\n"
    assert phone.invite().status == 486
    assert phone.reinvite(dialog) == 200


@pytest.mark.parametrize("expression", ["^(1000$", "^1000)$", "*", "^[1000$", "^[1-0]000$"])
def test_expression_that_does_not_compile_matches_nothing(daemon, phone, expression):
    """It is said when a call comes, so Guardian judges it before."""
    daemon.tree.dialplan(
        f'<extension name="x">\n<condition field="destination_number" expression="{expression}">\n'
        '<action application="respond" data="486 Busy Here"/>\n</condition>\n</extension>'
    )
    assert daemon.api("reloadxml") == "+OK [Success]\n"
    assert phone.invite().status == 200, "the next extension takes it"


@pytest.mark.parametrize("name", ["conference.conf", "ivr.conf", "timezones.conf"])
def test_what_is_opened_at_each_use_is_new_after_reloadxml(daemon, phone, name):
    dialog = phone.call()
    for value in ("one", "two"):
        element = f'<entry value="{value}"/>'
        text = f'<configuration name="{name}">\n{element}\n</configuration>\n'
        daemon.tree.write(f"{name}.xml", text)
        assert daemon.api("reloadxml") == "+OK [Success]\n"
        shown = daemon.api(f"xml_locate configuration configuration name {name}")
        assert f'value="{value}"' in shown
    assert phone.reinvite(dialog) == 200


def test_reloadxml_leaves_limits_and_rtp_ports(daemon, phone):
    daemon.tree.switch(max_sessions=7, sessions_per_second=9, rtp_start_port=30000)
    assert daemon.api("reloadxml") == "+OK [Success]\n"
    assert daemon.api("fsctl max_sessions") == "+OK max sessions: 500\n"
    assert daemon.api("fsctl sps") == "+OK sessions per second: 500\n"
    dialog = phone.call()
    assert int(dialog.answer.body.split(b"m=audio ")[1].split()[0]) < 21_000


def test_xml_locate_root_shows_what_is_loaded(shared):
    said = shared.api("xml_locate root")
    assert said.startswith("<document ")
    assert '<context name="public">' in said


def test_start_with_broken_xml_fails(stopped):
    stopped.tree.write("dialplan/broken.xml", "<context>\n")
    with pytest.raises(AssertionError, match="Cannot Initialize"):
        stopped.start()
    assert stopped.process.returncode not in (0, None)


def test_second_profile_on_a_taken_port_does_not_run(stopped):
    stopped.tree.profile("second", stopped.tree.sip_port)
    daemon = stopped.start()
    with Phone(daemon.sip) as phone:
        assert phone.options().status == 200
    until(lambda: daemon.api("sofia status").count("RUNNING") == 1)


def test_pid_file_names_the_daemon(shared):
    assert int((shared.root / "run" / "freeswitch.pid").read_text()) == shared.process.pid
