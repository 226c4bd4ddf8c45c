"""One change at a time on a node, and the disruption rule."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

UTILS = str(Path(__file__).resolve().parents[3] / "_utils")
HOLD = """
import sys
sys.path.insert(0, {utils!r})
import nodelock
with nodelock.hold("other.run", path={path!r}):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path):
    path = str(tmp_path / "voice" / "lock")
    program = HOLD.format(utils=UTILS, path=path)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def test_second_holder_is_told_who_holds(nodelock, other):
    path, process = other
    assert nodelock.holder(path)["pid"] == process.pid
    with (
        pytest.raises(nodelock.NodeBusyError, match=rf"held by other.run \(pid {process.pid}\)"),
        nodelock.hold("me", timeout=0.1, path=path),
    ):
        pass
    process.stdin.write("\n")
    process.stdin.flush()
    with nodelock.hold("me", timeout=10, path=path):
        assert nodelock.holder(path)["who"] == "me"
    assert nodelock.holder(path) is None


def test_holder_that_dies_holds_nothing(nodelock, other):
    path, process = other
    process.kill()
    with nodelock.hold("me", timeout=10, path=path):
        pass


def test_same_thread_passes_through_whichever_copy_of_the_file_asks(nodelock, tmp_path):
    """Salt loads the file once for states and once for modules."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("second_copy", Path(UTILS) / "nodelock.py")
    second = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(second)
    path = str(tmp_path / "lock")
    with nodelock.hold("state", path=path), second.hold("module", timeout=0.1, path=path):
        assert nodelock.holder(path)["who"] == "state"
    assert nodelock.holder(path) is None
    assert Path(path).stat().st_mode & 0o777 == 0o640


def test_whoever_only_predicts_waits_for_nobody(nodelock, other):
    path, process = other
    with nodelock.hold("me", timeout=0, path=path, needed=False):
        assert nodelock.holder(path)["pid"] == process.pid
        with pytest.raises(nodelock.NodeBusyError), nodelock.hold("me", timeout=0, path=path):
            pass
    assert nodelock.holder(path)["pid"] == process.pid


def test_nobody_holds_a_lock_that_never_was(nodelock, tmp_path):
    path = tmp_path / "voice" / "lock"
    assert nodelock.holder(str(path)) is None
    assert not path.parent.exists(), "asking makes nothing"


def test_lock_is_let_go_whatever_happens_inside(nodelock, tmp_path):
    path = str(tmp_path / "lock")
    for _ in "ab":
        with pytest.raises(ZeroDivisionError), nodelock.hold("me", timeout=0, path=path):
            with pytest.raises(KeyError), nodelock.hold("me again", timeout=0, path=path):
                raise KeyError
            assert nodelock.holder(path)["who"] == "me", "the inner one was not the last"
            raise ZeroDivisionError
        assert nodelock.holder(path) is None
    assert Path(path).read_text() == "", "and no note of it stays"


@pytest.mark.parametrize("where", ["file/lock", "link", "directory"])
def test_lock_that_cannot_be_opened_names_the_file(nodelock, tmp_path, where):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    path = str(tmp_path / where)
    with pytest.raises(CommandExecutionError) as caught, nodelock.hold("me", timeout=0, path=path):
        pass
    assert not isinstance(caught.value, nodelock.NodeBusyError)
    assert re.fullmatch(rf"{path}: [A-Z][a-z ]+; run as root", str(caught.value))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"pid": 7}', "\0" * 5000])
def test_note_that_cannot_be_read_stops_nobody(nodelock, other, note):
    """A full disk leaves it empty; who waits is told all the same."""
    path, _ = other
    Path(path).write_text(note)
    found = nodelock.holder(path)
    assert found["who"] == "somebody"
    assert found["pid"] == (7 if "7" in note else "?")
    with (
        pytest.raises(nodelock.NodeBusyError, match=r"held by somebody \(pid [7?]\) since \?"),
        nodelock.hold("me", timeout=0, path=path),
    ):
        pass


@pytest.mark.parametrize(
    ("classes", "worst"),
    [([], "none"), (["none", "reload"], "reload"), (["reload", "strange"], "restart")],
)
def test_worst(disruption, classes, worst):
    assert disruption.worst(classes) == worst


@pytest.mark.parametrize("state", ["in_service", "draining", "", None])
def test_only_an_empty_node_is_restarted(disruption, state):
    node = {"state": state}
    assert disruption.allowed("none", node)
    assert disruption.allowed("reload", node)
    assert not disruption.allowed("restart", node)
    assert not disruption.allowed("strange", node)
    assert disruption.allowed("restart", {"state": "out_of_service"})


def test_refusal_says_what_and_what_to_run(disruption):
    why = ["sip-port 5080 -> 5090 (internal)"]
    assert disruption.refusal(why, {"calls": 37}, "lab-local") == (
        "restart needed: sip-port 5080 -> 5090 (internal); 37 calls up; "
        "run `guardian deploy lab-local`"
    )
    assert "1 call up" in disruption.refusal(why, {"calls": 1}, "x")
    assert "calls unknown" in disruption.refusal(why, {"calls": None}, "x")
