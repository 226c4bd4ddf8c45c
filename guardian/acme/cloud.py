"""Calls to AWS for ACME: with patience, and one line for whatever goes wrong."""

import time
from typing import Any

from botocore.exceptions import ClientError

from guardian.acme.bundle import AcmeError
from guardian.secrets import aws
from guardian.secrets.failures import SecretError

_SECONDS = 20.0


class CloudError(AcmeError):
    """AWS refuses, or cannot be reached; ``reason`` is its word for it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Cloud:
    """One service in one region as one identity; ``what`` begins each error."""

    def __init__(self, service: str, region: str, what: str, role: str = "") -> None:
        self._service, self._region, self._what, self._role = service, region, what, role

    def __call__(self, operation: str, **arguments: Any) -> Any:
        """Call once, or again while AWS throttles; CloudError when that does not help."""
        deadline = time.monotonic() + _SECONDS
        caller = aws.Caller(
            self._service, self._region, self._role, deadline, lambda _: None, lambda: None
        )
        try:
            return caller(operation, **arguments)
        except ClientError as err:
            reason = aws.code(err)
            told = f"{self._what}: {err.operation_name}: {reason}"
            raise CloudError(told, reason) from None
        except SecretError as err:
            raise CloudError(f"{self._what}: {err}", err.reason) from None
