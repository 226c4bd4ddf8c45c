"""What OpenSIPS does with its configuration and over its management interface, asserted once."""

import pytest
from conftest import Proxy, mi

REQUEST, DISPATCH = "routes.d/10-request.cfg", "routes.d/20-dispatch.cfg"
CORE, MODULES = "conf.d/10-core.cfg", "conf.d/20-modules.cfg"


def test_the_rendered_tree_is_accepted(proxy: Proxy) -> None:
    assert proxy.check()[0] == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (REQUEST, "    record_route();", "    record_route()", "missing ';'"),
        (REQUEST, "record_route();", "record_rute();", "unknown command <record_rute>"),
        (REQUEST, "mf_process_maxfwd_header(10)", "mf_process_maxfwd_header()", "too few"),
        (MODULES, 'loadmodule "rr.so"', 'loadmodule "rrr.so"', "failed to load module rrr.so"),
        (MODULES, '"append_fromtag", 1', '"append_fromtags", 1', "<append_fromtags> not found"),
        (MODULES, '"append_fromtag", 1', '"append_fromtag", "1"', "<append_fromtag> not found"),
        (CORE, "auto_aliases=no", "nonsense=1", "parse error in"),
        ("opensips.cfg", "conf.d/40-db.cfg", "conf.d/41-db.cfg", "failed to open"),
        (DISPATCH, "route[dispatch]", "route[admit]", "<admit> is redefined"),
    ],
)
def test_check_refuses(proxy: Proxy, file: str, old: str, new: str, told: str) -> None:
    proxy.edit(file, old, new)
    code, text = proxy.check()
    assert code == 255
    assert told in text


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (REQUEST, "route(admit);", "route(nowhere);"),
        (DISPATCH, '"f")', '"q")'),
        (CORE, "udp:127.0.0.1:", "udp:192.0.2.1:"),
        (MODULES, 'modparam("mi_datagram", "socket_name"', '# modparam("mi_datagram", "'),
        ("dbtext/version", "dispatcher:9", "dispatcher:8"),
    ],
)
def test_check_misses_what_fails_at_start(proxy: Proxy, file: str, old: str, new: str) -> None:
    proxy.edit(file, old, new)
    assert proxy.check()[0] == 0
    assert not proxy.start()


def test_missing_table_fails_at_start(proxy: Proxy) -> None:
    (proxy.conf / "dbtext/dispatcher").unlink()
    assert proxy.check()[0] == 0
    assert not proxy.start()


def test_inactive_survives_reload(running: Proxy) -> None:
    running.call("ds_set_state", state="i", group=1, address=_uri(running, 1))
    running.call("dbt_reload")
    running.call("ds_reload")
    assert running.states() == {"pbx-01": "Inactive", "pbx-02": "Active"}


def test_reload_without_inheriting_takes_the_table(running: Proxy) -> None:
    running.call("ds_set_state", state="i", group=1, address=_uri(running, 1))
    running.call("ds_reload", inherit_state="n")
    assert running.states()["pbx-01"] == "Active"


def test_table_is_cached_until_dbt_reload(running: Proxy) -> None:
    running.edit("dbtext/dispatcher", "pbx-02:pbx-02", "pbx-09:pbx-09")
    running.call("ds_reload")
    assert set(running.states()) == {"pbx-01", "pbx-02"}
    running.call("dbt_reload")
    running.call("ds_reload")
    assert set(running.states()) == {"pbx-01", "pbx-09"}


def test_address_reload_needs_dbt_reload_too(running: Proxy) -> None:
    running.edit("dbtext/address", "127.0.0.1", "127.0.0.9")
    running.call("address_reload")
    assert _trusted(running) == ["127.0.0.1"]
    running.call("dbt_reload")
    running.call("address_reload")
    assert _trusted(running) == ["127.0.0.9"]


@pytest.mark.parametrize(
    ("command", "params", "code", "told"),
    [
        ("ds_set_state", {"state": "x", "group": 1, "address": "sip:1"}, 500, "Bad state value"),
        ("ds_set_state", {"state": "i", "group": 9, "address": "sip:1"}, 404, "not found"),
        ("ds_set_state", {"state": "i"}, -32602, "Invalid params"),
        ("no_such_command", {}, -32601, "Method not found"),
        ("tls_list", {}, -32601, "unknown"),
    ],
)
def test_errors(running: Proxy, command: str, params: dict, code: int, told: str) -> None:
    with pytest.raises(mi.MiError, match=told) as caught:
        running.call(command, **params)
    assert caught.value.code == code


def test_shared_variable_can_be_set(running: Proxy) -> None:
    assert running.call("shv_get", name="draining")["VAR"]["value"] == 0
    running.call("shv_set", name="draining", type="int", value=1)
    assert running.call("shv_get", name="draining")["VAR"]["value"] == 1


def test_broken_script_is_not_taken_over(running: Proxy) -> None:
    running.edit(REQUEST, "record_route();", "record_rute();")
    with pytest.raises(mi.MiError, match="reload failed"):
        running.call("reload_routes")
    assert running.call("which")


def test_reload_routes_ignores_everything_else(running: Proxy) -> None:
    running.edit(
        MODULES, 'loadmodule "maxfwd.so"', 'loadmodule "maxfwd.so"\nloadmodule "textops.so"'
    )
    assert running.call("reload_routes") == "OK"


def test_commands_are_listed(running: Proxy) -> None:
    listed = set(running.call("which"))
    for name in ("ds_list", "ds_reload", "ds_set_state", "address_reload", "ps", "uptime"):
        assert listed & {name, mi.NAMES[name]}
    assert "attendant" in {one["Type"] for one in running.call("ps")["Processes"]}


def test_networks_are_listed_apart_from_addresses(running: Proxy) -> None:
    row = "1:1:127.0.0.1:32"
    running.edit("dbtext/address", row, f"2:1:192.0.2.0:24:0:any::\n{row}")
    running.call("dbt_reload")
    running.call("address_reload")
    assert _trusted(running) == ["127.0.0.1"]
    (partition,) = running.call("subnet_dump")["Partitions"]
    (network,) = partition["Destinations"]
    assert (network["ip"], network["mask"]) == ("192.0.2.0", "255.255.255.0")


def test_statistics_are_asked_for_by_bare_name(running: Proxy) -> None:
    counts = running.call("get_statistics", statistics=["active_dialogs"])
    assert counts == {"dialog:active_dialogs": 0}
    assert running.call("get_statistics", statistics=["dialog:active_dialogs"]) == {}
    assert "tm:inuse_transactions" in running.call("get_statistics", statistics=["tm:"])


def _uri(proxy: Proxy, number: int) -> str:
    return f"sip:127.0.0.1:{proxy.port + number}"


def _trusted(proxy: Proxy) -> list[str]:
    (partition,) = proxy.call("address_dump")["Partitions"]
    return [row["ip"] for row in partition["Destinations"] if int(row["grp"]) == 1]
