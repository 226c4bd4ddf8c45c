"""Dispatcher: who is in a set is the table's, who is in service is the daemon's."""

from collections.abc import Iterator

import pytest
from os_daemon import Daemon, until

from tests.support.answerer import Answerer

BOTH = pytest.mark.parametrize("database", ["text", "sqlite"])
SQLITE = pytest.mark.parametrize("database", ["sqlite"])
STATE = {"a": 0, "i": 1, "p": 2}


def row(daemon: Daemon, number: int, state: str = "a", **more: object) -> dict[str, object]:
    return {
        "setid": 1, "destination": uri(daemon, number), "state": STATE[state], "probe_mode": 1,
        "attrs": f"pbx-{number}", "description": f"pbx-{number}", **more,
    }  # fmt: skip


def uri(daemon: Daemon, number: int) -> str:
    return f"sip:127.0.0.1:{daemon.port + number}"


def states(daemon: Daemon) -> dict[str, str]:
    (partition,) = daemon.call("ds_list")["PARTITIONS"]
    return {
        one["attr"]: one["state"] for found in partition["SETS"] for one in found["Destinations"]
    }


def set_state(daemon: Daemon, number: int, state: str) -> None:
    assert daemon.call("ds_set_state", state=state, group=1, address=uri(daemon, number)) == "OK"


def saved(daemon: Daemon) -> dict[str, int]:
    """What the sqlite file says of the states."""
    with daemon.sql() as link:
        return dict(link.execute("SELECT attrs, state FROM dispatcher"))


@pytest.fixture
def sets(stopped: Daemon) -> Daemon:
    """Three destinations, states kept in the table, nobody pinged; not started."""
    stopped.module("dispatcher", db_url=stopped.db_url, persistent_state=1)
    stopped.choose = 'if (!ds_select_dst(1, 4, "f")) { send_reply(503, "Nobody"); exit; }'
    stopped.table("dispatcher", row(stopped, 1), row(stopped, 2, "i"), row(stopped, 3, "p"))
    return stopped


@pytest.fixture
def pbx(sets: Daemon) -> Iterator[list[Answerer]]:
    answerers = [Answerer(sets.port + number) for number in (1, 2, 3)]
    yield answerers
    for one in answerers:
        one.close()


@BOTH
def test_table_seeds_the_states(sets: Daemon) -> None:
    sets.start()
    assert states(sets) == {"pbx-1": "Active", "pbx-2": "Inactive", "pbx-3": "Probing"}


@BOTH
def test_states_of_the_table_count_only_where_they_persist(sets: Daemon) -> None:
    """A drain that is written to the table alone is lost without persistent_state."""
    sets.module("dispatcher", persistent_state=0).start()
    assert set(states(sets).values()) == {"Active"}


@BOTH
def test_reload_keeps_states_whatever_the_table_says(sets: Daemon) -> None:
    sets.start()
    set_state(sets, 1, "i")
    sets.table("dispatcher", row(sets, 1), row(sets, 2, "a"), row(sets, 3, "a", weight="5"))
    assert sets.reload("ds_reload") == "OK"
    assert states(sets) == {"pbx-1": "Inactive", "pbx-2": "Inactive", "pbx-3": "Probing"}


@BOTH
def test_reload_without_inheriting_reactivates_who_was_drained(sets: Daemon) -> None:
    sets.start()
    set_state(sets, 1, "i")
    assert sets.reload("ds_reload", inherit_state="n") == "OK"
    assert states(sets) == {"pbx-1": "Active", "pbx-2": "Inactive", "pbx-3": "Probing"}


@BOTH
@pytest.mark.parametrize(("state", "shown"), [("a", "Active"), ("i", "Inactive")])
def test_row_that_comes_back_is_seeded_from_the_table(sets: Daemon, state: str, shown: str) -> None:
    """Removed while drained, it comes back in service unless its row says otherwise."""
    sets.start()
    set_state(sets, 1, "i")
    sets.table("dispatcher", row(sets, 2, "i"))
    assert sets.reload("ds_reload") == "OK"
    assert states(sets) == {"pbx-2": "Inactive"}
    sets.table("dispatcher", row(sets, 1, state), row(sets, 2, "i"))
    assert sets.reload("ds_reload") == "OK"
    assert states(sets)["pbx-1"] == shown


def test_calls_to_a_removed_destination_go_on(sets: Daemon, pbx: list[Answerer]) -> None:
    sets.table("dispatcher", row(sets, 1))
    sets.start()
    with sets.phone() as phone:
        dialog = phone.call()
        sets.table("dispatcher")
        assert sets.reload("ds_reload") == "OK"
        assert phone.invite().status == 503
        assert phone.reinvite(dialog) == 200
        assert phone.hang_up(dialog) == 200
    assert "BYE" in pbx[0].methods()


def test_text_tables_are_cached_until_read_again(sets: Daemon) -> None:
    sets.start()
    sets.table("dispatcher", row(sets, 1))
    assert sets.call("ds_reload") == "OK"
    assert len(states(sets)) == 3
    assert sets.call("dbt_reload") == "OK"
    assert len(states(sets)) == 3
    assert sets.call("ds_reload") == "OK"
    assert len(states(sets)) == 1


