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
import re
from functools import partial

try:
    from guardian import sqs

    HAS_BOTO = True
except ImportError:
    HAS_BOTO = False

TRANSITIONS = {
    "autoscaling:EC2_INSTANCE_LAUNCHING": "launching",
    "autoscaling:EC2_INSTANCE_TERMINATING": "terminating",
}
INSTANCE = re.compile(r"i-[0-9a-f]{8,32}")


def __virtual__():  # noqa: N807
    if HAS_BOTO:
        return True
    return False, "boto3 is missing from the master's Python"


def start(queue_url, region):
    """Read the queue for ever; an AWS error is logged in one line and tried again."""
    sqs.read_forever("fleet_lifecycle", queue_url, region, partial(fired, __salt__["event.send"]))


def fired(fire, messages):
    """Fire an event, ``fire(tag, data)``, for each message of ours; return the ids of those."""
    done = []
    for name, body in messages.items():
        told = understood(body)
        if told is None:
            continue
        transition, data = told
        if data:
            fire(f"guardian/lifecycle/{transition}", data)
        done.append(name)
    return done


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
