"""What EventBridge says has changed, read from a real queue: believed where it is ours."""

import copy
import itertools
import json
import random
import re
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.events.models import EventPattern

from guardian import rotation, sqs
from guardian.errors import GuardianError
from tests.support.aws import ACCOUNT, REGION, running
from tests.support.loading import REPOSITORY, load

engine = load("_engines/secret_rotation.py", __opts__={})
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:voice/certificates/default-AbC123"
ACM = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/61f50cd4-45b9-4259-b049-d0a53682fa4b"


def event(source, kind, detail, resources=()):
    """An event as EventBridge puts it into a queue."""
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": kind,
        "source": source,
        "account": ACCOUNT,
        "time": "2026-11-25T03:00:00Z",
        "region": REGION,
        "resources": list(resources),
        "detail": detail,
    }


def parameter(name, operation="Update"):
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{name.lstrip('/')}"
    detail = {"operation": operation, "name": name, "type": "SecureString"}
    return event("aws.ssm", "Parameter Store Change", detail, [arn])


def label(arn=SECRET, name="voice/certificates/default"):
    detail = {"name": name, "labelUpdated": "AWSCURRENT", "versionId": "a1b2"}
    return event("aws.secretsmanager", "Secret Label Updated", detail, [arn])


def call(name, asked, **more):
    detail = {"eventSource": "secretsmanager.amazonaws.com", "eventName": name,
              "requestParameters": asked, "responseElements": None, **more}  # fmt: skip
    return event("aws.secretsmanager", "AWS API Call via CloudTrail", detail)


def rotated(name="RotationSucceeded"):
    detail = {"eventSource": "secretsmanager.amazonaws.com", "eventName": name,
              "additionalEventData": {"SecretId": SECRET}}  # fmt: skip
    return event("aws.secretsmanager", "AWS Service Event via CloudTrail", detail)


def certificate(kind="ACM Certificate Available"):
    return event("aws.acm", kind, {"Action": "RENEWAL", "InUse": False}, [ACM])


PUT = {"secretId": "voice/certificates/default", "clientRequestToken": "t"}


@pytest.mark.parametrize(
    ("told", "sources"),
    [
        (parameter("/voice/prod-euw2/pbx/esl-password"),
         {"parameter:/voice/prod-euw2/pbx/esl-password"}),
        (parameter("rt.certificate.default.key", "Create"),
         {"parameter:rt.certificate.default.key"}),
        (parameter("rt.certificate.default.key", "Delete"),
         {"parameter:rt.certificate.default.key"}),
        (parameter("/voice/x", "LabelParameterVersion"), {"parameter:/voice/x"}),
        (label(), {f"secretsmanager:{SECRET}", "secretsmanager:voice/certificates/default"}),
        (call("PutSecretValue", PUT), {"secretsmanager:voice/certificates/default"}),
        (call("UpdateSecretVersionStage", {"secretId": SECRET}), {f"secretsmanager:{SECRET}"}),
        (call("CreateSecret", {"name": "voice/new"}), {"secretsmanager:voice/new"}),
        (rotated(), {f"secretsmanager:{SECRET}"}),
        (certificate(), {f"acm:{ACM}"}),
        # Ours, and nothing that changes a value.
        (call("GetSecretValue", PUT), set()),
        (call("PutSecretValue", PUT, errorCode="AccessDenied"), set()),
        (rotated("RotationStarted"), set()),
    ],
)  # fmt: skip
def test_what_an_event_says_has_changed(told, sources):
    assert rotation.changed(json.dumps(told), ACCOUNT, REGION) == sources


FORGED = [
    "", "null", "[]", "7", '"x"', "{}", "not json", "[" * 100_000, '{"detail": ' * 2000, "\x00",
    *(json.dumps({**parameter("/voice/x"), **change}) for change in (
        {"account": "210987654321"}, {"account": int(ACCOUNT)}, {"account": [ACCOUNT]},
        {"account": None}, {"region": "us-east-2"}, {"region": ""}, {"source": "custom.ssm"},
        {"source": ["aws.ssm"]}, {"source": {}}, {"detail-type": "Parameter Store Policy Action"},
        {"detail": None}, {"detail": []}, {"detail": {}}, {"detail": "name"},
        {"detail": {"name": ""}}, {"detail": {"name": "/voice/x\n/etc"}},
        {"detail": {"name": "*"}}, {"detail": {"name": "{{7*7}}"}}, {"detail": {"name": ["x"]}},
        {"detail": {"name": "x" * 5000}},
    )),
    *(json.dumps(one) for one in (
        label(SECRET.replace(ACCOUNT, "210987654321")), label(SECRET.replace(REGION, "us-east-2")),
        label(ACM), label(name="a b"), {**label(), "resources": []}, {**label(), "resources": None},
        call("PutSecretValue", None), call("PutSecretValue", {}), call("PutSecretValue", []),
        {**call("PutSecretValue", PUT), "detail": {"eventName": "PutSecretValue"}},
        call("PutSecretValue", PUT, eventSource="ssm.amazonaws.com"),
        {**certificate(), "resources": [SECRET]}, {**certificate(), "resources": [None]},
        certificate("ACM Certificate Approaching Expiration"),
    )),
]  # fmt: skip


