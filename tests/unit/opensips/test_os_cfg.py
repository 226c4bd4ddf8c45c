"""What a change of an OpenSIPS tree costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

opensips_cfg = load("_utils/opensips_cfg.py")

LTS = [3, 4, 18]
TREE = {
    "opensips.cfg": b'include_file "conf.d/10-core.cfg"\ninclude_file "routes.d/10.cfg"\n',
    "conf.d/10-core.cfg": b"socket=udp:10.77.0.11:5060\nlog_level=2 # chatty\n",
    "routes.d/10.cfg": b'route {\n    xlog("a # no comment");\n}\n',
    "dbtext/dispatcher": b"id(int,auto) setid(int) destination(str)\n"
    b"1:1:sip\\:10.77.0.21\\:5060\n2:1:sip\\:10.77.0.22\\:5060\n3:2:sip\\:10.77.0.31\\:5060\n",
    "dbtext/address": b"id(int) grp(int) ip(str)\n1:1:10.77.0.1\n",
    "dbtext/version": b"table_name(str) table_version(int)\ndispatcher:9\n",
    **{
        f"dbtext/{table}": b"id(int) it(str)\n1:x\n"
        for table in ("tls_mgm", "dr_rules", "rtpengine", "subscriber", "nobodys")
    },
    "runtime/location": b"contact_id(bigint)\n",
}


def changed(path, content):
    return {**TREE, path: content}


def cost(new):
    return opensips_cfg.classify(TREE, new, LTS)


@pytest.mark.parametrize(
    ("path", "content", "disruption", "actions"),
    [
        ("routes.d/10.cfg", b"route { exit; }\n", "reload", ["reload_routes"]),
        ("routes.d/20.cfg", b"route[x] { exit; }\n", "reload", ["reload_routes"]),
        ("dbtext/dispatcher", b"id(int)\n", "reload", ["dbt_reload", "ds_reload"]),
        ("dbtext/address", b"id(int)\n", "reload", ["dbt_reload", "address_reload"]),
        ("dbtext/version", b"table_name(str)\n", "restart", ["restart"]),
        ("dbtext/tls_mgm", b"id(int)\n2\n", "reload", ["dbt_reload", "tls_reload"]),
        ("dbtext/dr_rules", b"ruleid(int)\n2\n", "reload", ["dbt_reload", "dr_reload"]),
        ("dbtext/rtpengine", b"id(int)\n2\n", "reload", ["dbt_reload", "rtpengine_reload"]),
        ("dbtext/subscriber", b"id(int)\n2\n", "reload", ["dbt_reload"]),
        ("dbtext/nobodys", b"id(int)\n2\n", "restart", ["restart"]),
        ("runtime/location", b"contact_id(int)\n", "restart", ["restart"]),
        ("conf.d/10-core.cfg", b"socket=udp:10.77.0.11:5070\n", "restart", ["restart"]),
        ("conf.d/99-new.cfg", b"log_level=4\n", "restart", ["restart"]),
        ("opensips.cfg", b'include_file "routes.d/20.cfg"\n', "restart", ["restart"]),
        ("somebody.elses", b"?", "restart", ["restart"]),
        ("routes.d.cfg", b"not in routes.d", "restart", ["restart"]),
    ],
)
def test_cost_of_a_change(path, content, disruption, actions):
    plan = cost(changed(path, content))
    assert (plan["disruption"], plan["actions"]) == (
        disruption,
        [{"do": action} for action in actions],
    )
    assert plan["files"] == [path]
    assert plan["why"][0].startswith(path)


def test_actions_come_in_the_order_in_which_they_work():
    new = {**TREE, "routes.d/10.cfg": b"route{exit;}", "dbtext/dispatcher": b"id(int)\n"}
    new["dbtext/address"] = b"id(int)\n"
    assert [action["do"] for action in cost(new)["actions"]] == [
        *("dbt_reload", "address_reload", "ds_reload", "reload_routes")
    ]


def test_one_restart_takes_all_the_rest_with_it():
    new = {**TREE, "routes.d/10.cfg": b"route{exit;}", "conf.d/10-core.cfg": b"log_level=4\n"}
    assert cost(new)["actions"] == [{"do": "restart"}]
    assert len(cost(new)["why"]) == 2


def test_certificates_need_a_restart_from_4_0_on():
    new = changed("dbtext/tls_mgm", b"id(int)\n2\n")
    assert opensips_cfg.classify(TREE, new, [3, 6, 8])["disruption"] == "reload"
    assert opensips_cfg.classify(TREE, new, [4, 0, 0])["actions"] == [{"do": "restart"}]
    assert opensips_cfg.safe_part(TREE, new, [4, 0, 1]) == TREE


def test_sqlite_is_brought_up_to_date_instead_of_reread():
    local = {"conf.d/40-db.cfg": b'modparam("dispatcher", "db_url", "sqlite:///var/x")\n'}
    old, new = {**TREE, **local}, {**changed("dbtext/dispatcher", b"id(int)\n"), **local}
    assert [step["do"] for step in opensips_cfg.classify(old, new, LTS)["actions"]] == [
        "sync",
        "ds_reload",
    ]


@pytest.mark.parametrize(
    ("main", "disruption"),
    [
        (TREE["opensips.cfg"] + b'include_file "routes.d/20.cfg"\n', "reload"),
        (b'include_file "conf.d/10-core.cfg"\n', "reload"),
        (TREE["opensips.cfg"] + b'include_file "conf.d/20.cfg"\n', "restart"),
        (TREE["opensips.cfg"] + b"log_level=4\n", "restart"),
    ],
)
def test_includes_of_routes_come_and_go_by_a_reload(main, disruption):
    assert cost(changed("opensips.cfg", main))["disruption"] == disruption


def test_what_a_drain_left_on_disk_is_no_change():
    rows = TREE["dbtext/dispatcher"].splitlines(keepends=True)
    head = b"id(int,auto) setid(int) destination(str) state(int)\n"
    old, new = (
        {
            **TREE,
            "conf.d/15-standing.cfg": b'modparam("cfgutils", "shvset", "draining=i:%d")\n' % state,
            "dbtext/dispatcher": head + rows[1].replace(b"\n", b":%d\n" % state),
        }
        for state in (0, 1)
    )
    assert opensips_cfg.classify(old, new, LTS)["disruption"] == "none"
    assert opensips_cfg.classify(old, new, LTS)["files"] == []
    assert opensips_cfg.safe_part(old, new, LTS) == new


@pytest.mark.parametrize(
    ("path", "after", "told"),
    [
        (
            "dbtext/dispatcher",
            b"4:2:sip\\:10.77.0.32\\:5060\n",
            "+1 row, first 2 sip:10.77.0.32:5060",
        ),
        ("dbtext/address", b"9:3:10.9.9.9\n", "+1 row, first 10.9.9.9 3"),
        ("dbtext/subscriber", b"2:secret\n", "+1 row"),
    ],
)
def test_reason_counts_rows_and_shows_no_secret(path, after, told):
    (why,) = cost(changed(path, TREE[path] + after))["why"]
    assert why == f"{path}: {told}"


def test_rows_in_another_order_are_told_as_such():
    head, first, *others = TREE["dbtext/dispatcher"].splitlines(keepends=True)
    new = changed("dbtext/dispatcher", b"".join([head, *others, first]))
    assert cost(new)["why"] == ["dbtext/dispatcher: order of rows"]


def test_removed_file_counts():
    gone = {path: content for path, content in TREE.items() if path != "routes.d/10.cfg"}
    assert cost(gone)["why"] == ["routes.d/10.cfg removed"]


@pytest.mark.parametrize(
    "content",
    [
        b"socket=udp:10.77.0.11:5060\nlog_level=2\n",
        b"# who listens\nsocket=udp:10.77.0.11:5060\n\n\n   log_level=2 # chatty\n",
        b"/* two\nlines */ socket=udp:10.77.0.11:5060\nlog_level=2\n",
    ],
)
def test_comments_and_white_space_cost_nothing(content):
    assert cost(changed("conf.d/10-core.cfg", content))["disruption"] == "none"


def test_number_sign_within_a_string_is_no_comment():
    new = changed("routes.d/10.cfg", b'route {\n    xlog("a # another");\n}\n')
    assert cost(new)["disruption"] == "reload"


def test_reason_hides_passwords_in_urls():
    old = {"conf.d/40-db.cfg": b'db_default_url "mysql://sip:before@db/opensips"\n'}
    new = {"conf.d/40-db.cfg": b'db_default_url "mysql://sip:after@db/opensips"\n'}
    (why,) = opensips_cfg.classify(old, new, LTS)["why"]
    assert "before" not in why
    assert "after" not in why


def test_destinations_by_set():
    assert opensips_cfg.destinations(TREE) == {
        "1": {"sip:10.77.0.21:5060", "sip:10.77.0.22:5060"},
        "2": {"sip:10.77.0.31:5060"},
    }


def test_sockets_for_the_trial_boot():
    assert opensips_cfg.sockets(TREE) == [("10.77.0.11", 5060)]
    tree = {
        "conf.d/1.cfg": b"socket=tcp:10.0.0.1:5070\n  socket = udp:10.0.0.2\n#socket=udp:10.0.0.3\n"
    }
    assert opensips_cfg.sockets(tree) == [("10.0.0.2", 5060)]
    assert opensips_cfg.sockets(tree, "tcp") == [("10.0.0.1", 5070)]


trees = st.dictionaries(
    st.sampled_from([*TREE, "routes.d/20.cfg", "conf.d/99.cfg", "stray"]),
    st.binary(max_size=40) | st.sampled_from(list(TREE.values())),
)


@given(trees)
def test_same_tree_costs_nothing(tree):
    plan = opensips_cfg.classify(tree, dict(tree), LTS)
    assert plan == {"disruption": "none", "why": [], "actions": [], "files": []}


@given(trees, trees)
def test_every_difference_in_meaning_has_a_reason_and_an_action(old, new):
    plan = opensips_cfg.classify(old, new, LTS)
    assert (plan["disruption"] == "none") == (not plan["actions"]) == (not plan["files"])
    assert len(plan["why"]) == len(plan["files"])
    assert all("\n" not in why for why in plan["why"])


@given(trees, trees)
def test_safe_part_never_needs_a_restart_and_leaves_only_restarts(old, new):
    mixed = opensips_cfg.safe_part(old, new, LTS)
    assert opensips_cfg.classify(old, mixed, LTS)["disruption"] != "restart"
    left = opensips_cfg.classify(mixed, new, LTS)
    assert left["disruption"] in ("none", "restart")


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(content):
    assert isinstance(opensips_cfg.meaning(content), str)
    assert all(opensips_cfg.destinations({"dbtext/dispatcher": content}).values())
    for address, port in opensips_cfg.sockets({"conf.d/x.cfg": content}):
        assert address.count(".") == 3
        assert port >= 0
