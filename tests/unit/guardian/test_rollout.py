"""The rollout's invariants under any order of answers, failures, silences, stops and resumes."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from guardian.config import Rollout as Settings
from guardian.fleet.rollout import (
    DONE,
    FAILED,
    HELD,
    PENDING,
    SETTLED,
    UNCHANGED,
    UNKNOWN,
    Call,
    Event,
    Node,
    Rollout,
)
from guardian.ui.summary import end, owed

FAST = Settings(soak=1, poll=1, checks_deadline=3, drain_deadline=10, capacity_deadline=20)


@st.composite
def fleets(draw: st.DrawFn) -> list[Node]:
    found = []
    for role, most in (("pbx", 6), ("sip", 3), ("fsx", 2)):
        for number in range(draw(st.integers(1, most))):
            running = draw(st.booleans()) or draw(st.booleans())
            changes = draw(st.integers(0, 1))
            found.append(
                Node(
                    f"{role}-{number:02d}.w",
                    role,
                    draw(st.sampled_from("ab")),
                    disruption=draw(st.sampled_from(["none", "reload", "restart"])),
                    changes=changes,
                    state="in_service" if running else "out_of_service",
                    running=running,
                    calls=draw(st.integers(0, 50)) if running else 0,
                )
            )
    return found


class RolloutMachine(RuleBasedStateMachine):
    """A model of what the nodes were told, beside the machine that tells them."""

    @initialize(nodes=fleets(), policy=st.sampled_from(["wait", "skip"]))
    def begin(self, nodes: list[Node], policy: str) -> None:
        self.nodes = {node.minion: node for node in nodes}
        changes = {"on_deadline": policy}
        self.settings = Settings(**{**vars(FAST), **changes})  # type: ignore[arg-type]
        self.rollout = Rollout("run", nodes, self.settings)
        self.open: list[tuple[Call, str]] = []
        self.now = 0.0
        self.drained: set[str] = set()
        self.told_to_drain: set[str] = set()
        self.withdrawn: dict[str, set[str]] = {}
        self.begun: set[str] = set()
        self.begun_at_halt: set[str] | None = None
        self.keys: Counter[str] = Counter()
        self.feed("begin")

    def feed(self, kind: str, **fields: object) -> None:
        calls = self.rollout.handle(Event(kind, self.now, **fields))  # type: ignore[arg-type]
        if kind == "resume":
            self.begun_at_halt = None
        for call in calls:
            self.keys[call.key] += 1
            node = self.nodes[call.minion]
            if self.begun_at_halt is not None:
                assert call.minion in self.begun_at_halt, f"{call.key} was begun after the halt"
            self.begun.add(call.minion)
            if call.step == "apply":
                restarts = node.disruption == "restart" and node.state == "in_service"
                if restarts:
                    assert call.minion in self.drained, f"{call.key} without a drain"
                    proxies = [one for one in self.rollout._proxies() if node.role != FAST.proxies]
                    assert set(proxies) <= self.withdrawn.get(call.minion, set())
            if call.step == "drain":
                self.told_to_drain.add(call.minion)
            if call.step == "withdraw":
                self.withdrawn.setdefault(call.minion, set()).update(call.targets)
            self.open += [(call, target) for target in call.targets]
        if self.rollout.halted and self.begun_at_halt is None:
            active = {m for m, track in self.rollout.tracks.items() if track.step != PENDING}
            self.begun_at_halt = active | {call.minion for call, _ in self.open}

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 1000),
        fate=st.sampled_from(["ok"] * 12 + ["no", "lost"]),
        calls=st.integers(0, 3),
    )
    def answer(self, which: int, fate: str, calls: int) -> None:
        call, target = self.open.pop(which % len(self.open))
        self.now += 0.1
        data: dict[str, object] = {}
        if fate == "ok":
            if call.step == "drain":
                data = {"drained": calls == 0, "calls": calls}
                if calls == 0:
                    self.drained.add(call.minion)
            elif call.step == "size":
                data = {"calls": 100}
            elif call.step == "measure":
                data = {"calls": calls}
            elif call.step == "undrain":
                self.drained.discard(call.minion)
                self.told_to_drain.discard(call.minion)
            elif call.step == "restore":
                self.withdrawn[call.minion].discard(target)
        self.feed(
            "returned",
            key=call.key,
            target=target,
            known=fate != "lost",
            ok=fate == "ok",
            data=data,
        )

    @precondition(lambda self: self.rollout.next_due() is not None)
    @rule()
    def tick(self) -> None:
        self.now = max(self.now, self.rollout.next_due() or 0.0)
        self.feed("tick")

    @precondition(lambda self: not self.rollout.halted)
    @rule(rarely=st.integers(0, 30))
    def stop(self, rarely: int) -> None:
        if rarely == 0:
            self.feed("stop", data={"why": "stopped"})

    @precondition(lambda self: self.rollout.finished and self.rollout.halted)
    @rule()
    def resume(self) -> None:
        self.feed("resume")

    @rule(key=st.sampled_from(["pbx-00.w/apply/1", "nobody/apply/1", "pbx-00.w/drain/99", ""]))
    def foreign_return(self, key: str) -> None:
        if not any(call.key == key for call, _ in self.open):
            before = {one: track.step for one, track in self.rollout.tracks.items()}
            self.feed("returned", key=key, target="pbx-00.w")
            after = {one: track.step for one, track in self.rollout.tracks.items()}
            assert before == after

    @invariant()
    def never_more_out_than_the_budget(self) -> None:
        for role in ("pbx", "sip", "fsx"):
            members = [node for node in self.nodes.values() if node.role == role]
            served = [node for node in members if node.state == "in_service"]
            taken = [
                node
                for node in served
                if node.minion in self.told_to_drain or self.withdrawn.get(node.minion)
            ]
            if len(served) > 1:
                allowed = max(1, min(len(members) - 1, len(members) * FAST.max_out // 100))
                assert len(taken) <= allowed, f"{role}: {[node.minion for node in taken]}"
            else:
                assert not taken or len(members) > 1, "a sole node was taken out"

    @invariant()
    def every_drained_node_is_in_hand_or_named(self) -> None:
        for minion in self.told_to_drain | {m for m, on in self.withdrawn.items() if on}:
            track = self.rollout.tracks[minion]
            assert track.active or owed(track), f"{minion} was forgotten in {track.step}"

    @invariant()
    def a_call_is_made_once_and_settled_means_nothing_open(self) -> None:
        for key, count in self.keys.items():
            assert count == 1 or key.split("/")[1] in ("checks", "drain", "soak", "apply"), key
        if self.rollout.finished:
            current = {track.key for track in self.rollout.tracks.values()}
            assert not [call for call, _ in self.open if call.key in current]

    @invariant()
    def the_end_is_honest(self) -> None:
        if not self.rollout.finished:
            return
        steps = {track.step for track in self.rollout.tracks.values()}
        if not self.rollout.halted:
            assert steps <= {DONE, UNCHANGED, HELD}
        assert steps <= SETTLED | {PENDING}
        facts = {"code": 30 if self.rollout.halted else 0, "seconds": 1, "why": "x"}
        screen = "\n".join(end("w-x", "run", self.rollout, facts))
        for track in self.rollout.tracks.values():
            if owed(track):
                assert owed(track) in screen


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(
    max_examples=200,
    stateful_step_count=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def drive(rollout: Rollout, answers: dict[str, dict[str, object]] | None = None) -> list[Call]:
    """Answer every call well until the end; the calls in order."""
    given, made, now = answers or {}, [], 0.0
    open_calls = rollout.handle(Event("begin", now))
    while not rollout.finished:
        if open_calls:
            call = open_calls.pop(0)
            made.append(call)
            data = {"drain": {"drained": True, "calls": 0}, "size": {"calls": 100}}.get(
                call.step, {"calls": 1}
            )
            for target in call.targets:
                event = Event(
                    "returned", now, call.key, target, data={**data, **given.get(call.step, {})}
                )
                open_calls += rollout.handle(event)
        else:
            now = max(now, rollout.next_due() or now + 1)
            open_calls += rollout.handle(Event("tick", now))
    return made


def pbx(number: int, **changes: object) -> Node:
    facts: dict[str, object] = {"disruption": "restart", "changes": 1, "calls": 1, **changes}
    return Node(f"pbx-{number:02d}.w", "pbx", "a", **facts)  # type: ignore[arg-type]


def test_unchanged_nodes_are_left_alone() -> None:
    rollout = Rollout("run", [pbx(1, changes=0), pbx(2, changes=0)], FAST)
    assert drive(rollout) == []
    assert {track.step for track in rollout.tracks.values()} == {UNCHANGED}


def test_a_reload_is_applied_without_a_drain() -> None:
    rollout = Rollout("run", [pbx(1, disruption="reload"), pbx(2, disruption="reload")], FAST)
    steps = [call.step for call in drive(rollout)]
    assert steps == ["apply", "checks", "soak"] * 2


def test_the_proxies_hear_first_and_last() -> None:
    nodes = [pbx(1), pbx(2), Node("sip-01.w", "sip", "a")]
    steps = [call.step for call in drive(Rollout("run", nodes, FAST)) if "01" in call.minion]
    path = ["size", "measure", "withdraw", "drain", "apply", "checks", "undrain", "restore", "soak"]
    assert steps == path


def test_proxies_go_after_the_nodes_behind_them() -> None:
    proxies = [Node(f"sip-0{one}.w", "sip", "a", "restart", 1) for one in (1, 2)]
    calls = drive(Rollout("run", [*proxies, pbx(1), pbx(2)], FAST))
    firsts = list(dict.fromkeys(call.minion for call in calls))
    assert firsts == ["pbx-01.w", "sip-01.w", "pbx-02.w", "sip-02.w"]


def test_waves_grow() -> None:
    rollout = Rollout("run", [pbx(one, disruption="reload") for one in range(40)], FAST)
    rollout.handle(Event("begin", 0.0))
    assert rollout._open[::2] == [1, 2, 10, 27]


def test_capacity_that_does_not_suffice_holds_the_node() -> None:
    rollout = Rollout("run", [pbx(1), pbx(2)], FAST)
    drive(rollout, {"size": {"calls": 10}, "measure": {"calls": 8}})
    assert {track.step for track in rollout.tracks.values()} == {HELD}
    assert "room for 8 calls and 16 calls are up" in rollout.tracks["pbx-01.w"].detail


def test_a_node_an_earlier_run_drained_is_put_back_though_nothing_changes() -> None:
    left = pbx(1, changes=0, debt=True, state="out_of_service")
    rollout = Rollout("run", [left, pbx(2, changes=0), Node("sip-01.w", "sip", "a")], FAST)
    assert [call.step for call in drive(rollout)] == ["checks", "undrain", "restore", "soak"]
    assert rollout.tracks["pbx-01.w"].step == DONE


def test_a_node_somebody_else_drained_is_left_drained() -> None:
    theirs = pbx(1, marked="ann@desk", state="out_of_service")
    rollout = Rollout("run", [theirs, pbx(2, changes=0)], FAST)
    assert [call.step for call in drive(rollout)] == ["apply", "checks", "soak"]


@pytest.mark.parametrize(("policy", "step"), [("wait", None), ("skip", HELD)])
def test_the_deadline_of_a_drain_follows_the_policy(policy: str, step: str | None) -> None:
    settings = Settings(**{**vars(FAST), "on_deadline": policy})  # type: ignore[arg-type]
    rollout = Rollout("run", [pbx(1), pbx(2, changes=0)], settings)
    calls, now = rollout.handle(Event("begin", 0.0)), 0.0
    made: Counter[str] = Counter()
    while now < 60 and not rollout.finished:
        for call in calls:
            made[call.step] += 1
        data = {"drain": {"drained": False, "calls": 2}, "measure": {"calls": 1}}
        calls = [
            new
            for call in calls
            for target in call.targets
            for new in rollout.handle(
                Event("returned", now, call.key, target, data=data.get(call.step, {"calls": 100}))
            )
        ]
        if not calls:
            now = max(now, rollout.next_due() or now)
            calls = rollout.handle(Event("tick", now))
    assert made["apply"] == 0
    if step is None:
        assert rollout.tracks["pbx-01.w"].step == "drain"
        assert made["drain"] > 40
    else:
        assert rollout.tracks["pbx-01.w"].step == step
        assert made["undrain"] == 1
        assert "2 calls still up" in rollout.tracks["pbx-01.w"].detail


def test_a_running_state_is_waited_for_not_failed() -> None:
    rollout = Rollout("run", [pbx(1, disruption="reload")], FAST)
    (call,) = rollout.handle(Event("begin", 0.0))
    assert not rollout.handle(Event("returned", 0.0, call.key, call.minion, data={"busy": True}))
    (again,) = rollout.handle(Event("tick", rollout.next_due() or 0.0))
    assert (again.step, again.key != call.key) == ("apply", True)


@pytest.mark.parametrize(("known", "step"), [(True, FAILED), (False, UNKNOWN)])
def test_a_failure_or_silence_halts(known: bool, step: str) -> None:
    rollout = Rollout("run", [pbx(one, disruption="reload") for one in range(5)], FAST)
    (call,) = rollout.handle(Event("begin", 0.0))
    assert not rollout.handle(
        Event("returned", 0.0, call.key, call.minion, known, False, {"why": "broke"})
    )
    assert rollout.finished
    assert rollout.halted == "pbx-00.w: apply: broke"
    assert rollout.tracks["pbx-00.w"].step == step
