"""Clients of AWS that say nothing of what goes over the wire, and calls that end in time."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any

import tenacity
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)

from guardian.secrets.failures import BUSY, DENIED, UNFIT, SecretError

# They log requests and answers, bodies included, at debug.
_TALKATIVE = ("botocore", "boto3", "urllib3", "s3transfer")
_CONNECT, _READ = 2, 3
_CONFIG = Config(
    connect_timeout=_CONNECT,
    read_timeout=_READ,
    retries={"total_max_attempts": 1, "mode": "legacy"},
)
_THROTTLED = re.compile(r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|LimitExceeded")
_EXPIRED = re.compile(r"ExpiredToken")
_DENIED = re.compile(r"AccessDenied|UnrecognizedClient|InvalidClientTokenId|Signature|AuthFailure")
_ARN = re.compile(r"arn:[A-Za-z0-9\-]+:[A-Za-z0-9\-]+:[A-Za-z0-9\-]*:[0-9]*:[\w+=,.@/:*\-]*\w")
_SESSION_SECONDS, _MARGIN = 3600, 300

_clients: dict[tuple[object, ...], tuple[float, Any]] = {}


def hush() -> None:
    """Keep the libraries below from logging, whatever levels were set on whichever of them."""
    for name in [*_TALKATIVE, *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in _TALKATIVE:
            logger = logging.getLogger(name)
            if logger.level < logging.WARNING:
                logger.setLevel(logging.WARNING)


def client(service: str, region: str, role: str = "") -> Any:
    """Return this process's client of a service, as ``role`` (an ARN) where one is to be assumed.

    Raises what botocore raises when the role may not be assumed.
    """
    import boto3

    hush()
    # Connections do not survive a fork; where AWS is may change in between only in tests.
    key = (os.getpid(), service, region, role, os.environ.get("AWS_ENDPOINT_URL"))
    until, known = _clients.get(key, (0.0, None))
    if known is not None and time.monotonic() < until:
        return known
    session = boto3.Session(region_name=region)
    until = float("inf")
    if role:
        given = session.client("sts", config=_CONFIG).assume_role(
            RoleArn=role, RoleSessionName="guardian-secrets", DurationSeconds=_SESSION_SECONDS
        )["Credentials"]
        until = time.monotonic() + _SESSION_SECONDS - _MARGIN
        session = boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=region,
        )
    made = session.client(service, config=_CONFIG)
    _clients[key] = (until, made)
    return made


class Caller:
    """Calls one service in one region as one identity, within a deadline."""

    def __init__(
        self,
        service: str,
        region: str,
        role: str,
        deadline: float,
        pace: Callable[[float], None],
        throttled: Callable[[], None],
    ) -> None:
        self.service, self.region, self.role = service, region, role
        self._deadline, self._pace, self._throttled = deadline, pace, throttled

    def __call__(self, operation: str, **arguments: Any) -> Any:
        """Call, again with jitter while AWS throttles or cannot be reached.

        Raises SecretError (busy) when that lasts until the deadline, and ClientError for what
        another try does not mend.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passing),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=3),
            stop=self._late,
            before_sleep=self._slow_down,
            reraise=True,
        )
        try:
            return retrying(self._once, operation, arguments)
        except ClientError as problem:
            if passing(problem):
                raise SecretError(BUSY, _busy(problem)) from None
            raise
        except BotoCoreError as problem:
            reason = BUSY if passing(problem) else UNFIT
            if isinstance(problem, NoCredentialsError):
                raise SecretError(DENIED, "the master has no AWS credentials") from None
            raise SecretError(reason, f"AWS cannot be asked: {type(problem).__name__}") from None

    def _once(self, operation: str, arguments: dict[str, Any]) -> Any:
        operate = getattr(client(self.service, self.region, self.role), operation)
        self._pace(self._deadline)  # last, or a client that takes long to make bunches calls up
        return operate(**arguments)

    def _late(self, state: tenacity.RetryCallState) -> bool:
        # A call begun now may take as long as its timeouts, and must still end in time.
        wait = state.upcoming_sleep
        return time.monotonic() + wait + _CONNECT + _READ > self._deadline

    def _slow_down(self, state: tenacity.RetryCallState) -> None:
        problem = state.outcome.exception() if state.outcome else None
        if isinstance(problem, ClientError):
            if _THROTTLED.search(code(problem)):
                self._throttled()
            if _EXPIRED.search(code(problem)):
                _clients.clear()


def code(problem: ClientError) -> str:
    """Return AWS's word for what went wrong."""
    return str(problem.response.get("Error", {}).get("Code", "?"))


def denied(problem: ClientError) -> bool:
    """Return whether AWS denies it to who asks."""
    return bool(_DENIED.search(code(problem)))


def refusal(problem: ClientError) -> SecretError:
    """Say why AWS refuses, in one line: its code, and the ARNs it names but none of its words."""
    arns = list(dict.fromkeys(_ARN.findall(str(problem))))
    named = f" ({', '.join(arns)})" if arns else ""
    if denied(problem):
        return SecretError(DENIED, f"denied by AWS: {problem.operation_name}{named}")
    return SecretError(UNFIT, f"refused by AWS: {code(problem)}{named}")


def passing(problem: BaseException) -> bool:
    """Return whether the same call may succeed a moment later."""
    if isinstance(problem, ClientError):
        status = problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or any(one.search(code(problem)) for one in (_THROTTLED, _EXPIRED))
    return isinstance(problem, (HTTPClientError, ConnectionError, CredentialRetrievalError))


def _busy(problem: ClientError) -> str:
    if _THROTTLED.search(code(problem)):
        return f"throttled by AWS ({problem.operation_name}), also when tried again"
    return f"AWS is unwell ({problem.operation_name}: {code(problem)}), also when tried again"
