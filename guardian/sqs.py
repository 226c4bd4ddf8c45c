"""The loop of every engine that reads a queue: what has had its effect is deleted, and no more.

A message may come twice, late and in any order. One that is not understood stays; after as many
tries as the queue allows, its redrive policy puts it aside, among the dead letters.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from guardian.errors import GuardianError

WAIT_SECONDS = 20  # the longest that SQS lets a reader wait
PAUSE_SECONDS = 30.0
# Given the messages, {id: body}, has their effect and returns the ids of those it understood.
Work = Callable[[dict[str, str]], Iterable[str]]

log = logging.getLogger(__name__)


def read_forever(engine: str, queue_url: str, region: str, work: Work) -> NoReturn:
    """Read a queue for ever; what fails is logged in one line and tried again."""
    client = boto3.client("sqs", region_name=region)
    while True:
        try:
            read(engine, client, queue_url, work)
        except (BotoCoreError, ClientError, GuardianError) as err:
            log.error("%s: %s: %s; again in %g s", engine, queue_url, err, PAUSE_SECONDS)
            time.sleep(PAUSE_SECONDS)


def read(engine: str, client: Any, queue_url: str, work: Work) -> None:
    """Read once, up to ten messages, have their effect, delete those that had it.

    Whatever ``work`` raises is raised, and all of them stay.
    """
    answer = client.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=WAIT_SECONDS
    )
    messages = {one["MessageId"]: one for one in answer.get("Messages", [])}
    if not messages:
        return
    done = set(work({name: one["Body"] for name, one in messages.items()}))
    for name, one in messages.items():
        if name in done:
            client.delete_message(QueueUrl=queue_url, ReceiptHandle=one["ReceiptHandle"])
        else:
            # By its id alone: anybody may have written it.
            log.warning("%s: message %s is none of ours; it stays", engine, name)
