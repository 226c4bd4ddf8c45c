"""What a change of an OpenSIPS tree costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.loading import load

opensips_cfg = load("_utils/opensips_cfg.py")

TREE = {
    "opensips.cfg": b'include_file "conf.d/10-core.cfg"\ninclude_file "routes.d/10.cfg"\n',
    "conf.d/10-core.cfg": b"socket=udp:10.77.0.11:5060\nlog_level=2 # chatty\n",
    "routes.d/10.cfg": b'route {\n    xlog("a # no comment");\n}\n',
    "dbtext/dispatcher": b"id(int,auto) setid(int) destination(str)\n"
    b"1:1:sip\\:10.77.0.21\\:5060\n2:1:sip\\:10.77.0.22\\:5060\n3:2:sip\\:10.77.0.31\\:5060\n",
    "dbtext/address": b"id(int) grp(int) ip(str)\n1:1:10.77.0.1\n",
    "dbtext/version": b"table_name(str) table_version(int)\ndispatcher:9\n",
}


def changed(path, content):
    return {**TREE, path: content}


def cost(new):
    return opensips_cfg.classify(TREE, new)


@pytest.mark.parametrize(
    ("path", "content", "disruption", "actions"),
    [
        ("routes.d/10.cfg", b"route { exit; }\n", "reload", ["reload_routes"]),
        ("routes.d/20.cfg", b"route[x] { exit; }\n", "reload", ["reload_routes"]),
        ("dbtext/dispatcher", b"id(int)\n", "reload", ["dbt_reload", "ds_reload"]),
        ("dbtext/address", b"id(int)\n", "reload", ["dbt_reload", "address_reload"]),
        ("dbtext/version", b"table_name(str)\n", "restart", ["restart"]),
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
    (why,) = opensips_cfg.classify(old, new)["why"]
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
        "conf.d/1": b"socket=tcp:10.0.0.1:5070\n  socket = udp:10.0.0.2\n#socket=udp:10.0.0.3\n"
    }
    assert opensips_cfg.sockets(tree) == [("10.0.0.2", 5060)]
    assert opensips_cfg.sockets(tree, "tcp") == [("10.0.0.1", 5070)]


trees = st.dictionaries(
    st.sampled_from([*TREE, "routes.d/20.cfg", "conf.d/99.cfg", "stray"]),
    st.binary(max_size=40) | st.sampled_from(list(TREE.values())),
)


@given(trees)
def test_same_tree_costs_nothing(tree):
    plan = opensips_cfg.classify(tree, dict(tree))
    assert plan == {"disruption": "none", "why": [], "actions": [], "files": []}


@given(trees, trees)
def test_every_difference_in_meaning_has_a_reason_and_an_action(old, new):
    plan = opensips_cfg.classify(old, new)
    assert (plan["disruption"] == "none") == (not plan["actions"]) == (not plan["files"])
    assert len(plan["why"]) == len(plan["files"])
    assert all("\n" not in why for why in plan["why"])


@given(trees, trees)
def test_safe_part_never_needs_a_restart_and_leaves_only_restarts(old, new):
    mixed = opensips_cfg.safe_part(old, new)
    assert opensips_cfg.classify(old, mixed)["disruption"] != "restart"
    left = opensips_cfg.classify(mixed, new)
    assert left["disruption"] in ("none", "restart")


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(content):
    assert isinstance(opensips_cfg.meaning(content), str)
    assert all(opensips_cfg.destinations({"dbtext/dispatcher": content}).values())
    for address, port in opensips_cfg.sockets({"conf.d/x.cfg": content}):
        assert address.count(".") == 3
        assert port >= 0
