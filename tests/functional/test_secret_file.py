"""A file that holds a secret of pillar, by Salt's own loader: written whole, shown to nobody."""

import json
import os
import stat

import pytest

from tests.functional.minion import Minion

SECRET = "machine repository.example.org login voice password hunter2"


@pytest.fixture
def minion(tmp_path):
    return Minion(tmp_path, "pbx-01.lab-local", [], tmp_path / "pid")


@pytest.fixture
def managed(minion, tmp_path):
    """Apply the state for a value of secret `login`; no value means that pillar has none."""
    file = tmp_path / "auth.conf.d" / "voice.conf"

    def apply(*values, test=False, **arguments):
        minion.give_pillar(
            **({"secret_values": dict.fromkeys(["login"], *values)} if values else {})
        )
        arguments = {"name": str(file), "content": {"secret": "login"}, **arguments}
        answer = minion.caller.cmd("state.single", "secret_file.managed", test=test, **arguments)
        (ret,) = answer.values()
        assert "hunter2" not in json.dumps(ret)
        return ret

    apply.file = file
    return apply


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_life_of_a_file(managed):
    predicted = managed(SECRET, test=True)
    assert predicted["result"] is None
    assert not managed.file.exists()
    first = managed(SECRET)
    assert first["result"] is True
    assert first["changes"] == predicted["changes"] == {str(managed.file): "written"}
    assert managed.file.read_text() == f"{SECRET}\n"
    assert mode(managed.file) == 0o600
    again = managed(SECRET + "\n")
    assert (again["result"], again["changes"]) == (True, {})
    managed.file.chmod(0o644)
    assert managed(SECRET)["changes"]
    assert mode(managed.file) == 0o600
    assert managed("another hunter2")["changes"] == {str(managed.file): "written"}
    assert managed.file.read_text() == "another hunter2\n"
    assert [one.name for one in managed.file.parent.iterdir()] == ["voice.conf"]


def test_optional_secret_that_does_not_exist_is_no_file(managed):
    assert managed(None)["changes"] == {}
    managed(SECRET)
    assert managed(None, test=True)["changes"] == {str(managed.file): "removed"}
    assert managed.file.exists()
    assert managed(None)["result"] is True
    assert not managed.file.exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((), "secret login of"),
        (("",), "is empty or a placeholder"),
        (("None",), "is empty or a placeholder"),
        (("hunter2 **********",), "is masked"),
        (({"password": "hunter2"},), "its secret is no text; refer to a field of it"),
    ],
)
def test_what_is_no_secret_leaves_the_file_as_it_is(managed, values, told):
    managed(SECRET)
    refused = managed(*values)
    assert refused["result"] is False
    assert told in refused["comment"]
    assert refused["changes"] == {}
    assert managed.file.read_text() == f"{SECRET}\n"


def test_file_that_cannot_be_written_is_told_in_one_line(managed, tmp_path):
    (tmp_path / "in-the-way").write_text("")
    refused = managed(SECRET, name=str(tmp_path / "in-the-way" / "voice.conf"))
    assert refused["result"] is False
    assert refused["comment"].startswith(f"cannot write {tmp_path}/in-the-way/voice.conf: ")
    assert "\n" not in refused["comment"]


def test_mode_and_owner_are_kept(managed):
    assert managed(SECRET, mode="0640")["result"] is True
    assert mode(managed.file) == 0o640
    assert managed.file.stat().st_uid == os.geteuid()


def test_state_needs_its_module(minion):
    from tests.support.loading import load

    state = load("_states/secret_file.py", __salt__={})
    assert state.__virtual__() == (
        False,
        "the secret_file execution module is not synced; run saltutil.sync_all",
    )