@pytest.mark.parametrize("body", FORGED)
def test_what_is_forged_or_malformed_says_nothing(body):
    assert rotation.changed(body, ACCOUNT, REGION) is None


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([parameter("/voice/x"), label(), call("PutSecretValue", PUT), rotated()]),
    st.data(),
)
def test_any_change_to_an_event_is_read_or_refused(told, data):
    told = copy.deepcopy(told)
    at = told if data.draw(st.booleans()) else told["detail"]
    anything = st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
    at[data.draw(st.sampled_from(sorted(at)))] = data.draw(anything)
    found = rotation.changed(json.dumps(told), ACCOUNT, REGION)
    assert found is None or all(":" in one for one in found)


class Broker:
    """Who uses what, and what was forgotten."""

    def __init__(self, uses):
        self.uses, self.forgotten = uses, []

    def sources(self):
        return set(self.uses)

    def users(self, source):
        return self.uses.get(source, set())

    def forget(self, sources):
        self.forgotten += sources


@pytest.mark.parametrize(
    "declared",
    ["voice/certificates/default", SECRET, SECRET.removesuffix("-AbC123")],
    ids=["name", "arn", "arn without its suffix"],
)
@pytest.mark.parametrize(
    "told",
    [label(), rotated(), call("PutSecretValue", PUT), call("PutSecretValue", {"secretId": SECRET})],
    ids=["label", "rotation", "put by name", "put by arn"],
)
def test_secret_is_found_by_each_way_of_naming_it(declared, told):
    values = Broker({f"secretsmanager:{declared}": {"pbx-01.prod-euw2"},
                     "secretsmanager:voice/certificates/other": {"pbx-02.prod-euw2"}})  # fmt: skip
    found = rotation.forgotten(values, rotation.changed(json.dumps(told), ACCOUNT, REGION))
    assert found == {"pbx-01.prod-euw2"}
    assert f"secretsmanager:{declared}" in values.forgotten


# -- the queue -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws():
    with running() as aws:
        yield aws


@pytest.fixture
def queue(aws, monkeypatch):
    aws.reset()
    monkeypatch.setattr(sqs, "WAIT_SECONDS", 0)
    return Queue(aws.client("sqs"))


class Queue:
    """A queue with dead letters after two tries, and an engine that reads it."""

    def __init__(self, client):
        self.client = client
        self.dead = client.create_queue(QueueName="dead")["QueueUrl"]
        arn = client.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 2}
        attributes = {"RedrivePolicy": json.dumps(redrive), "VisibilityTimeout": "0"}
        self.url = client.create_queue(QueueName="rotation", Attributes=attributes)["QueueUrl"]
        self.values = Broker({f"parameter:/voice/{n}": {f"pbx-0{n}.prod-euw2"} for n in range(5)})
        self.refreshed = []

    def send(self, *events):
        for one in events:
            body = one if isinstance(one, str) else json.dumps(one)
            self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def read(self, refresh=None):
        refresh = refresh or self.refreshed.append
        work = partial(engine.rotated, self.values, refresh, account=ACCOUNT, region=REGION)
        sqs.read("secret_rotation", self.client, self.url, work)

    def bodies(self, url):
        found = self.client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [one["Body"] for one in found.get("Messages", [])]


def test_only_those_who_use_it_are_refreshed(queue, caplog):
    caplog.set_level("INFO")
    queue.send(parameter("/voice/1"))
    queue.read()
    assert queue.refreshed == [["pbx-01.prod-euw2"]]
    assert queue.values.forgotten == ["parameter:/voice/1"]
    assert queue.bodies(queue.url) == []
    assert "secret_rotation: parameter:/voice/1 changed; refreshed pbx-01.prod-euw2" in caplog.text


