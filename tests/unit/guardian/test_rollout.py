"""The rollout's invariants under any order of answers, failures, silences, stops and resumes."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from guardian.config import Rollout as Settings
from guardian.fleet.rollout import Rollout
from guardian.fleet.track import (
    DONE,
    FAILED,
    HELD,
    PENDING,
    ROUNDS,
    SETTLED,
    UNCHANGED,
    UNKNOWN,
    Call,
    Event,
    Node,
)
from guardian.ui.summary import end, owed

FAST = Settings(
    soak=1,
    poll=1,
    checks_deadline=3,
    drain_deadline=10,
    capacity_deadline=20,
    trial_calls=3,
    judge_calls=10,
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Node]:
    found = []
    for role, most in (("pbx", 6), ("sip", 3), ("fsx", 2)):
        pairs = draw(st.booleans())
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
                    pair=str(number // 2) if pairs else "",
                    left_out=draw(st.sampled_from(["", "", "", "not chosen"])),
                )
            )
    return found


class RolloutMachine(RuleBasedStateMachine):
    """A model of what the nodes were told, beside the machine that tells them."""

    @initialize(nodes=fleets(), policy=st.sampled_from(["wait", "skip", "force"]))
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
        self.pulled: set[str] = set()
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
            node = self.nodes.get(call.minion)
            if node is None:
                assert self.begun_at_halt is None, f"{call.key} was begun after the halt"
                self.open.append((call, ""))
                continue
            if self.begun_at_halt is not None:
                assert call.minion in self.begun_at_halt, f"{call.key} was begun after the halt"
            assert not node.left_out, f"{call.key}: it was to be left alone"
            self.begun.add(call.minion)
            if call.step == "apply" and node.disruptive:
                assert call.minion in self.drained, f"{call.key} without a drain"
                proxies = [one for one in self.rollout._proxies() if node.role != FAST.proxies]
                assert set(proxies) <= self.withdrawn.get(call.minion, set())
            if call.step == "end_calls":
                assert self.settings.on_deadline == "force"
                assert call.minion in self.told_to_drain
            if call.step in ("drain", "pull"):
                self.told_to_drain.add(call.minion)
            if call.step == "pull":
                self.pulled.add(call.minion)
            if call.step == "trial":
                assert call.minion not in self.drained
                if node.role != FAST.proxies:
                    assert self.withdrawn[call.minion], "a trial call before it is given others"
            if call.step == "withdraw":
                self.withdrawn.setdefault(call.minion, set()).update(call.targets)
            if call.step in ROUNDS:
                self.open.append((call, ""))
            else:
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
        if call.step in ROUNDS:
            self.answer_round(call, which, fate, calls)
            return
        data: dict[str, object] = {}
        if fate == "ok":
            if call.step == "drain":
                data = {"drained": calls == 0, "calls": calls}
                if calls == 0:
                    self.drained.add(call.minion)
            elif call.step == "end_calls":
                data = {"ended": calls}
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

    def answer_round(self, call: Call, which: int, fate: str, calls: int) -> None:
        """Most answer; when it goes ill, one of them does not, or all."""
        answers = {}
        for number, target in enumerate(call.targets):
            ill = fate != "ok" and (calls == 3 or number == which % len(call.targets))
            good = {
                "size": {"calls": 100, "registrations": None},
                "measure": {"calls": calls, "registrations": calls},
            }.get(call.step, {})
            if call.step in ("baseline", "judge"):
                count = 20 * (call.step == "judge")
                # A canary that fails half of its calls, now and then.
                own = number == 0 and which > 700
                good = {"since": "1", "gateways_down": [], "registrations": 0}
                good |= {"attempts": count, "failed": count // 2 if own else 0}
            answers[target] = {"known": not ill or fate == "no", "ok": not ill, **good}
        self.feed("round", key=call.key, data=answers)

    @precondition(lambda self: not self.rollout.halted)
    @rule(why=st.sampled_from(["", "", "peak hours"]))
    def peak(self, why: str) -> None:
        self.feed("peak", data={"why": why})

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
            for one, two in itertools.combinations(taken, 2):
                assert not one.pair or one.pair != two.pair, f"both of pair {one.pair} are out"
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
            assert count == 1, key
        if self.rollout.finished:
            current = {track.key for track in self.rollout.tracks.values()}
            assert not [call for call, _ in self.open if call.key in current]
            assert not set(self.rollout.in_flight) & current

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
    max_examples=80,
    stateful_step_count=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


Answers = dict[str, dict[str, object]]
QUIET = {"since": "1", "attempts": 0, "failed": 0, "registrations": 0, "gateways_down": []}
WELL: Answers = {
    "drain": {"drained": True, "calls": 0},
    "size": {"calls": 100},
    "measure": {"calls": 1},
    "baseline": QUIET,
    "judge": QUIET,
}


def events(call: Call, now: float, given: Answers, bad: tuple[str, ...] = ()) -> list[Event]:
    """The answers to a call; of a round one event, and those of `bad` minions are no."""
    data = {**WELL.get(call.step, {}), **given.get(call.step, {})}
    if call.step not in ROUNDS:
        return [Event("returned", now, call.key, target, data=data) for target in call.targets]
    answers = {}
    for target in call.targets:
        own = {**data, **given.get(f"{call.step} {target}", {})}
        answers[target] = {"known": True, "ok": target not in bad, "why": "sick", **own}
    return [Event("round", now, call.key, data=answers)]


def spoiled(rollout: Rollout, calls: list[Call], now: float, step: str, why: str) -> list[str]:
    """Answer every call well until the end, but those of one step; the steps in order."""
    made = []
    while not rollout.finished:
        if not calls:
            now = max(now, rollout.next_due() or now + 1)
            calls = rollout.handle(Event("tick", now))
            continue
        call = calls.pop(0)
        made.append(call.step)
        for event in events(call, now, {}):
            if call.step == step:
                event = replace(event, ok=False, data={"why": why})
            calls += rollout.handle(event)
    return made


def drive(
    rollout: Rollout, answers: Answers | None = None, bad: tuple[str, ...] = ()
) -> list[Call]:
    """Answer every call well until the end; the calls in order."""
    given, made, now = answers or {}, [], 0.0
    open_calls = rollout.handle(Event("begin", now))
    while not rollout.finished:
        if open_calls:
            call = open_calls.pop(0)
            made.append(call)
            for event in events(call, now, given, bad):
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
    canary = ["apply", "checks", "baseline", "soak", "judge"]
    assert steps == [*canary, "gate", "apply", "checks", "soak"]


def test_the_proxies_hear_first_and_last() -> None:
    nodes = [pbx(1), pbx(2), Node("sip-01.w", "sip", "a")]
    steps = [call.step for call in drive(Rollout("run", nodes, FAST)) if "01" in call.minion]
    way = ["withdraw", "drain", "apply", "checks", "undrain", "trial", "restore"]
    assert steps == [*way, "baseline", "soak", "judge"]


def test_proxies_go_after_the_nodes_behind_them() -> None:
    proxies = [Node(f"sip-0{one}.w", "sip", "a", "restart", 1) for one in (1, 2)]
    calls = drive(Rollout("run", [*proxies, pbx(1), pbx(2)], FAST))
    firsts = list(dict.fromkeys(call.minion for call in calls if call.minion.endswith(".w")))
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
    steps = [call.step for call in drive(rollout)]
    assert steps == ["checks", "undrain", "trial", "restore", "soak"]
    assert rollout.tracks["pbx-01.w"].step == DONE


def test_a_node_somebody_else_drained_is_left_drained() -> None:
    theirs = pbx(1, marked="ann@desk", state="out_of_service")
    rollout = Rollout("run", [theirs, pbx(2, changes=0)], FAST)
    steps = [call.step for call in drive(rollout)]
    assert steps == ["apply", "checks", "baseline", "soak", "judge"]


@pytest.mark.parametrize(("policy", "step"), [("wait", None), ("skip", HELD), ("force", None)])
def test_the_deadline_of_a_drain_follows_the_policy(policy: str, step: str | None) -> None:
    settings = Settings(**{**vars(FAST), "on_deadline": policy})  # type: ignore[arg-type]
    rollout = Rollout("run", [pbx(1), pbx(2, changes=0)], settings)
    calls, now = rollout.handle(Event("begin", 0.0)), 0.0
    made: Counter[str] = Counter()
    given: Answers = {"drain": {"drained": False, "calls": 2}, "end_calls": {"ended": 2}}
    while now < 60 and not rollout.finished:
        for call in calls:
            made[call.step] += 1
        calls = [
            new
            for call in calls
            for event in events(call, now, given)
            for new in rollout.handle(event)
        ]
        if not calls:
            now = max(now, rollout.next_due() or now)
            calls = rollout.handle(Event("tick", now))
    track = rollout.tracks["pbx-01.w"]
    assert made["apply"] == 0
    assert (made["end_calls"] > 0) == (policy == "force")
    if step is None:
        assert track.step == "drain"
        assert made["drain"] > 20
        assert track.ended == 2 * made["end_calls"]
    else:
        assert track.step == step
        assert made["undrain"] == 1
        assert "2 calls still up" in track.detail


def test_a_set_is_looked_at_once_for_all_who_may_leave() -> None:
    nodes = [pbx(one) for one in range(40)]
    calls = drive(Rollout("run", nodes, Settings(**{**vars(FAST), "max_out": 50})))  # type: ignore[arg-type]
    looks = [call for call in calls if call.step in ("size", "measure")]
    assert len(looks) < 40
    assert max(len(call.targets) for call in looks) == 40


def test_one_of_a_pair_waits_for_the_other() -> None:
    settings = Settings(**{**vars(FAST), "max_out": 90, "waves": (100,)})  # type: ignore[arg-type]
    nodes = [pbx(one, pair=str(one // 2)) for one in range(6)]
    rollout = Rollout("run", nodes, settings)
    drive(rollout)
    assert {track.step for track in rollout.tracks.values()} == {DONE}


def test_a_silent_peer_offers_no_room_and_is_not_blamed() -> None:
    rollout = Rollout("run", [pbx(1), *(pbx(one, changes=0) for one in (2, 3))], FAST)
    drive(rollout, bad=("pbx-02.w",))
    # What was asked of all, its canary's measures too, goes without the one that is silent.
    assert rollout.tracks["pbx-01.w"].step == DONE


def test_a_silent_node_is_not_touched() -> None:
    rollout = Rollout("run", [pbx(1), pbx(2, changes=0)], FAST)
    calls = drive(rollout, bad=("pbx-01.w",))
    assert {call.step for call in calls} == {"size"}
    assert rollout.tracks["pbx-01.w"].step == FAILED
    assert "sick" in rollout.halted


def test_calls_that_fail_beside_peers_whose_do_not_take_a_canary_out() -> None:
    proxy = Node("sip-01.w", "sip", "a")
    rollout = Rollout("run", [pbx(1), pbx(2), pbx(3), proxy], FAST)
    given: Answers = {
        "judge": {"attempts": 100, "failed": 1},
        "judge pbx-01.w": {"attempts": 100, "failed": 30},
    }
    steps = [call.step for call in drive(rollout, given) if call.minion == "pbx-01.w"]
    assert steps[-3:] == ["judge", "withdraw", "pull"]
    track = rollout.tracks["pbx-01.w"]
    assert (track.step, owed(track)) == (FAILED, "drained, withdrawn on sip-01")
    assert "30 of 100 calls failed (30.0%); 2 peers: 2 of 200 calls failed" in rollout.halted
    assert {rollout.tracks[f"pbx-0{one}.w"].step for one in (2, 3)} == {PENDING}


def test_trial_calls_that_fail_keep_the_node_from_real_ones() -> None:
    rollout = Rollout("run", [pbx(1), pbx(2), Node("sip-01.w", "sip", "a")], FAST)
    made = spoiled(rollout, rollout.handle(Event("begin", 0.0)), 0.0, "trial", "486")
    assert made.count("trial") > 1
    assert "restore" not in made
    assert made[-1] == "pull"
    assert owed(rollout.tracks["pbx-01.w"]) == "drained, withdrawn on sip-01"
    assert rollout.halted == "pbx-01.w: trial: on sip-01.w: 486"


def test_a_wave_waits_until_all_changed_so_far_are_healthy() -> None:
    nodes = [pbx(one, disruption="reload") for one in range(4)]
    rollout = Rollout("run", nodes, FAST)
    calls = drive(rollout, {"gate": {"ok": False}})
    assert [call.step for call in calls if call.step == "apply"] == ["apply"]
    assert calls[-1].step == "gate"
    assert rollout.halted == "after canary proxies: pbx-00.w: sick"
    assert [call.minion for call in calls if call.step == "gate"] == ["fleet"] * 4


def test_a_node_that_failed_is_not_put_back_unseen_when_its_mending_is_stopped() -> None:
    rollout = Rollout("run", [pbx(1), pbx(2, changes=0), Node("sip-01.w", "sip", "a")], FAST)
    spoiled(rollout, rollout.handle(Event("begin", 0.0)), 0.0, "checks", "profile down")
    assert owed(rollout.tracks["pbx-01.w"]) == "drained, withdrawn on sip-01"
    calls = rollout.handle(Event("resume", 100.0))
    calls += rollout.handle(Event("stop", 100.0, data={"why": "the window is closed"}))
    made = spoiled(rollout, calls, 100.0, "checks", "profile down")
    assert "checks" in made
    assert not {"undrain", "restore", "apply"} & set(made)
    assert owed(rollout.tracks["pbx-01.w"]) == "drained, withdrawn on sip-01"


def test_at_peak_hours_reloads_go_on_and_restarts_are_held() -> None:
    nodes = [pbx(1), pbx(2, disruption="reload"), pbx(3, changes=0)]
    rollout = Rollout("run", nodes, FAST)
    rollout.handle(Event("peak", 0.0, data={"why": "calls peak until 19:00"}))
    drive(rollout)
    assert rollout.tracks["pbx-01.w"].step == HELD
    assert "needs a restart, but calls peak until 19:00" in rollout.tracks["pbx-01.w"].detail
    assert rollout.tracks["pbx-02.w"].step == DONE
    assert not rollout.halted


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
