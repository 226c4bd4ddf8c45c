"""FreeSWITCH's preprocessor rules, each measured on or read in 1.10.12, and the linter on top."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = """<?xml version="1.0"?>
<document type="freeswitch/xml">
  <X-PRE-PROCESS cmd="include" data="vars.xml"/>
  <section name="configuration">
    <X-PRE-PROCESS cmd="include" data="autoload_configs/*.xml"/>
  </section>
</document>
"""
VARS = """<include>
  <X-PRE-PROCESS cmd="set" data="address=192.0.2.1"/>
</include>
"""
SOFIA = """<configuration name="sofia.conf">
  <profiles>
    <X-PRE-PROCESS cmd="include" data="../sip_profiles/*.xml"/>
  </profiles>
</configuration>
"""
MODULES = """<configuration name="modules.conf">
  <modules>
    <load module="mod_sofia"/>
  </modules>
</configuration>
"""
EVENT_SOCKET = """<configuration name="event_socket.conf">
  <settings>
    <param name="listen-ip" value="127.0.0.1"/>
    <param name="listen-port" value="8021"/>
    <param name="password" value="not-a-secret"/>
  </settings>
</configuration>
"""


def profile(name="internal", port=5060, gateways="", extra=""):
    return f"""<profile name="{name}">
  <gateways>
{gateways}
  </gateways>
  <settings>
    <param name="sip-ip" value="$${{address}}"/>
    <param name="sip-port" value="{port}"/>
{extra}
  </settings>
</profile>
"""


def tree(**files):
    texts = {
        "freeswitch.xml": ROOT,
        "vars.xml": VARS,
        "autoload_configs/sofia.conf.xml": SOFIA,
        "autoload_configs/modules.conf.xml": MODULES,
        "autoload_configs/event_socket.conf.xml": EVENT_SOCKET,
        "sip_profiles/internal.xml": profile(),
        **files,
    }
    return {name: text.encode() for name, text in texts.items() if text is not None}


def test_good_tree_has_no_problem_and_expands(fsxml):
    files = tree()
    assert fsxml.lint(files) == []
    document = fsxml.load(files)
    (found,) = document.configuration("sofia.conf").all("profiles", "profile")
    assert found.all("settings")[0].param("sip-ip") == "192.0.2.1"
    assert (found.file, found.line) == ("sip_profiles/internal.xml", 1)


def media(first, last):
    return f"""<configuration name="switch.conf">
  <settings>
    <param name="rtp-start-port" value="{first}"/>
    <param name="rtp-end-port" value="{last}"/>
  </settings>
