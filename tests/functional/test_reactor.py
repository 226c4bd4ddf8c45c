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


@pytest.mark.parametrize("minion_id", ["sip-01.lab-local", "pbx-02.lab-local", "fsx-01.lab-local"])
def test_lab_host_is_configured_when_it_starts(react, minion_id):
    (reaction,) = react(minion_id).values()
    *given, function = reaction["local"]
    assert function == "state.apply"
    assert given == [{"tgt": minion_id}, {"tgt_type": "list"}, {"queue": True}]
    assert "rm -rf" not in str(reaction)


@pytest.mark.parametrize(
    "minion_id",
    ["", "*", "pbx-*.lab-local", "pbx-01.prod-euw2", "pbx-01.lab-local\n", "pbx-01.lab-local,x",
     "pbx-01.lab-local or *", "{{ 7*7 }}.lab-local", "$(id).lab-local", "../../etc.lab-local",
     "web-01.lab-local", "PBX-01.lab-local", "pbx-" + "0" * 99 + ".lab-local", None, 7, [], {}],
)  # fmt: skip
def test_id_that_is_not_ours_moves_nothing(react, minion_id):
    assert react(minion_id) == {}


@pytest.mark.parametrize("tag", ["salt/minion/sip-01.lab-local/start", "salt/auth", ""])
def test_event_that_speaks_for_another_moves_nothing(react, tag):
    assert react("pbx-01.lab-local", tag) == {}