def test_what_nobody_uses_is_forgotten_all_the_same(queue):
    queue.send(parameter("/guardian/outputs/prod-euw2/rt-pbx/x"))
    queue.read()
    assert (queue.refreshed, queue.bodies(queue.url)) == ([], [])
    assert queue.values.forgotten == ["parameter:/guardian/outputs/prod-euw2/rt-pbx/x"]


def test_duplicates_in_any_order_come_to_the_same_end(queue):
    events = [parameter(f"/voice/{number}") for number in range(5)] * 3
    random.Random(5).shuffle(events)
    queue.send(*events)
    while (
        queue.client.get_queue_attributes(
            QueueUrl=queue.url, AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]["ApproximateNumberOfMessages"]
        != "0"
    ):
        queue.read()
    everybody = {f"pbx-0{number}.prod-euw2" for number in range(5)}
    assert set(itertools.chain(*queue.refreshed)) == everybody
    # Ten messages are read at once and have their effect at once.
    assert len(queue.refreshed) == 2


def test_message_stays_until_its_effect_was_had(queue):
    queue.send(parameter("/voice/1"))

    def down(minions):
        raise GuardianError("the master does not publish")

    with pytest.raises(GuardianError, match="does not publish"):
        queue.read(down)
    queue.read()
    assert queue.refreshed == [["pbx-01.prod-euw2"]]
    assert queue.bodies(queue.url) == []


def test_broker_that_cannot_forget_is_one_line(queue):
    def broken(sources):
        raise OSError(28, "No space left on device")

    queue.values.forget = broken
    queue.send(parameter("/voice/1"))
    with pytest.raises(GuardianError, match=r"the broker does not forget: .*No space left"):
        queue.read()
    assert len(queue.bodies(queue.url)) == 1


def test_poison_goes_to_the_dead_letters_and_holds_nobody_up(queue, caplog):
    poison = json.dumps({**parameter("/voice/0"), "account": "210987654321"})
    queue.send(poison, parameter("/voice/1"), "no json, but a password: hunter2")
    queue.read()
    assert queue.refreshed == [["pbx-01.prod-euw2"]]
    for _ in range(3):
        queue.read()
    assert queue.refreshed == [["pbx-01.prod-euw2"]]
    assert queue.bodies(queue.url) == []
    assert sorted(queue.bodies(queue.dead)) == ["no json, but a password: hunter2", poison]
    assert "is none of ours; it stays" in caplog.text
    assert "hunter2" not in caplog.text


def test_queue_that_cannot_be_read_is_tried_again(aws, queue, monkeypatch, caplog):
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    aws.fault("deny", "sqs:ReceiveMessage", times=1)
    queue.send(parameter("/voice/1"))

    pauses = []
    monkeypatch.setattr(sqs.time, "sleep", pauses.append)

    def work(messages):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sqs.read_forever("secret_rotation", queue.url, REGION, work)
    assert pauses == [sqs.PAUSE_SECONDS]
    (line,) = [one for one in caplog.messages if "again in" in one]
    assert line.startswith(f"secret_rotation: {queue.url}: ")


def test_engine_without_a_broker_says_so():
    with pytest.raises(ValueError, match="ext_pillar has no aws_secrets"):
        engine.start(queue_url="q", region=REGION, account=ACCOUNT)


# -- the rules that the docs give for EventBridge ------------------------------------------------

DOCS = (REPOSITORY / "docs" / "certificates.md").read_text()
RULES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)]


def matched(told):
    """How many of the rules send an event to the queue."""
    return sum(EventPattern.load(json.dumps(rule)).matches_event(told) for rule in RULES)


@pytest.mark.parametrize(
    "told", [parameter("/voice/x"), label(), certificate(), call("PutSecretValue", PUT), rotated()]
)
def test_rules_of_the_docs_send_what_the_engine_understands(told):
    assert rotation.changed(json.dumps(told), ACCOUNT, REGION)
    assert matched(told) == 1


@pytest.mark.parametrize(
    "told",
    [
        certificate("ACM Certificate Approaching Expiration"),
        call("GetSecretValue", PUT),
        rotated("RotationStarted"),
        event("aws.ssm", "EC2 Command Status-change Notification", {}),
    ],
)
def test_rules_of_the_docs_send_nothing_else(told):
    assert matched(told) == 0


def test_rules_of_the_docs_name_every_call_that_changes_a_secret():
    (names,) = [set(rule["detail"]["eventName"]) for rule in RULES if "detail" in rule]
    assert names == {*rotation._CHANGES, "RotationSucceeded"}
