"""Turn what Auto Scaling says of its instances into events on the master's bus.

A lifecycle hook of the group sends to an SQS queue; this engine reads it and fires
``guardian/lifecycle/<launching|terminating>`` with ``instance``, ``group``, ``hook`` and ``token``.
A message is deleted after its event was fired, so none is lost; it may come twice.

.. code-block:: yaml

    engines:
      - fleet_lifecycle:
          queue_url: https://sqs.eu-west-2.amazonaws.com/123456789012/voice-lifecycle
          region: eu-west-2
"""

from __future__ import annotations

import json
import logging
import re
import time

try:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    HAS_BOTO = True
except ImportError:
    HAS_BOTO = False

log = logging.getLogger(__name__)

TRANSITIONS = {
    "autoscaling:EC2_INSTANCE_LAUNCHING": "launching",
    "autoscaling:EC2_INSTANCE_TERMINATING": "terminating",
}
INSTANCE = re.compile(r"i-[0-9a-f]{8,32}")
WAIT_SECONDS = 20  # the longest that SQS lets a reader wait
PAUSE_SECONDS = 30.0


def __virtual__():  # noqa: N807
    if HAS_BOTO:
        return True
    return False, "boto3 is missing from the master's Python"


def start(queue_url, region):
    """Read the queue for ever; an AWS error is logged in one line and tried again."""
    client = boto3.client("sqs", region_name=region)
    while True:
        try:
            poll(client, queue_url, __salt__["event.send"])
        except (BotoCoreError, ClientError) as err:
            log.error("fleet_lifecycle: %s: %s; again in %g s", queue_url, err, PAUSE_SECONDS)
            time.sleep(PAUSE_SECONDS)


def poll(client, queue_url, fire):
    """Read once, up to ten messages; return how many events were fired.

    ``fire(tag, data)`` sends one. A message that is none of ours stays, for the queue's dead-letter
    policy to put aside, and is named in the log by its id alone.
    """
    answer = client.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=WAIT_SECONDS
    )
    fired = 0
    for message in answer.get("Messages", []):
        told = understood(message["Body"])
        if told is None:
            log.warning("fleet_lifecycle: message %s is no lifecycle event", message["MessageId"])
            continue
        transition, data = told
        if data:
            fire(f"guardian/lifecycle/{transition}", data)
            fired += 1
        client.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    return fired


def understood(body):
    """Return (transition, data) of a message's text; data is empty for Auto Scaling's own test."""
    try:
        told = json.loads(body)
        if told.get("Event") == "autoscaling:TEST_NOTIFICATION":
            return "test", {}
        instance = told["EC2InstanceId"]
        data = {
            "instance": instance,
            "group": str(told["AutoScalingGroupName"]),
            "hook": str(told["LifecycleHookName"]),
            "token": str(told["LifecycleActionToken"]),
        }
        transition = TRANSITIONS[told["LifecycleTransition"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(instance, str) or not INSTANCE.fullmatch(instance):
        return None
    return transition, data
