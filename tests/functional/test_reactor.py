"""The reaction to a started minion, rendered by Salt's own reactor from events of all kinds."""

import pytest
import salt.config
import salt.utils.reactor

from tests.support.loading import REPOSITORY

FILE = REPOSITORY / "reactor" / "minion_start.sls"


@pytest.fixture(scope="module")
def react():
    opts = salt.config.DEFAULT_MASTER_OPTS.copy()
    opts["file_client"] = "local"
    reactor = salt.utils.reactor.Reactor(opts)
    reactor.minion_opts = salt.config.DEFAULT_MINION_OPTS.copy()

    def render(minion_id, tag=None):
        event = {"id": minion_id, "cmd": "_minion_event", "data": "x; rm -rf /"}
        tag = f"salt/minion/{minion_id}/start" if tag is None else tag
        return reactor.render_reaction(str(FILE), tag, event)

    return render


def jobs(reaction):
    """{function: what it is given}, for a target that is a list of minion ids."""
    found = {}
    for job in reaction.values():
        *given, function = job["local"]
        found[function] = {key: value for part in given for key, value in part.items()}
    return found


@pytest.mark.parametrize("minion_id", ["sip-01.lab-local", "pbx-02.lab-local", "fsx-01.lab-local"])
def test_lab_host_is_synced_and_configured_when_it_starts(react, minion_id):
    to = {"tgt": minion_id, "tgt_type": "list"}
    reaction = react(minion_id)
    assert jobs(reaction) == {"saltutil.sync_all": to, "state.apply": {**to, "queue": True}}
    assert "rm -rf" not in str(reaction)


@pytest.mark.parametrize("minion_id", ["pbx-0a1b2c3d4e5f67890.prod-euw2", "sip-01.stage-apse2"])
def test_host_that_carries_calls_is_synced_and_left_to_guardian(react, minion_id):
    to = {"tgt": minion_id, "tgt_type": "list"}
    assert jobs(react(minion_id)) == {"saltutil.sync_all": to}


@pytest.mark.parametrize(
    "minion_id",
    ["", "*", "pbx-*.lab-local", "pbx-01", "pbx-01.lab-local\n", "pbx-01.lab-local,x",
     "pbx-01.lab-local or *", "{{ 7*7 }}.lab-local", "$(id).lab-local", "../../etc.lab-local",
     "web-01.lab-local", "PBX-01.lab-local", "pbx-" + "0" * 99 + ".lab-local", None, 7, [], {}],
)  # fmt: skip
def test_id_that_is_not_ours_moves_nothing(react, minion_id):
    assert react(minion_id) == {}


@pytest.mark.parametrize("tag", ["salt/minion/sip-01.lab-local/start", "salt/auth", ""])
def test_event_that_speaks_for_another_moves_nothing(react, tag):
    assert react("pbx-01.lab-local", tag) == {}
