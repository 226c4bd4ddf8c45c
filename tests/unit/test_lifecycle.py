"""Auto Scaling's messages: an event each, deleted after it was fired, and nothing else believed."""

import json
from functools import partial

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from guardian import sqs
from tests.support.loading import load

engine = load("_engines/fleet_lifecycle.py")
QUEUE = "https://sqs.eu-west-2.amazonaws.com/123456789012/voice-lifecycle"
TERMINATING = {
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
    "EC2InstanceId": "i-0a1b2c3d4e5f67890",
    "AutoScalingGroupName": "rt-pbx",
    "LifecycleHookName": "drain",
    "LifecycleActionToken": "71514b9d-6a40-4b26-8523-05e7ee35fa40",
}


class Queue:
    """An SQS client that checks each request against AWS's own model of it."""

    def __init__(self, *bodies):
        self.client = boto3.client(
            "sqs", region_name="eu-west-2", aws_access_key_id="x", aws_secret_access_key="x"
        )
        self.stub = Stubber(self.client)
        messages = [
            {"MessageId": f"m{number}", "ReceiptHandle": f"r{number}", "Body": body}
            for number, body in enumerate(bodies)
        ]
        asked = {"QueueUrl": QUEUE, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}
        self.stub.add_response("receive_message", {"Messages": messages} if messages else {}, asked)
        self.stub.activate()

    def expect_deleted(self, handle=ANY):
        wanted = {"QueueUrl": QUEUE, "ReceiptHandle": handle}
        self.stub.add_response("delete_message", {}, wanted)


def poll(queue, fire):
    sqs.read("fleet_lifecycle", queue.client, QUEUE, partial(engine.fired, fire))


def test_instance_that_ends_is_told_and_its_message_deleted():
    queue, fired = Queue(json.dumps(TERMINATING)), []
    queue.expect_deleted("r0")
    poll(queue, lambda tag, data: fired.append((tag, data)))
    (event,) = fired
    assert event[0] == "guardian/lifecycle/terminating"
    assert event[1] == {
        "instance": "i-0a1b2c3d4e5f67890",
        "group": "rt-pbx",
        "hook": "drain",
        "token": "71514b9d-6a40-4b26-8523-05e7ee35fa40",
    }
    queue.stub.assert_no_pending_responses()


def test_message_stays_when_its_event_could_not_be_fired():
    queue = Queue(json.dumps(TERMINATING))

    def fail(tag, data):
        raise OSError("no bus")

    with pytest.raises(OSError, match="no bus"):
        poll(queue, fail)
    queue.stub.assert_no_pending_responses()


def test_empty_queue():
    queue = Queue()
    poll(queue, pytest.fail)
    queue.stub.assert_no_pending_responses()


def test_auto_scalings_own_test_is_deleted_without_an_event():
    queue = Queue(json.dumps({"Event": "autoscaling:TEST_NOTIFICATION"}))
    queue.expect_deleted("r0")
    poll(queue, pytest.fail)
    queue.stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    "change",
    [
        {"EC2InstanceId": "i-0; reboot"},
        {"EC2InstanceId": ["i-0a1b2c3d"]},
        {"EC2InstanceId": None},
        {"LifecycleTransition": "autoscaling:SOMETHING"},
        {"LifecycleTransition": []},
    ],
)
def test_message_of_another_kind_stays_for_the_dead_letters(change, caplog):
    queue = Queue(json.dumps({**TERMINATING, **change}), json.dumps(TERMINATING))
    queue.expect_deleted("r1")
    fired = []
    poll(queue, lambda tag, data: fired.append(tag))
    assert fired == ["guardian/lifecycle/terminating"]
    queue.stub.assert_no_pending_responses()
    assert "fleet_lifecycle: message m0 is none of ours" in caplog.text
    assert "reboot" not in caplog.text


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_understood_or_not(body):
    told = engine.understood(body)
    assert told is None or told[0] in ("launching", "terminating", "test")
