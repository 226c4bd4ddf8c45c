"""What OpenSIPS passes over, and where what it refuses stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

opensips_lint = load("_utils/opensips_lint.py")

TREE = {
    "opensips.cfg": b'include_file "conf.d/10-core.cfg"\ninclude_file "routes.d/10.cfg"\n',
    "conf.d/10-core.cfg": b"# socket=udp:10.0.0.1:5060\nlog_level=2\nsocket=udp:10.0.0.1:5060\n"
    b'socket=tls:10.0.0.1\nmodparam("httpd", "port", 8888)\n',
    "conf.d/20.cfg": b'loadmodule "tm.so"\nmodparam("tm", "fr_timeout", 2)\n'
    b'loadmodule "db_text.so"\nloadmodule "permissions.so"\n'
    b'modparam("permissions", "db_url", "text:///x")\n',
    "routes.d/10.cfg": b'route {\n    if ($rU =~ "^(8") {\n        exit;\n    }\n}\n'
    b"route[x] {\n    exit;\n}\nroute[x] {\n    exit;\n}\n",
    "dbtext/dispatcher": b"id(int,auto) setid(int) destination(string)\n1:x:sip\\:a\n",
    "dbtext/version": b"table_name(string) table_version(int)\naddress:5\ndispatcher:9\n",
}
TREE["opensips.cfg"] += b'include_file "conf.d/20.cfg"\n'


def problems(**changed):
    names = {"core": "conf.d/10-core.cfg", "main": "opensips.cfg", "modules": "conf.d/20.cfg"}
    tree = {**TREE, **{names[name]: TREE[names[name]] + text for name, text in changed.items()}}
    return opensips_lint.problems(tree)


def test_good_tree_has_none():
    assert opensips_lint.problems(TREE) == []


@pytest.mark.parametrize(
    ("where", "text", "told"),
    [
        ("core", b"/* no end\n", "conf.d/10-core.cfg:6: comment without an end"),
        ("core", b'log_prefix="no end\n', "conf.d/10-core.cfg:6: syntax error: string without"),
        (
            "core",
            b"socket=udp:10.0.0.1\n",
            "conf.d/10-core.cfg:6: socket 10.0.0.1:5060 twice, see conf.d/10-core.cfg:3",
        ),
        ("core", b"socket=tcp:10.0.0.1:5061\n", "conf.d/10-core.cfg:6: socket 10.0.0.1:5061 twice"),
        ("core", b"socket=udp:10.0.0.1:0\n", "conf.d/10-core.cfg:6: socket has port 0"),
        ("core", b"socket=udp:10.0.0.1:99999\n", "conf.d/10-core.cfg:6: socket has port 99999"),
        (
            "core",
            b"socket=tcp:10.0.0.1:8888\n",
            "conf.d/10-core.cfg:5: httpd port 8888 is taken, see conf.d/10-core.cfg:6",
        ),
        (
            "main",
            b'include_file "conf.d/99.cfg"\n',
            "opensips.cfg:4: conf.d/99.cfg is no file of this tree",
        ),
        (
            "main",
            b'include_file "/etc/passwd"\n',
            "opensips.cfg:4: /etc/passwd is no file of this tree",
        ),
        (
            "main",
            b'include_file "mysql://a:pw@h/o"\n',
            "opensips.cfg:4: mysql://a:***@h/o is no file of this tree",
        ),
        (
            "main",
            b'include_file "conf.d/20.cfg"\n',
            "opensips.cfg:4: conf.d/20.cfg is included already, see opensips.cfg:3",
        ),
        (
            "main",
            b'include_file "opensips.cfg"\n',
            "opensips.cfg:4: opensips.cfg is included already",
        ),
        (
            "modules",
            b'modparam("acc", "db_url", "mysql://a:pw@h/o")\n',
            "conf.d/20.cfg:6: a database of mysql, but db_mysql.so is not loaded",
        ),
    ],
)
def test_what_opensips_passes_over(where, text, told):
    (found,) = problems(**{where: text})
    assert found.startswith(told)
    assert "pw" not in found


def test_harmless_neighbours():
    same = b"socket=tcp:10.0.0.1:5060\nsocket=udp:10.0.0.2:5060\nsocket=udp:host.example:*\n"
    assert problems(core=same + b"# it's a comment with one quote\n/* and \" another */\n") == []


SAID = "Nov 25 00:08:57 [3616] "
WHERE = ("/etc/.opensips.staged", "/etc/opensips")


def explained(*lines, up=False):
    return opensips_lint.explain("\n".join(SAID + line for line in lines), TREE, *WHERE, up=up)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        # a parse error, and the word before it that is truer
        (["CRITICAL:core:yyerror: parse error in /etc/opensips/conf.d/20.cfg:2:1-5: syntax error",
          'CRITICAL:modparam("x", "db_url", "mysql://a:secret@h/o")'],
         "conf.d/20.cfg:2: syntax error"),
        (["ERROR:core:set_mod_param_regex: type mismatch for parameter <fr_timeout>",
          "CRITICAL:core:yyerror: parse error in conf.d/20.cfg:2:1-9: Parameter <fr_timeout>"
          " not found in module <tm> - can't set"],
         "conf.d/20.cfg:2: type mismatch for parameter <fr_timeout>"),
        (["WARNING:core:sr_load_module: attempting to load the same module twice (/m/sl.so)",
          "ERROR:core:load_module: failed to load module",
          "CRITICAL:core:yyerror: parse error in conf.d/20.cfg:5:1-4: failed to load module sl.so"],
         "conf.d/20.cfg:5: attempting to load the same module twice (/m/sl.so)"),
        (["ERROR:cfgutils:parse_shvar: bad value",
          "CRITICAL:core:yyerror: parse error in conf.d/20.cfg:5:1: Parameter <shvset> not found"],
         "conf.d/20.cfg:5: bad value"),
        # a fault in a route, found at the start
        (["ERROR:core:fix_actions: route [nowhere] is not defined",
          "ERROR:core:fix_actions: failed to validate a route() statement (type 3)",
          "ERROR:core:fix_rls: fixing failed (code=-6) at /etc/opensips/routes.d/10.cfg:3"],
         "routes.d/10.cfg:3: route [nowhere] is not defined"),
        (["ERROR:dispatcher:fixup_ds_flags: Invalid definition",
          "ERROR:core:fix_cmd: Failed to fix command <ds_select_dst>",
          "ERROR:core:fix_rls: fixing failed (code=-6) at routes.d/10.cfg:3"],
         "routes.d/10.cfg:3: Invalid definition, in <ds_select_dst>"),
        (["ERROR:core:check_cmd: Param [1] expected to be an integer or variable",
          "ERROR:core:check_actions: check failed for function <send_reply>, routes.d/10.cfg:3",
          "ERROR:core:main: bad function call in config file"],
         "routes.d/10.cfg:3: Param [1] expected to be an integer or variable, in <send_reply>"),
        # no place: found in the tree
        (['ERROR:core:fix_expr: bad re "^(8"'], 'routes.d/10.cfg:2: bad re "^(8"'),
        (["CRITICAL:core:get_script_route_idx: Script route <x> is redefined"],
         "routes.d/10.cfg:9: Script route <x> is redefined"),
        (["ERROR:proto_udp:udp_init_listener: bind(3, 0x7f, 16) on 10.0.0.1: Cannot assign"],
         "conf.d/10-core.cfg:3: bind(3, 0x7f, 16) on 10.0.0.1: Cannot assign"),
        (["ERROR:core:x: listeners found for protocol tls, but no module can handle it"],
         "conf.d/10-core.cfg:4: listeners found for protocol tls, but no module can handle it"),
        (["ERROR:db_text:dbt_load_file: error at row=2 col=2 c=x"],
         "dbtext/dispatcher:2: error at row=2 col=2 c=x"),
        (["ERROR:core:db_check_table_version: invalid version 5 for table dispatcher found"],
         "dbtext/version:3: invalid version 5 for table dispatcher found"),
        (["ERROR:db_text:dbt_query: table 'dispatcher' does not exist!"],
         "dbtext/dispatcher:1: table 'dispatcher' does not exist!"),
        (["ERROR:tm:mod_init: FR_TIMER must be at least 2"],
         "conf.d/20.cfg:2: FR_TIMER must be at least 2"),
        (["ERROR:core:init_mod: failed to initialize module permissions"],
         "conf.d/20.cfg:5: failed to initialize module permissions"),
        (["ERROR:db_text:bind: something else"], "conf.d/20.cfg:3: something else"),
        # a driver does not say who asked; the next line does
        (["ERROR:db_sqlite:db_sqlite_connect: Can't open database: unable to open database file",
          "ERROR:core:db_do_init: could not add connection to the pool",
          "ERROR:permissions:init_address_part: unable to connect database"],
         "conf.d/20.cfg:5: Can't open database"),
        (["ERROR:db_sqlite:db_sqlite_query: failed to prepare: (no such column: fr_timeout)"],
         "conf.d/20.cfg:2: failed to prepare"),
        (["ERROR:db_text:dbt_query: failed to prepare: (no such column: else)",
          "ERROR:permissions:x: error while querying database"],
         "conf.d/20.cfg:5: failed to prepare"),
        (["WARNING:core:init_reactor_size: shrinking reactor size",
          "WARNING:core:solve_module_dependencies: module permissions depends on module usrloc,"
          " but it was not loaded!",
          "ERROR:core:main: failed to solve module dependencies"],
         "conf.d/20.cfg:5: module permissions depends on module usrloc, but it was not loaded!"),
        (["ERROR:unheard:of: something else"], "unheard: something else"),
        (["ERROR:core:x: event_route used but 'event_route' module not loaded!"],
         "core: event_route used but 'event_route' module not loaded!"),
        (["ERROR:core:x: overwriting default request routing table"],
         "core: overwriting default request routing table"),
        (["ERROR:core:x: cannot bind to database module! (postgres://user:PASS@host/o)"],
         "core: cannot bind to database module! (postgres://user:***@host/o)"),
        (["ERROR:db_text:dbt_load_file: error at row=7 col=1 c=t"],
         "conf.d/20.cfg:3: error at row=7 col=1 c=t"),
        (["NOTICE:core:main: exiting"], "opensips does not start with it: "),
    ],
)  # fmt: skip
def test_cause_with_its_place(lines, told):
    found = explained(*lines)
    assert found[0].startswith(told)
    assert "secret" not in " ".join(found)
    assert all("\n" not in line for line in found)


def test_silent_end_has_words_too():
    assert opensips_lint.explain("", TREE) == ["opensips does not start with it: without a word"]


def test_at_most_three_causes_each_once():
    said = [f"ERROR:tm:x: cause {number % 5}" for number in range(10)]
    assert len(explained(*said)) == 3


def test_daemon_that_stays_up_may_complain_of_others_only():
    loud = ["ERROR:rtpengine:connect: no answer", "WARNING:dispatcher:x: bad uri [x]"]
    assert explained(*loud, up=True) == []
    left_out = ["ERROR:load_balancer:x: could not resolve a.invalid",
                "ERROR:core:fix_socket_list: could not resolve b.invalid"]  # fmt: skip
    assert explained(*left_out, up=True) == ["core: could not resolve b.invalid"]
    told = explained(*loud, "ERROR:httpd:httpd_proc: unable to start http daemon", up=True)
    assert told == ["httpd: unable to start http daemon"] or told[0].startswith(
        "conf.d/10-core.cfg:5"
    )


words = st.sampled_from(
    ["ERROR:core:x: ", "CRITICAL:core:yyerror: parse error in ", "conf.d/20.cfg:2:1: ", '"', "\n",
     "table 'x'", " at a:1", "row=2", "<x>", "10.0.0.1", "route <x> is redefined", "version"]
) | st.text(max_size=8)  # fmt: skip


@given(st.lists(words, max_size=12).map("".join), st.booleans())
def test_anything_said_is_explained_in_lines(said, up):
    found = opensips_lint.explain(said, TREE, *WHERE, up=up)
    assert len(found) <= 3
    assert all("\n" not in line and len(line) <= 240 for line in found)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_at(content):
    for name in ("conf.d/10-core.cfg", "dbtext/dispatcher"):
        assert all(isinstance(told, str) for told in opensips_lint.problems({name: content}))
        assert opensips_lint.explain("ERROR:x:y: error at row=2", {name: content})
