"""AWS clients for what writes secrets: bounded, and silent about what goes over the wire."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from guardian.errors import GuardianError

# botocore logs every request's body and every answer at debug: secrets, in our case.
_TALKATIVE = ("botocore", "boto3", "urllib3", "s3transfer")
_BOUNDED = Config(
    connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 4}
)


class AwsError(GuardianError):
    """AWS refuses, or cannot be reached; ``reason`` is its word for it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def client(service: str, region: str, role: str = "") -> Any:
    """Return a client of a service, as a role of another account where one is named.

    AwsError when the role may not be assumed.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    session = boto3.Session(region_name=region)
    if role:
        with told(f"role {role}"):
            given = session.client("sts", config=_BOUNDED).assume_role(
                RoleArn=role, RoleSessionName="guardian-acme"
            )["Credentials"]
        session = boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=region,
        )
    return session.client(service, config=_BOUNDED)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what AWS has against calls into one line, AwsError, that says what they were about."""
    try:
        yield
    except ClientError as err:
        reason = str(err.response.get("Error", {}).get("Code", "?"))
        raise AwsError(f"{what}: {err.operation_name}: {reason}", reason) from None
    except BotoCoreError as err:
        # Its text may hold an endpoint or a path, never what was sent; its class says enough.
        reason = type(err).__name__
        raise AwsError(f"{what}: AWS cannot be asked: {reason}", reason) from None
