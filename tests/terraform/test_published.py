"""`guardian deploy` with outputs in Parameter Store: real terraform, AWS's stand-in."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import aws

REPOSITORY = Path(__file__).resolve().parents[2]
BACKEND = 'terraform {\n  backend "local" {}\n}\n'
NETWORK = """
variable "vpc" {
  default = "vpc-1"
}
output "vpc" {
  value = var.vpc
}
output "token" {
  value     = "canary-${var.vpc}"
  sensitive = true
}
"""
DATABASES = """
variable "vpc" {}
variable "token" {
  sensitive = true
}
output "seen" {
  value = "${var.vpc} ${nonsensitive(length(var.token))}"
}
"""

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform not on PATH")


@pytest.fixture
def stand_in() -> Iterator[aws.Aws]:
    with aws.running() as running:
        yield running


class Workspace:
    """Two stacks of prod-euw2, the second of which reads from the first."""

    def __init__(self, root: Path, stand_in: aws.Aws) -> None:
        self.root, self.aws = root, stand_in
        for name, text in (("network", NETWORK), ("databases", DATABASES)):
            (root / name).mkdir()
            (root / name / "main.tf").write_text(BACKEND + text)
        content = {
            "stacks": {
                "network": {"path": "network"},
                "databases": {"path": "databases", "after": ["network"]},
            },
            "workspaces": {
                "prod-euw2": {
                    "stacks": ["network", "databases"],
                    "master": {"ssh": "master.invalid"},
                    "outputs": {"parameters": "/guardian/outputs"},
                    "state": "state",
                    "runs": "runs",
                }
            },
        }
        (root / "guardian.yaml").write_text(yaml.safe_dump(content))

    def run(self, verb: str, *more: str, **env: str) -> "subprocess.CompletedProcess[str]":
        self.aws.forget_calls()
        config = str(self.root / "guardian.yaml")
        return subprocess.run(
            [sys.executable, "-m", "guardian", "--config", config, verb, "prod-euw2",
             "--only", "stacks", *more],
            cwd=REPOSITORY,
            env={**os.environ, **self.aws.environment, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )  # fmt: skip

    def parameters(self) -> dict[str, object]:
        found = self.aws.client("ssm").get_parameters_by_path(
            Path="/guardian", Recursive=True, WithDecryption=True
        )
        return {one["Name"]: json.loads(one["Value"]) for one in found["Parameters"]}


def test_outputs_go_from_stack_to_stack_through_parameters(
    tmp_path: Path, stand_in: aws.Aws
) -> None:
    space = Workspace(tmp_path, stand_in)
    planned = space.run("plan")
    assert planned.returncode == 10, planned.stderr
    assert "unknown until what it reads from exists" in planned.stdout
    assert "ssm:PutParameter" not in stand_in.calls()

    done = space.run("deploy", "--yes")
    assert done.returncode == 0, done.stderr
    plain, secret = "/guardian/outputs/prod-euw2", "/guardian/outputs-sensitive/prod-euw2"
    assert space.parameters() == {
        f"{plain}/network/vpc": "vpc-1",
        f"{plain}/network/manifest.json": {"outputs": {"vpc": 1}, "sensitive": {"token": 1}},
        f"{plain}/databases/seen": "vpc-1 12",
        f"{plain}/databases/manifest.json": {"outputs": {"seen": 1}, "sensitive": {}},
        f"{secret}/network/token": "canary-vpc-1",
    }
    kept = [file.read_bytes() for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    said = (done.stdout + done.stderr).encode()
    assert not [one for one in [said, *kept] if b"canary-" in one]

    again = space.run("deploy", "--yes")
    assert again.returncode == 0, again.stderr
    assert "ssm:PutParameter" not in stand_in.calls()

    stand_in.fault("throttle", "ssm:*", share=0.3)
    throttled = space.run("deploy", "--yes", TF_VAR_vpc="vpc-2")
    assert throttled.returncode == 0, throttled.stderr
    assert space.parameters()[f"{plain}/databases/seen"] == "vpc-2 12"
    stand_in.heal()

    stand_in.fault("deny", "ssm:PutParameter", contains="/token")
    denied = space.run("deploy", "--yes", TF_VAR_vpc="vpc-3")
    assert denied.returncode == 1
    assert (
        f"stack network: {secret}/network/token: PutParameter: AccessDeniedException; grant it to "
        "whom guardian runs as; not published: token, vpc; readers keep the outputs before"
    ) in denied.stdout + denied.stderr
    stand_in.heal()
    mended = space.run("deploy", "--yes", TF_VAR_vpc="vpc-3")
    assert mended.returncode == 0, mended.stderr
    assert space.parameters()[f"{plain}/databases/seen"] == "vpc-3 12"
