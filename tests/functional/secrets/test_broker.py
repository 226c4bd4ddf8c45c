"""What the broker asks AWS, for how many, and what it does when AWS does not answer."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest

from guardian.secrets import broker as module
from guardian.secrets.broker import Broker, from_opts
from guardian.secrets.declarations import Source
from guardian.secrets.failures import BUSY, DENIED, NOT_FOUND, SecretError
from guardian.secrets.wants import Want
from tests.support.region import until

REGION = "eu-west-2"
FORK = multiprocessing.get_context("fork")  # as Salt starts its workers


def parameter(name, version="", prefix="", assume=""):
    return Want(Source("parameter", name, version), REGION, assume, prefix)


def dotted(count):
    return [parameter(f"rt.p{number}") for number in range(count)]


def stored(aws, wants):
    aws.parameters({want.source.name: f"value of {want.source.name}" for want in wants})
    aws.forget_calls()


@pytest.fixture
def broker(aws, memory):
    return Broker(memory / "secrets", REGION)


@pytest.fixture
def hasty(monkeypatch):
    """Seconds of patience that leave room for a second of tries."""
    monkeypatch.setattr(module, "PATIENCE", 6.0)


def in_processes(memory, wants, **options):
    """Run one broker in each process for one list of wants, all at once; return what they got."""
    gate, results = FORK.Barrier(len(wants)), FORK.Queue()

    def work(number, mine):
        gate.wait()
        answers = Broker(memory / "secrets", REGION, **options).get(mine)
        results.put((number, {want.source.name: str(answer) for want, answer in answers.items()}))

    workers = [FORK.Process(target=work, args=pair) for pair in enumerate(wants)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    return [found[number] for number in range(len(wants))]


def test_parameters_are_read_in_tens_and_then_from_the_cache(aws, broker):
    wants = dotted(25)
    stored(aws, wants)
    answers = broker.get(wants)
    assert answers == {want: f"value of {want.source.name}" for want in wants}
    assert aws.calls() == {"ssm:GetParameters": 3}
    assert broker.get(wants) == answers
    assert aws.calls() == {"ssm:GetParameters": 3}


def test_warm_answers_cost_next_to_nothing(aws, broker, memory):
    wants = dotted(20)
    stored(aws, wants)
    broker.get(wants)
    spent = []
    for _ in range(9):
        began = time.process_time()
        Broker(memory / "secrets", REGION).get(wants)
        spent.append(time.process_time() - began)
    assert sorted(spent)[4] < 0.01


def test_path_that_a_grant_opens_is_read_at_once_when_much_of_it_is_wanted(aws, broker):
    wants = [
        parameter(f"/voice/prod-euw2/pbx/p{n}", prefix="/voice/prod-euw2/pbx/") for n in range(25)
    ]
    stored(aws, wants)
    broker.get(wants[:4])
    assert aws.calls() == {"ssm:GetParameters": 1}
    broker.get(wants[:20])
    seen = aws.calls()
    assert seen["ssm:GetParameters"] == 1
    broker.get(wants)
    assert aws.calls() == seen, "the rest of the path came along"


def test_path_much_longer_than_what_is_wanted_is_not_read_to_its_end(aws, broker):
    prefix = "/voice/prod-euw2/pbx/"
    aws.parameters({f"{prefix}a{number:03}": "x" for number in range(80)})
    wants = [parameter(f"{prefix}z{number}", prefix=prefix) for number in range(11)]
    stored(aws, wants)
    assert not any(isinstance(one, SecretError) for one in broker.get(wants).values())
    assert aws.calls() == {"ssm:GetParametersByPath": 4, "ssm:GetParameters": 2}


def test_path_that_is_denied_is_read_by_name(aws, broker):
    prefix = "/voice/prod-euw2/pbx/"
    wants = [parameter(f"{prefix}{number}", prefix=prefix) for number in range(11)]
    stored(aws, wants)
    aws.fault("deny", "ssm:GetParametersByPath")
    assert not any(isinstance(one, SecretError) for one in broker.get(wants).values())


def test_versions_of_one_parameter_are_told_apart(aws, broker):
    for value in ("first", "second", "third"):
        aws.parameters({"rt.p": value})
    aws.client("ssm").label_parameter_version(Name="rt.p", ParameterVersion=2, Labels=["good"])
    wants = [parameter("rt.p", version) for version in ("", "1", "good", "9")]
    newest, first, good, gone = broker.get(wants).values()
    assert (newest, first, good) == ("third", "first", "second")
    assert str(gone) == f"gone, or never there, in {REGION}"
    assert gone.reason != NOT_FOUND, "a pin that names nothing is nobody's wish"


def test_many_processes_that_want_the_same_ask_once(aws, memory):
    wants = dotted(20)
    stored(aws, wants)
    answers = in_processes(memory, [wants] * 8)
    assert answers == [{want.source.name: f"value of {want.source.name}" for want in wants}] * 8
    assert aws.calls() == {"ssm:GetParameters": 2}


def test_processes_that_want_different_things_share_calls(aws, memory):
    wants = dotted(40)
    stored(aws, wants)
    aws.fault("slow", "ssm:*", seconds=0.2)
    answers = in_processes(memory, [wants[first : first + 5] for first in range(0, 40, 5)])
    assert {name for one in answers for name in one} == {want.source.name for want in wants}
    assert aws.calls()["ssm:GetParameters"] <= 5, "forty names in tens, and a first one alone"


def test_processes_together_keep_to_the_rate(aws, memory):
    def pinned(role):  # four calls, as an identity that waits for no other
        source = Source("secretsmanager", "x", "AWSCURRENT")
        arn = f"arn:aws:iam::123456789012:role/r{role}"
        return [Want(replace(source, name=f"x{number}"), REGION, arn) for number in range(4)]

    in_processes(memory, [pinned(role) for role in range(4)], rate=8)
    moments = [call["at"] for call in aws.log() if call["action"].startswith("secretsmanager")]
    assert len(moments) == 16
    assert max(moments) - min(moments) > 1.2, "two at once, and eight a second from then on"


def test_process_that_dies_while_it_asks_holds_nobody_up(aws, memory):
    wants = dotted(3)
    stored(aws, wants)
    aws.fault("slow", "ssm:*", seconds=2, times=1)
    first = FORK.Process(target=lambda: Broker(memory / "secrets", REGION).get(wants))
    first.start()
    until(lambda: aws.calls(), "the first to ask")
    os.kill(first.pid, signal.SIGKILL)
    began = time.monotonic()
    assert in_processes(memory, [wants])[0]["rt.p0"] == "value of rt.p0"
    assert time.monotonic() - began < 2
    first.join()
    assert not list((memory / "secrets" / "wanted").rglob("*-*")), "its ticket went with the flight"


def test_values_soon_too_old_come_along_where_a_call_has_room(aws, memory):
    wants = dotted(12)
    stored(aws, wants)
    short = Broker(memory / "secrets", REGION, ttl=4)
    short.get(wants[:5])
    until(lambda: list(short._store.older(2)), "half their time to pass")
    aws.forget_calls()
    began = time.monotonic()
    short.get(wants[5:])
    assert aws.calls() == {"ssm:GetParameters": 1}
    fresh = [want for want in wants if short._store.value(want.name).at > began]
    assert set(fresh) > set(wants[5:])
    assert len(fresh) == 10


@pytest.mark.parametrize("kind", ["throttle", "fail", "drop"])
def test_trouble_that_passes_is_not_noticed(aws, broker, kind):
    wants = dotted(3)
    stored(aws, wants)
    aws.fault(kind, "ssm:*", times=3)
    assert not any(isinstance(one, SecretError) for one in broker.get(wants).values())
    assert aws.calls() == {"ssm:GetParameters": 4}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("throttle", "throttled by AWS (GetParameters), also when tried again"),
        ("fail", "AWS is unwell (GetParameters: InternalServerError)"),
        ("drop", "AWS cannot be asked: ConnectionClosedError"),
        ("slow", "AWS cannot be asked: ReadTimeoutError"),
    ],
)
def test_trouble_that_stays_ends_in_time(aws, broker, hasty, kind, told):
    wants = dotted(2)
    stored(aws, wants)
    aws.fault(kind, "ssm:*", seconds=9 if kind == "slow" else 0)
    began = time.monotonic()
    for answer in broker.get(wants).values():
        assert answer.reason == BUSY
        assert told in str(answer)
    assert time.monotonic() - began < 6


def test_long_trouble_is_remembered_so_that_others_need_not_wait(aws, broker, memory, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 5.2)
    monkeypatch.setattr(module, "_LONG", 0.0)
    stored(aws, dotted(20))
    aws.fault("throttle", "ssm:*")
    broker.get(dotted(1))
    asked = aws.calls()
    began = time.monotonic()
    answers = Broker(memory / "secrets", REGION).get(dotted(20))
    assert time.monotonic() - began < 0.5
    assert {one.reason for one in answers.values()} == {BUSY}
    assert aws.calls() == asked


def test_optional_one_gets_a_stale_value_for_a_while_and_a_required_one_never(aws, memory, hasty):
    wants = dotted(2)
    stored(aws, wants)
    short = Broker(memory / "secrets", REGION, ttl=1, stale=900)
    short.get(wants)
    until(lambda: not short._known(wants), "the values to grow old")
    aws.fault("throttle", "ssm:*")
    answers = short.get(wants, optional={wants[0]})
    assert answers[wants[0]] == "value of rt.p0"
    assert answers[wants[1]].reason == BUSY
    none = Broker(memory / "secrets", REGION, ttl=1, stale=0)
    assert none.get(wants[:1], optional=set(wants))[wants[0]].reason == BUSY


def test_what_was_taken_away_is_not_served_stale(aws, memory):
    wants = dotted(1)
    stored(aws, wants)
    short = Broker(memory / "secrets", REGION, ttl=1)
    short.get(wants)
    until(lambda: not short._known(wants), "the value to grow old")
    aws.fault("deny", "ssm:*")
    assert short.get(wants, optional=set(wants))[wants[0]].reason == DENIED


def test_absence_is_remembered_until_it_is_forgotten(aws, broker):
    wants = dotted(1)
    for _ in range(3):
        assert broker.get(wants)[wants[0]].reason == NOT_FOUND
    assert aws.calls() == {"ssm:GetParameters": 1}
    stored(aws, wants)
    assert broker.get(wants)[wants[0]].reason == NOT_FOUND
    broker.forget(["parameter:rt.p0"])
    assert broker.get(wants)[wants[0]] == "value of rt.p0"


def test_what_changed_is_read_anew_once_it_is_forgotten_and_nothing_else_is(aws, broker):
    wants = dotted(2)
    stored(aws, wants)
    broker.get(wants)
    aws.parameters({"rt.p0": "rotated", "rt.p1": "rotated too"})
    broker.forget(["parameter:rt.p0"])
    assert list(broker.get(wants).values()) == ["rotated", "value of rt.p1"]


def test_answer_that_was_under_way_when_it_was_forgotten_counts_as_old(aws, memory, broker):
    wants = dotted(1)
    stored(aws, wants)
    aws.fault("slow", "ssm:GetParameters", seconds=1, times=1)
    early = FORK.Process(target=lambda: Broker(memory / "secrets", REGION).get(wants))
    early.start()
    until(lambda: aws.calls().get("ssm:GetParameters"), "the first to ask")
    broker.forget(["parameter:rt.p0"])
    early.join()
    aws.parameters({"rt.p0": "rotated"})
    assert broker.get(wants)[wants[0]] == "rotated"


def test_one_name_that_is_denied_keeps_back_no_other(aws, broker):
    wants = dotted(10)
    stored(aws, wants)
    aws.fault(
        "deny",
        "ssm:GetParameters",
        contains='"rt.p7"',
        message=(
            "User: arn:aws:sts::123456789012:assumed-role/master/i-0a is not authorized to perform:"
            " kms:Decrypt on resource: arn:aws:kms:eu-west-2:123456789012:key/0a-1b; hidden-word"
        ),
    )
    answers = broker.get(wants)
    refused = answers.pop(wants[7])
    assert refused.reason == DENIED
    assert str(refused) == (
        "denied by AWS: GetParameters (arn:aws:sts::123456789012:assumed-role/master/i-0a,"
        " arn:aws:kms:eu-west-2:123456789012:key/0a-1b)"
    )
    assert not any(isinstance(one, SecretError) for one in answers.values())
    assert aws.calls()["ssm:GetParameters"] <= 9
    asked = aws.calls()
    assert broker.get(wants)[wants[7]].reason == DENIED
    assert aws.calls() == asked


def test_identities_have_answers_of_their_own(aws, broker):
    role = "arn:aws:iam::210987654321:role/secrets"
    aws.parameters({"rt.p": "of the master's account"})
    own, other = parameter("rt.p"), parameter("rt.p", assume=role)
    answers = broker.get([own, other])
    assert answers[own] == "of the master's account"
    assert answers[other].reason == NOT_FOUND, "it is in the other account that it was sought"
    keys = {call["key"] for call in aws.log() if call["action"] == "ssm:GetParameters"}
    assert len(keys) == 2


def test_role_that_may_not_be_assumed_is_named(aws, broker):
    aws.fault(
        "deny",
        "sts:*",
        message="User: arn:aws:iam::123456789012:user/u is not authorized"
        " to perform: sts:AssumeRole on resource: arn:aws:iam::210987654321:role/other",
    )
    want = parameter("rt.p", assume="arn:aws:iam::210987654321:role/other")
    answer = broker.get([want])[want]
    assert answer.reason == DENIED
    assert "AssumeRole" in str(answer)
    assert "arn:aws:iam::210987654321:role/other" in str(answer)


def test_tree_of_plain_parameters_is_one_answer(aws, broker):
    client = aws.client("ssm")
    for number in range(12):
        client.put_parameter(Name=f"/outputs/prod-euw2/s/o{number}", Value="1", Type="String")
    aws.parameters({"/outputs/prod-euw2/s/secret": "hidden"})
    aws.forget_calls()
    found = broker.tree("/outputs/prod-euw2")
    assert [row.name for row in found if row.version == 1 and row.type == "String"] == [
        one.name for one in found
    ]
    assert len(found) == 12
    asked = aws.calls()
    assert broker.tree("/outputs/prod-euw2/") == found
    assert aws.calls() == asked
    client.put_parameter(Name="/outputs/prod-euw2/s/o1", Value="2", Type="String", Overwrite=True)
    broker.forget(["parameter:/outputs/prod-euw2/s/o1"])
    assert {row.value for row in broker.tree("/outputs/prod-euw2")} == {"1", "2"}
    assert broker.tree("/outputs/stage-euw2") == []


def test_pinned_versions_that_exist_are_found(aws, broker):
    client = aws.client("ssm")
    for value in "ab":
        client.put_parameter(Name="/o/x", Value=value, Type="String", Overwrite=True)
    found = broker.pinned(["/o/x:1", "/o/x:2", "/o/x:7", "/o/y:1"])
    assert {selector: row.value for selector, row in found.items()} == {
        "/o/x:1": "a",
        "/o/x:2": "b",
    }


def test_trees_and_pins_that_are_denied_are_errors(aws, broker):
    aws.fault("deny", "ssm:*")
    with pytest.raises(SecretError, match="parameters below /o: denied by AWS"):
        broker.tree("/o")
    with pytest.raises(SecretError, match="parameter /o/x:1: denied by AWS"):
        broker.pinned(["/o/x:1"])


def test_who_has_a_use_for_what_is_known(aws, broker):
    for minion in ("pbx-01.prod-euw2", "pbx-02.prod-euw2"):
        broker.note(minion, [Source("parameter", "rt.p"), Source("parameter", minion, "3")])
    assert broker.users("parameter:rt.p") == {"pbx-01.prod-euw2", "pbx-02.prod-euw2"}
    assert broker.users("parameter:pbx-01.prod-euw2") == {"pbx-01.prod-euw2"}
    assert broker.users("parameter:other") == set()
    assert len(broker.sources()) == 3


def test_broker_of_a_masters_options(memory, aws):
    options = {
        "grants": "/g",
        "region": REGION,
        "cache": str(memory / "secrets"),
        "dummies": ["lab"],
    }
    found = from_opts({"ext_pillar": [{"fleet_node": True}, {"aws_secrets": options}]})
    assert found.get(dotted(1))[dotted(1)[0]].reason == NOT_FOUND
    assert from_opts({"ext_pillar": [{"fleet_node": True}]}) is None
    assert from_opts({}) is None


@pytest.mark.parametrize(
    "options",
    [{"ttl": 0}, {"ttl": "300"}, {"stale": -1}, {"rate": 40}, {"rate": 0}, {"rate": True}],
)
def test_option_that_makes_no_sense_is_refused(memory, options):
    with pytest.raises(ValueError, match=f"aws_secrets: {next(iter(options))} must be a number"):
        Broker(memory / "secrets", **options)


def test_memory_that_is_full_is_told_in_one_line(aws, broker, memory, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ValueError) as caught:
        broker.get(dotted(1))
    monkeypatch.undo()
    assert str(caught.value) == f"{memory}/secrets: No space left on device; mend or remove it"