</configuration>
"""


INTERNAL = "sip_profiles/internal.xml"
ACL = "autoload_configs/acl.conf.xml"
BAD = {
    "one-line file vanishes": (
        {"vars.xml": '<include><X-PRE-PROCESS cmd="set" data="address=1"/></include>\n'},
        "vars.xml:1: FreeSWITCH drops a line with <include>",
    ),
    "directive beside other text": (
        {"vars.xml": VARS.replace("  <X-PRE", "<a/><X-PRE", 1)},
        "vars.xml:2: X-PRE-PROCESS must be alone on its line",
    ),
    "directive over two lines": (
        {"vars.xml": VARS.replace(" data=", "\n data=")},
        "vars.xml:2: X-PRE-PROCESS needs cmd and data, in that order, on one line",
    ),
    "directive in a comment runs": (
        {"vars.xml": VARS + '<!--\n<X-PRE-PROCESS cmd="set" data="a=b"/>\n-->\n'},
        "vars.xml:5: X-PRE-PROCESS runs although commented out",
    ),
    "undefined variable": (
        {INTERNAL: profile(port="$${nowhere}")},
        f"{INTERNAL}:7: $${{nowhere}} is not set before this line",
    ),
    "unterminated variable": (
        {INTERNAL: profile(port="$${address")},
        f"{INTERNAL}:7: '$${{' without its '}}'",
    ),
    "exec": (
        {"vars.xml": VARS.replace('cmd="set"', 'cmd="exec-set"')},
        "exec-set makes a start depend on the outside",
    ),
    "include loop": (
        {"vars.xml": '<X-PRE-PROCESS cmd="include" data="vars.xml"/>\n' + VARS},
        "include loop through vars.xml",
    ),
    "include out of the tree": (
        {"vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="../../etc/passwd"/>\n'},
        "vars.xml:4: include leads out of the tree",
    ),
    "missing directory": (
        {"vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="nowhere/*.xml"/>\n'},
        "vars.xml:4: included directory nowhere does not exist",
    ),
    "unreached file": ({"other/x.xml": "<a/>\n"}, "other/x.xml: no include reaches it"),
    "ill-formed": (
        {INTERNAL: profile().replace("</settings>", "</setings>")},
        f"{INTERNAL}:9: mismatched tag (<settings> of {INTERNAL}:5)",
    ),
    "entity": (
        {"freeswitch.xml": '<!DOCTYPE d [<!ENTITY a "b">]>\n' + ROOT.split("\n", 1)[1]},
        "document types and entities are not allowed",
    ),
    "external entity": (
        {"freeswitch.xml": '<!DOCTYPE d SYSTEM "file:///etc/passwd">\n' + ROOT},
        "document types and entities are not allowed",
    ),
    "same port twice": (
        {"sip_profiles/other.xml": profile("other")},
        "sip-port 192.0.2.1:5060 of profile other is taken by profile internal",
    ),
    "same gateway twice": (
        {
            INTERNAL: profile(gateways='<gateway name="g"/>'),
            "sip_profiles/other.xml": profile("other", 5080, '<gateway name="g"/>'),
        },
        "gateway g again",
    ),
    "gateway name": (
        {INTERNAL: profile(gateways='<gateway name="a b"/>')},
        "gateway name 'a b' may hold only",
    ),
    "second container": (
        {INTERNAL: profile().replace("</profile>", "<settings/></profile>")},
        "only the first <settings> is ever read",
    ),
    "unknown list": (
        {INTERNAL: profile(extra='<param name="apply-inbound-acl" value="friends"/>')},
        "apply-inbound-acl names list 'friends', which acl.conf lacks",
    ),
    "public default password": (
        {"autoload_configs/event_socket.conf.xml": EVENT_SOCKET.replace("not-a-secret", "ClueCon")},
        "absent or the public default",
    ),
    "absent password": (
        {"autoload_configs/event_socket.conf.xml": EVENT_SOCKET.replace('"password"', '"other"')},
        "absent or the public default",
    ),
    "event socket for everybody": (
        {"autoload_configs/event_socket.conf.xml": EVENT_SOCKET.replace("127.0.0.1", "::")},
        "must listen on 127.0.0.1 or ::1 only",
    ),
    "module twice": (
        {
            "autoload_configs/modules.conf.xml": MODULES.replace(
                "  </modules>", '<load module="mod_sofia"/>\n</modules>'
            )
        },
        "mod_sofia is loaded twice",
    ),
    "configuration twice": ({ACL: MODULES}, "configuration modules.conf again"),
    "no modules": ({"autoload_configs/modules.conf.xml": None}, "no module would be loaded"),
    "no root": ({"freeswitch.xml": None}, "freeswitch.xml: missing"),
    "set without a value": (
        {"vars.xml": VARS.replace("address=192.0.2.1", "address")},
        "vars.xml:2: set needs name=value",
    ),
    "directive that is none": (
        {"vars.xml": VARS.replace('cmd="set"', 'cmd="sett"')},
        "vars.xml:2: X-PRE-PROCESS cmd 'sett' is not one FreeSWITCH knows",
    ),
    "include of an absolute path": (
        {"vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="/etc/passwd"/>\n'},
        "vars.xml:4: include of /etc/passwd leads out of the tree",
    ),
    "include by a variable of the daemon": (
        {"vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="$${base_dir}/a.xml"/>\n'},
        "vars.xml:4: include of $${base_dir}/a.xml leads out of the tree",
    ),
    "missing file": (
        {"vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="sip_profiles/no.xml"/>\n'},
        "vars.xml:4: included file sip_profiles/no.xml does not exist",
    ),
    "variables that double": (
        {
            "vars.xml": VARS
            + '<X-PRE-PROCESS cmd="set" data="address=$${address}$${address}"/>\n' * 40
        },
        "vars.xml:16: its variables expand to more than 65536 characters",
    ),
    "profile twice": (
        {"sip_profiles/other.xml": profile(port=5080)},
        f"sip_profiles/other.xml:1: profile internal again, after {INTERNAL}:1",
    ),
    "profile without settings": (
        {"sip_profiles/other.xml": '<profile name="other">\n</profile>\n'},
        "sip_profiles/other.xml:1: profile other has no settings",
    ),
    "TLS port of another": (
        {
            INTERNAL: profile(extra='<param name="tls" value="true"/>'),
            "sip_profiles/other.xml": profile("other", 5061),
        },
        "sip-port 192.0.2.1:5061 of profile other is taken by profile internal",
    ),
    "WebSocket port of another": (
        {
            INTERNAL: profile(extra='<param name="wss-binding" value=":7443"/>'),
            "sip_profiles/other.xml": profile(
                "other", 5080, extra='<param name="ws-binding" value="192.0.2.1:7443"/>'
            ),
        },
        "ws-binding 192.0.2.1:7443 of profile other is taken by profile internal",
    ),
    "port among those for media": (
        {"autoload_configs/switch.conf.xml": media(5000, 6000)},
        f"{INTERNAL}:5: sip-port 5060 of profile internal is one of the media ports 5000-6000",
    ),
    "media ports the wrong way round": (
        {"autoload_configs/switch.conf.xml": media(20000, 10000)},
        "switch.conf.xml:2: rtp-start-port 20000 is not below rtp-end-port",
    ),
    "shell-like comment": ({"vars.xml": VARS + "<!--#set x -->\n"}, "is a directive"),
}


@pytest.mark.parametrize("case", BAD)
def test_linter_names_file_and_line(fsxml, case):
    files, told = BAD[case]
    problems = fsxml.lint(tree(**files))
    assert any(told in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_shell_like_comment_hides_the_lines_up_to_its_end(fsxml):
    comment = "<!--#set x\n<hidden/>\n--><seen/>\n"
    files = tree(**{INTERNAL: profile().replace("  <settings>", f"{comment}  <settings>")})
    assert any(f"{INTERNAL}:5: '<!--#' is a directive" in told for told in fsxml.lint(files))
    (found,) = fsxml.load(files).configuration("sofia.conf").all("profiles", "profile")
    assert [child.name for child in found.children] == ["gateways", "seen", "settings"]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\xff\xfe<a/>", "not UTF-8"), (b"<a>\0</a>", "NUL"), (b"\xef\xbb\xbf<a/>", "byte order")],
)
def test_encodings(fsxml, content, told):
    files = {**tree(), "vars.xml": content}
    assert any(told in problem for problem in fsxml.lint(files))


SET = '<X-PRE-PROCESS cmd="set" data="{}={}"/>\n'
INCLUDE = '<X-PRE-PROCESS cmd="include" data="{}"/>\n'
NAMES = [f"d/{number}" for number in range(99)]
HUGE = {
    "deep": ({"freeswitch.xml": "<a>" * 100_000}, "freeswitch.xml:1: nested deeper or larger"),
    "many elements": (
        {"freeswitch.xml": "<a>" + "<b/>" * 1_000_000 + "</a>"},
        "freeswitch.xml:1: nested deeper or larger than any real configuration",
    ),
    "one long line": (
        {"freeswitch.xml": "<a>" + "x" * (20 << 20) + "</a>"},
        "freeswitch.xml:1: the text up to here is larger than any real one",
    ),
    "one long text": (
        {"freeswitch.xml": "<a>" + "x" * (15 << 20) + "</a>"},
        "no module would be loaded",
    ),
    "one file over and over": (
        {"freeswitch.xml": INCLUDE.format("a.xml") * 4000, "a.xml": "\n" * 100_000},
        "the text up to here is larger than any real one",
    ),
    "files at once": (
        {"freeswitch.xml": INCLUDE.format("d/*") * 9, **dict.fromkeys(NAMES, "x" * 99_999)},
        "the text up to here is larger than any real one",
    ),
    "variables that double": (
        {"freeswitch.xml": SET.format("a", "xx") + SET.format("a", "$${a}$${a}") * 40},
        "freeswitch.xml:17: its variables expand to more than 65536 characters",
    ),
    "one variable on one line": (
        {"freeswitch.xml": SET.format("a", "x" * 60_000) + "$${a}" * 200_000},
        "freeswitch.xml:2: its variables expand to more than 65536 characters",
    ),
    "many long variables": (
        {"freeswitch.xml": SET.format("a", "x" * 60_000)
         + "".join(SET.format(f"b{n}", "$${a}") for n in range(20_000))},
        "the text up to here is larger than any real one",
    ),
    "instructions without an end": (
        {"freeswitch.xml": "<?" * 500_000}, "freeswitch.xml:1: FreeSWITCH drops a line",
    ),
    "references without an end": ({"freeswitch.xml": "$${" * 500_000}, "'$${' without its '}'"),
    "comments without an end": ({"freeswitch.xml": "<!--" * 500_000}, "freeswitch.xml:1: "),
    "directives without an end": (
        {"freeswitch.xml": '<X-PRE-PROCESS cmd="' * 50_000}, "needs cmd and data",
    ),
    "much that is wrong": ({"freeswitch.xml": "$${x}\n" * 120_000}, "$${x} is not set"),
}  # fmt: skip


@pytest.mark.parametrize("case", HUGE)
def test_huge_input_is_told_soon_and_in_little_room(fsxml, case):
    files, told = HUGE[case]
    content = {name: text.encode() for name, text in files.items()}
    before = time.process_time()
    tracemalloc.start()
    try:
        problems = fsxml.lint(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - before < 10, "twice that of a busy machine; without, a second"
    assert peak < 200 << 20
    assert all("\n" not in problem and len(problem) < 400 for problem in problems)
    assert any(told in problem for problem in problems), problems[:3]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("<a>" + "x" * (20 << 20) + "</a>", "answer:1: the text up to here is larger"),
        ("<a>\n" + "x\n" * 2_000_000 + "</a>", "the text up to here is larger"),
        ("<a>" * 100_000, "answer:1: nested deeper"),
        ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "answer:1: document types and entities"),
        ("", "answer:1: no element found"),
    ],
    ids=["one line", "many lines", "deep", "entity", "empty"],
)
def test_answer_that_no_daemon_gives_is_one_line(fsxml, answer, told):
    with pytest.raises(ValueError, match=told) as caught:
        fsxml.parse(answer)
    assert "\n" not in str(caught.value)


def test_event_socket_settings_are_found(fsxml):
    assert fsxml.event_socket(tree()) == {
        "host": "127.0.0.1",
        "port": 8021,
        "password": "not-a-secret",
    }
    through_variable = tree(
        **{
            "vars.xml": VARS.replace("address=192.0.2.1", "address=192.0.2.1")
            + '<X-PRE-PROCESS cmd="set" data="word=from-vars"/>\n',
            "autoload_configs/event_socket.conf.xml": EVENT_SOCKET.replace(
                "not-a-secret", "$${word}"
            ),
        }
    )
    assert fsxml.event_socket(through_variable)["password"] == "from-vars"
    with pytest.raises(ValueError, match="no password"):
        fsxml.event_socket(
            tree(
                **{"autoload_configs/event_socket.conf.xml": EVENT_SOCKET.replace("password", "x")}
            )
        )


@pytest.mark.parametrize(
    ("listens", "asked"),
    [("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::", "::1"), ("::1", "::1"),
     ("192.0.2.7", "192.0.2.7")],
)  # fmt: skip
def test_event_socket_is_asked_where_it_listens(fsxml, listens, asked):
    name = "autoload_configs/event_socket.conf.xml"
    files = tree(**{name: EVENT_SOCKET.replace("127.0.0.1", listens)})
    assert fsxml.event_socket(files)["host"] == asked


@pytest.mark.parametrize("port", ["", "x", "-1", "²", "٣", "9" * 5000, "8021 "])
def test_event_socket_port_that_is_none(fsxml, port):
    name = "autoload_configs/event_socket.conf.xml"
    files = tree(**{name: EVENT_SOCKET.replace("8021", port)})
    with pytest.raises(ValueError, match=f"{name}: listen-port is not a port number") as caught:
        fsxml.event_socket(files)
    assert "not-a-secret" not in str(caught.value)


@pytest.mark.parametrize("port", ["²", "٣", "9" * 5000, "many"])
def test_port_that_is_no_number_is_no_traceback(fsxml, port):
    files = tree(**{"autoload_configs/switch.conf.xml": media(port, 20000)})
    assert fsxml.lint(files) == []
    files = tree(**{"autoload_configs/switch.conf.xml": media(5000, 20000)})
    files[INTERNAL] = profile(port=port).encode()
    assert not any("media ports" in problem for problem in fsxml.lint(files))


def test_variables_of_the_daemon_stand_for_themselves(fsxml):
    """All but its own directory, which we know; the rest only it can say."""
    files = tree(
        **{
            "vars.xml": VARS + '<X-PRE-PROCESS cmd="include" data="$${conf_dir}/more/*.xml"/>\n',
            "more/x.xml": '<X-PRE-PROCESS cmd="set" data="where=$${conf_dir}/tls"/>\n',
            INTERNAL: profile(
                extra='<param name="tls-cert-dir" value="$${where}"/>\n'
                '<param name="record-path" value="$${recordings_dir}/x"/>'
            ),
        }
    )
    assert fsxml.lint(files) == []
    document = fsxml.load(files)
    (found,) = document.configuration("sofia.conf").all("profiles", "profile", "settings")
    assert found.param("tls-cert-dir") == "/etc/freeswitch/tls"
    assert found.param("record-path") == "$${recordings_dir}/x"


def test_value_only_the_daemon_knows_matches_what_it_holds(fsxml):
    wanted = fsxml.parse('<a><b path="$${recordings_dir}/x" name="n"/></a>')
    assert fsxml.differs(wanted, fsxml.parse('<a><b path="/var/x" name="n"/></a>')) == ""
    assert fsxml.differs(wanted, fsxml.parse('<a><b path="/var/x" name="m"/></a>')) == "answer:1"
    assert fsxml.differs(wanted, fsxml.parse("<a/>")) == "answer:1"


def test_answers_of_the_daemon_are_read_though_it_does_not_escape(fsxml):
    """1.10.12 writes a gateway's user name unescaped in `sofia xmlstatus`."""
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<g><u>a&"b</u><s>&lt;x&gt;</s></g>'
    node = fsxml.parse(text)
    assert [child.text for child in node.children] == ['a&"b', "<x>"]
    with pytest.raises(ValueError, match="answer:1"):
        fsxml.parse("Invalid Gateway!")


