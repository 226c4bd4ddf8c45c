"""The screens a tired person reads, and the dresses of progress."""

import io
import json
from pathlib import Path

import pytest

from guardian import runs
from guardian.config import Rollout as Settings
from guardian.errors import GuardianError
from guardian.fleet.rollout import Rollout
from guardian.fleet.track import ROUNDS, Event, Node
from guardian.journal import Journal
from guardian.ui import progress, summary

FAST = Settings(soak=0, poll=1)


def node(name: str, **more: object) -> Node:
    facts: dict[str, object] = {"disruption": "restart", "changes": 1, "calls": 5, **more}
    return Node(f"{name}.prod-euw2", name.partition("-")[0], "a", **facts)  # type: ignore[arg-type]


def broken() -> Rollout:
    """A rollout whose first node was drained of 7 calls and then did not take its configuration."""
    proxy = node("sip-01", changes=0, calls=12)
    rollout = Rollout("run", [node("pbx-01"), node("pbx-02"), proxy], FAST)
    calls, now = rollout.handle(Event("begin", 0.0)), 0.0
    answers = {"drain": {"drained": True, "calls": 7}, "size": {"calls": 100}}
    while calls:
        call, now = calls.pop(0), now + 1
        data = {"why": "state 'configured': bad"} if call.step == "apply" else {"calls": 1}
        data = answers.get(call.step, data)
        if call.step in ROUNDS:
            found = {target: {"known": True, "ok": True, **data} for target in call.targets}
            calls += rollout.handle(Event("round", now, call.key, data=found))
            continue
        for target in call.targets:
            event = Event("returned", now, call.key, target, ok=call.step != "apply", data=data)
            calls += rollout.handle(event)
    return rollout


def test_the_last_screen_of_a_halt_says_what_who_and_what_next() -> None:
    rollout = broken()
    facts = {"code": 30, "why": rollout.halted, "seconds": 75.0, "stacks": {"lab": "no change"}}
    screen = "\n".join(summary.end("prod-euw2", "20261123T220000Z", rollout, facts))
    assert (
        screen
        == """
deploy prod-euw2: HALTED, partly applied after 1 min 15 s   (run 20261123T220000Z, exit 30)
  why:  pbx-01.prod-euw2: apply: state 'configured': bad
  stack lab: no change

  OUT OF SERVICE until they are put back:
    pbx-01  drained, withdrawn on sip-01

    pbx-01  FAILED       apply: state 'configured': bad
    pbx-02  not started
    sip-01  unchanged

  calls: 10 up at the start; waited for 7 on 1 drained node to end by themselves

  next:  guardian resume prod-euw2"""
    )


def test_the_same_for_a_program() -> None:
    found = summary.numbers(broken())
    assert found["nodes"]["pbx-01.prod-euw2"]["owed"] == "drained, withdrawn on sip-01"
    assert (found["changed"], found["restarted"], found["calls"]) == (0, [], 10)
    json.dumps(found)


def test_the_plan_says_what_happens_to_whom() -> None:
    nodes = [
        node("pbx-01", why=("sip-port 5080 -> 5090",)),
        node("pbx-02", state="out_of_service", running=False, calls=0, why=("not installed",)),
        node("sip-01", changes=0, calls=5),
    ]
    lines = summary.plan("prod-euw2", {"lab": "1 to change"}, nodes, proxies="sip")
    assert "  pbx-01  restart    5      yes         drain, restart, put back: " in "\n".join(lines)
    assert "  pbx-02  restart    0      no          not installed" in lines
    assert "  sip-01  unchanged  5      yes         nothing" in lines
    assert lines[-1] == "2 of 3 nodes change; 5 calls up now"


def test_json_lines_are_all_json_with_a_version() -> None:
    out, err = io.StringIO(), io.StringIO()
    with progress.JsonLines(out, err) as ui:
        ui.say("hello")
        ui.stack("lab", "plan")
        ui.node("pbx-01.prod-euw2", "drain", "3 calls left")
        ui.result("end", ["for a person"], code=0)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["say", "stack", "node", "end"]
    assert {line["v"] for line in lines} == {1}
    assert err.getvalue() == ""


def test_plain_lines_keep_progress_off_stdout_and_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.region import until

    monkeypatch.setattr(progress, "_HEARTBEAT", 0.5)
    out, err = io.StringIO(), io.StringIO()
    with progress.Progress(out, err) as ui:
        ui.node("pbx-01.prod-euw2", "drain", "3 calls left")
        ui.node("pbx-01.prod-euw2", "drain", "2 calls left")
        assert err.getvalue().count("\n") == 1
        until(lambda: "still at it" in err.getvalue(), "a heartbeat", 10)
        ui.result("end", ["done"])
    assert "pbx-01 drain (2 calls left)" in err.getvalue()
    assert out.getvalue() == "done\n"


def test_runs_sort_by_time_and_a_stop_is_seen(tmp_path: Path) -> None:
    for moment in (1e9, 1e9, 2e9):
        path = runs.create(tmp_path, lambda moment=moment: moment)  # type: ignore[misc]
        book = Journal(path / "journal.jsonl", path.name, lambda: 1.0)
        book.add("run", by="ann@desk")
        book.close()
    assert len(runs.every(tmp_path)) == 3
    last = runs.latest(tmp_path)
    assert last is not None
    assert last.name.startswith("2033")
    assert not last.finished
    assert runs.stop_requested(last.path) is None
    runs.request_stop(last.path, "bob@desk")
    assert runs.stop_requested(last.path) == "stopped by bob@desk"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GuardianError, match="nothing was started"):
        runs.create(tmp_path / "file" / "runs")
