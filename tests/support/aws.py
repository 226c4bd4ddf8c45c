"""AWS on loopback: moto's server in a process of its own, behind what throttles, denies and counts.

Whatever runs under ``Aws.environment`` (this process, a master, minions) talks to it; nothing in
the code under test knows. ``python -m tests.support.aws PORT`` is that process.
"""

from __future__ import annotations

import collections
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.support.ports import free_ports

REGION = "eu-west-2"
ACCOUNT = "123456789012"
PRINCIPAL = f"arn:aws:sts::{ACCOUNT}:assumed-role/guardian-master/i-0a1b2c"
_SERVICES = {
    "AmazonSSM": "ssm",
    "secretsmanager": "secretsmanager",
    "TrentService": "kms",
    "CertificateManager": "acm",
    "AmazonSQS": "sqs",
}
_ERRORS = {
    "throttle": (400, "ThrottlingException", "Rate exceeded"),
    "deny": (400, "AccessDeniedException", "User: {who} is not authorized to perform: {action}"),
    "fail": (500, "InternalServerError", "internal error"),
    "conflict": (409, "ConditionalRequestConflict", "a conflicting operation was in progress"),
}


class Aws:
    """What a test holds of it: clients to fill it, faults to put on it, and what was called."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._clients: dict[tuple[str, str], Any] = {}
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a boto3 client of it, whose calls are counted like all others."""
        import boto3

        if (service, region) in self._clients:
            return self._clients[service, region]
        made = self._clients[service, region] = boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="AKIATESTTESTTESTTEST",
            aws_secret_access_key="not-a-secret",
        )
        return made

    def parameters(self, values: Mapping[str, str], region: str = REGION) -> None:
        """Store SecureString parameters; one that exists gets a new version."""
        client = self.client("ssm", region)
        for name, value in values.items():
            client.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)

    def fault(self, kind: str, action: str = "*", **rule: Any) -> None:
        """Put a fault on calls of ``action`` (such as ``ssm:GetParameters``, or ``ssm:*``).

        ``kind``: throttle, deny, fail, drop (the connection), slow; of S3 also conflict (409), lose
        (done, but its answer dropped), shift (``seconds`` pass). ``times``: how many calls
        before it heals; ``share``: which part of them; ``seconds``: how slow; ``contains``: only
        calls whose body has this text; ``rate``: calls a second that pass (throttle alone);
        ``message``: what a denial says.
        """
        self._ask("faults", {"kind": kind, "action": action, **rule})

    def heal(self) -> None:
        """Take all faults away."""
        self._ask("heal", {})

    def calls(self) -> dict[str, int]:
        """Return how often each action was called since the start or ``forget_calls``."""
        return dict(collections.Counter(call["action"] for call in self.log()))

    def log(self) -> list[dict[str, Any]]:
        """Return every call: action, at (monotonic), outcome, key (access key id), region."""
        found: list[dict[str, Any]] = self._ask("calls")
        return found

    def forget_calls(self) -> None:
        """Begin counting anew."""
        self._ask("forget", {})

    def reset(self) -> None:
        """Empty it: no faults, no calls, nothing stored."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        with _OPENER.open(request, timeout=10):
            pass
        self.heal()
        self.forget_calls()

    def _ask(self, what: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with _OPENER.open(f"{self.url}/_test/{what}", data=data, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def in_memory() -> Iterator[Path]:
    """Yield a directory on tmpfs, where a cache of secrets may be."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def running() -> Iterator[Aws]:
    """Run one; everything it holds ends with the block."""
    port = free_ports()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.aws", str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, "MOTO_ALLOW_NONEXISTENT_REGION": "false"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "moto's server did not start"
        yield Aws(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


class _Faults:
    """The layer in front of moto: a WSGI application around another."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._rules: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._whole = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if path.startswith("/_test/"):
            return self._control(path.removeprefix("/_test/"), body, start)
        environ["wsgi.input"] = _Replay(body)
        if path.startswith("/moto-api"):
            return self._application(environ, start)
        call = _call(environ, body)
        kind, rule = self._verdict(call, body)
        call["outcome"] = kind
        with self._lock:
            self._calls.append(call)
        if kind != "shift" and rule.get("seconds"):
            time.sleep(float(rule.get("seconds", 0)))
        if kind == "lose":
            self._stored(environ, lambda *_: None)
        if kind in ("drop", "lose"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        if kind in _ERRORS:
            return _refused(kind, rule, call, start)
        if kind == "shift":
            start = _shifted(start, float(rule["seconds"]))
        if call["action"].startswith("s3:"):
            return self._stored(environ, start)
        return self._application(environ, start)

    def _stored(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """A call of S3 whole: moto compares, then stores, and lets others in between."""
        with self._whole:
            return list(self._application(environ, start))

    def _control(self, what: str, body: bytes, start: Callable[..., Any]) -> list[bytes]:
        with self._lock:
            if what == "faults":
                self._rules.append(json.loads(body))
            elif what == "heal":
                self._rules.clear()
            elif what == "forget":
                self._calls.clear()
            answer = json.dumps(self._calls if what == "calls" else {}).encode()
        start("200 OK", [("Content-Type", "application/json")])
        return [answer]

    def _verdict(self, call: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
        with self._lock:
            for rule in self._rules:
                if self._applies(rule, call, body):
                    return rule["kind"], rule
        return "ok", {}

    def _applies(self, rule: dict[str, Any], call: dict[str, Any], body: bytes) -> bool:
        wanted, action = rule["action"], call["action"]
        service = f"{action.partition(':')[0]}:*"
        if wanted not in ("*", action, service) or rule.get("times", 1) <= 0:
            return False
        if rule.get("contains", "").encode() not in body:
            return False
        if random.random() >= rule.get("share", 1.0):
            return False
        if "rate" in rule and not self._exceeds(rule, call["at"]):
            return False
        if "times" in rule:
            rule["times"] -= 1
        return True

    def _exceeds(self, rule: dict[str, Any], at: float) -> bool:
        passed = rule.setdefault("_passed", [])
        passed[:] = [moment for moment in passed if moment > at - 1]
        if len(passed) >= rule["rate"]:
            return True
        passed.append(at)
        return False


class _Replay:
    """A request's body, read again by what comes behind."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, count: int = -1) -> bytes:
        count = len(self._body) if count is None or count < 0 else count
        taken, self._body = self._body[:count], self._body[count:]
        return taken

    def readline(self, count: int = -1) -> bytes:
        return self.read(self._body.find(b"\n") + 1 or -1)


def _call(environ: dict[str, Any], body: bytes) -> dict[str, Any]:
    target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
    service = next((ours for theirs, ours in _SERVICES.items() if target.startswith(theirs)), "")
    credential = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    if not service:
        service = credential[3] if len(credential) > 3 else "?"
        operation = parse_qs(body.decode("utf-8", "replace")).get("Action", ["?"])[0]
    if service == "s3":
        method = environ.get("REQUEST_METHOD", "?")
        kind = "Object" if environ.get("PATH_INFO", "").count("/") > 1 else "Bucket"
        operation = f"{method.capitalize()}{kind}"
    return {
        "action": f"{service}:{operation}",
        "at": time.monotonic(),
        "key": credential[0],
        "region": credential[2] if len(credential) > 2 else "",
    }


def _refused(
    kind: str, rule: dict[str, Any], call: dict[str, Any], start: Callable[..., Any]
) -> list[bytes]:
    status, code, words = _ERRORS[kind]
    said = rule.get("message") or words.format(who=PRINCIPAL, action=call["action"])
    if call["action"].startswith("s3:"):
        status = 403 if kind == "deny" else status
        code = {"deny": "AccessDenied", "throttle": "SlowDown", "fail": "InternalError"}.get(
            kind, code
        )
        body = f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()
        start(f"{status} Refused", [("Content-Type", "application/xml")])
    elif call["action"].startswith("sts:"):
        status = 403 if kind == "deny" else status
        code = {"deny": "AccessDenied", "throttle": "Throttling"}.get(kind, code)
        body = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{code}</Code><Message>{said}</Message></Error></ErrorResponse>"
        ).encode()
        start(f"{status} Refused", [("Content-Type", "text/xml")])
    else:
        body = json.dumps({"__type": code, "message": said}).encode()
        start(f"{status} Refused", [("Content-Type", "application/x-amz-json-1.1")])
    return [body]


def _shifted(start: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Answers as they will be when so much time has passed: what is stored is older by it."""

    def answer(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        aged = [
            (name, formatdate(parsedate_to_datetime(value).timestamp() - seconds, usegmt=True))
            if name.lower() == "last-modified"
            else (name, value)
            for name, value in headers
        ]
        return start(status, aged, *rest)

    return answer


def _serve(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # clients keep their connection, as with AWS

        def log_request(self, *_: Any) -> None:
            pass

    for service in (*_SERVICES.values(), "sts", "s3"):
        create_backend_app(service)  # moto imports each at its first call, which may take seconds
    application = _Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