@SQLITE
def test_sqlite_is_read_by_the_reload_itself(sets: Daemon) -> None:
    sets.start()
    sets.table("dispatcher", row(sets, 1))
    assert sets.call("ds_reload") == "OK"
    assert list(states(sets)) == ["pbx-1"]


def test_missing_text_table_is_told_by_the_reading_alone(sets: Daemon) -> None:
    sets.start()
    (sets.conf / "dbtext/dispatcher").unlink()
    assert sets.refused("dbt_reload") == (500, "Internal error")
    assert sets.call("ds_reload") == "OK"
    assert len(states(sets)) == 3


@SQLITE
def test_missing_sqlite_table_is_refused_and_the_old_set_stays(sets: Daemon) -> None:
    sets.start()
    with sets.sql() as link:
        link.execute("DROP TABLE dispatcher")
    assert sets.refused("ds_reload") == (500, "ERROR Reloading data")
    assert len(states(sets)) == 3


@SQLITE
def test_drained_stays_drained_over_a_restart(sets: Daemon) -> None:
    """A clean stop writes what changed, so that no wait for the timer is needed."""
    sets.start()
    set_state(sets, 1, "i")
    sets.stop()
    assert saved(sets)["pbx-1"] == STATE["i"]
    sets.start()
    assert states(sets)["pbx-1"] == "Inactive"


@SQLITE
def test_row_rewritten_after_the_drain_was_saved_loses_it_at_the_next_start(sets: Daemon) -> None:
    """Only a state that changed is written: whoever rewrites a row has to write its state."""
    sets.start()
    set_state(sets, 1, "i")
    sets.restart()
    sets.table("dispatcher", row(sets, 1))
    sets.restart()
    assert states(sets) == {"pbx-1": "Active"}


@SQLITE
@pytest.mark.real
def test_state_is_saved_by_a_timer(sets: Daemon) -> None:
    if sets.flavour == "twin":
        pytest.skip("takes half a minute: once, on the real one")
    sets.start()
    set_state(sets, 1, "i")
    until(lambda: saved(sets)["pbx-1"] == STATE["i"], 70.0, 0.5)


def test_text_file_is_overwritten_from_the_cache_at_a_stop(sets: Daemon) -> None:
    """An edit that was not read is lost, where a state has changed and states persist."""
    sets.start()
    set_state(sets, 1, "i")
    sets.table("dispatcher", row(sets, 1, weight="7"))
    sets.stop()
    text = (sets.conf / "dbtext/dispatcher").read_text()
    assert "pbx-3" in text


def test_probing_is_lifted_by_the_first_good_ping_and_inactive_never(
    sets: Daemon, pbx: list[Answerer]
) -> None:
    sets.module("dispatcher", ds_ping_method="OPTIONS", ds_ping_interval=1, ds_probing_mode=1)
    sets.start()
    until(lambda: states(sets)["pbx-3"] == "Active")
    until(lambda: len(pbx[0].requests) > 2)
    assert states(sets)["pbx-2"] == "Inactive"
    assert pbx[1].requests == []


@pytest.mark.parametrize(("codes", "lifted"), [("", False), ("404,503", True)])
def test_answer_that_is_listed_counts_as_alive(
    sets: Daemon, pbx: list[Answerer], codes: str, lifted: bool
) -> None:
    """Listing 503 makes a paused PBX look alive."""
    pbx[2].options = 503
    sets.module("dispatcher", ds_ping_method="OPTIONS", ds_ping_interval=1, ds_probing_mode=1)
    if codes:
        sets.module("dispatcher", options_reply_codes=codes)
    sets.start()
    until(lambda: len(pbx[2].requests) > 1)
    assert (states(sets)["pbx-3"] == "Active") == lifted


def test_all_failing_is_probing_after_so_many_pings(sets: Daemon, pbx: list[Answerer]) -> None:
    pbx[0].options = 503
    sets.module("dispatcher", ds_ping_method="OPTIONS", ds_ping_interval=1, ds_probing_mode=1,
                ds_probing_threshhold=2)  # fmt: skip
    sets.start()
    until(lambda: states(sets)["pbx-1"] == "Probing")
    pbx[0].options = 200
    until(lambda: states(sets)["pbx-1"] == "Active")


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({"state": "x", "group": 1, "address": "sip:1"}, (500, "Bad state value")),
        ({"state": "i", "group": 9, "address": "sip:1"}, (404, "destination not found")),
        ({"state": "i"}, (-32602, "Invalid params")),
        ({"state": "i", "group": 1, "address": "sip:1", "more": 1}, (-32602, "Invalid params")),
    ],
)
def test_wrong_state_commands_are_refused(
    sets: Daemon, params: dict, refusal: tuple[int, str]
) -> None:
    sets.start()
    code, text = sets.refused("ds_set_state", **params)
    assert (code, text.lower()) == (refusal[0], refusal[1].lower())


@pytest.mark.parametrize(
    ("translation", "status"), [("", 500), ("disable_503_translation=yes", 503)]
)
def test_refusal_of_a_paused_pbx(
    sets: Daemon, pbx: list[Answerer], translation: str, status: int
) -> None:
    """Without the option a caller is told 500 and tries no other proxy."""
    sets.table("dispatcher", row(sets, 1))
    sets.core += [translation] if translation else []
    pbx[0].status = 503
    sets.start()
    with sets.phone() as phone:
        assert phone.invite().status == status