def test_differences_are_located(fsxml):
    wanted = fsxml.load(tree()).root
    same = fsxml.load(tree()).root
    other = fsxml.load(tree(**{INTERNAL: profile(port=5061)})).root
    assert fsxml.differs(wanted, same) == ""
    assert fsxml.differs(wanted, other) == f"{INTERNAL}:7"


LINES = st.sampled_from(
    [
        "<include>",
        "</include>",
        "<?xml?>",
        "<!--",
        "-->",
        "<!--#x",
        "$${",
        "$${address}",
        "}",
        '<X-PRE-PROCESS cmd="set" data="a=$${a}b"/>',
        '<X-PRE-PROCESS cmd="include" data="*.xml"/>',
        '<X-PRE-PROCESS cmd="include" data="sub/*.xml"/>',
        "x-pre-process",
        "<a b='c'>",
        "</a>",
        "<![CDATA[",
        "]]>",
        "&amp;",
        "&x;",
        "<!DOCTYPE a>",
        "text",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(["vars.xml", "sub/x.xml", "y.xml"]),
                       st.lists(LINES, max_size=12)))  # fmt: skip
def test_any_mixture_gives_lines_not_tracebacks(fsxml, files):
    texts = {name: "\n".join(lines) for name, lines in files.items()}
    problems = fsxml.lint(tree(**texts))
    assert all(isinstance(problem, str) and "\n" not in problem for problem in problems)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_lines_not_tracebacks(fsxml, content):
    problems = fsxml.lint({**tree(), "vars.xml": content})
    assert all("\n" not in problem for problem in problems)


def test_files_that_include_one_another_twice_over_are_a_problem_and_no_hang(fsxml):
    include = '<X-PRE-PROCESS cmd="include" data="{}.xml"/>\n'
    files = {"freeswitch.xml": (include.format(0) * 2).encode()}
    for level in range(30):
        files[f"{level}.xml"] = (include.format(level + 1) * 2).encode()
    assert any("5000 files are included before it" in told for told in fsxml.lint(files))
