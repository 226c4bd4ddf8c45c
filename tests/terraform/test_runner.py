"""The runner on the real terraform: binding, one SIGINT, locks, outputs, and plain errors."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from guardian.errors import LOCKED, GuardianError
from guardian.stacks.outputs import Output
from guardian.stacks.plans import Counts
from guardian.stacks.terraform import Root
from tests.support.region import until

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "terraform" / "lab"

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform not on PATH")

SLOW = """
terraform {
  backend "local" {}
}
resource "terraform_data" "first" {
  input = 1
}
resource "terraform_data" "slow" {
  depends_on = [terraform_data.first]
  provisioner "local-exec" {
    command = "exec sleep 60"
  }
}
output "first" {
  value = terraform_data.first.output
}
"""


def root(tmp_path: Path, source: Path = LAB, workspace: str = "lab-local", **more: Any) -> Root:
    work = tmp_path / "runs" / workspace / source.name
    made = Root(source.name, source, work, workspace, tmp_path / "state", "abc", **more)
    made.prepare({})
    return made


def module(tmp_path: Path, text: str, name: str = "stack") -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / name / "main.tf").write_text(text)
    return tmp_path / name


def test_plan_apply_outputs_and_nothing_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Terraform warns on every command when this file is missing; it must not matter.
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(tmp_path / "missing.tfrc"))
    first = root(tmp_path)
    assert first.plan() == Counts(add=2, outputs=7)
    assert first.apply() == Counts(add=2)
    values = first.outputs()
    assert values["rtp_start_port"] == Output(16384)
    assert values["rtp_end_port"] == Output(32768)
    assert not root(tmp_path).plan()
    monkeypatch.setenv("TF_VAR_rtp_end_port", "30000")
    assert root(tmp_path).plan() == Counts(change=1, outputs=2)
    assert not (LAB / ".terraform").exists()


def test_workspaces_do_not_share_a_state(tmp_path: Path) -> None:
    one = root(tmp_path)
    one.plan()
    one.apply()
    assert root(tmp_path, workspace="dev01-use2").plan() == Counts(add=2, outputs=7)


def test_a_plan_is_not_applied_after_the_state_moved(tmp_path: Path) -> None:
    one = root(tmp_path)
    one.plan()
    kept = tmp_path / "kept"
    shutil.copytree(one.work, kept)
    one.apply()
    stale = Root("lab", LAB, kept, "lab-local", tmp_path / "state", "abc", version=one.version)
    with pytest.raises(GuardianError, match=r"serial was 0, is .*; plan again"):
        stale.apply()
    stale.commit = "def"
    with pytest.raises(GuardianError, match="commit was abc, is def"):
        stale.apply()


def test_one_interrupt_saves_the_state_and_frees_the_lock(tmp_path: Path) -> None:
    events: list[str] = []
    slow = root(tmp_path, module(tmp_path, SLOW))
    slow.on_event = lambda stack, event: events.append(
        f"{event.get('type')} {event.get('hook', {}).get('resource', {}).get('addr', '')}"
    )
    slow.plan()
    failed: list[GuardianError] = []

    def apply() -> None:
        try:
            slow.apply()
        except GuardianError as error:
            failed.append(error)

    thread = threading.Thread(target=apply)
    thread.start()
    until(lambda: "provision_start terraform_data.slow" in events, "the slow resource")
    slow.interrupt()
    slow.interrupt()  # the second one must not reach terraform, it would drop the state
    thread.join(30)
    assert failed, "an interrupted apply is not a success"
    state = json.loads((tmp_path / "state" / "lab-local" / "terraform.tfstate").read_text())
    assert "first" in {resource["name"] for resource in state["resources"]}
    assert not list((tmp_path / "state").rglob("*.lock.info"))
    with pytest.raises(GuardianError, match="interrupted before plan"):
        slow.plan()


def test_a_state_held_by_another_is_exit_21(tmp_path: Path) -> None:
    source = module(tmp_path, SLOW)
    holder = root(tmp_path, source)
    started = threading.Event()
    holder.on_event = lambda stack, event: (
        started.set() if event.get("type") == "provision_start" else None
    )
    holder.plan()

    def apply() -> None:
        with pytest.raises(GuardianError):
            holder.apply()

    thread = threading.Thread(target=apply)
    thread.start()
    assert started.wait(30)
    other = Root(
        "stack", source, tmp_path / "other", "lab-local", tmp_path / "state", "abc",
        lock_timeout="1s",
    )  # fmt: skip
    other.prepare({})
    with pytest.raises(GuardianError) as caught:
        other.plan()
    holder.interrupt()
    thread.join(30)
    assert caught.value.code == LOCKED
    assert "state lock" in str(caught.value)


def test_upstream_outputs_reach_only_who_declares_them(tmp_path: Path) -> None:
    text = 'variable "cidr" {}\noutput "seen" {\n  value = var.cidr\n}\n'
    text += 'terraform {\n  backend "local" {}\n}\n'
    reader = Root(
        "reader", module(tmp_path, text), tmp_path / "w", "lab-local", tmp_path / "s", "abc"
    )
    reader.prepare({"cidr": "10.0.0.0/8", "secret": "hidden"})
    reader.plan()
    reader.apply()
    assert reader.outputs() == {"seen": Output("10.0.0.0/8")}
    assert "hidden" not in (reader.work / "upstream.auto.tfvars.json").read_text()
    assert (reader.work / "upstream.auto.tfvars.json").stat().st_mode & 0o777 == 0o600
    reader.discard()
    assert not reader.work.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('resource "terraform_data" "x" {\n  inputt = 1\n}\n', "main.tf:2: Unsupported argument"),
        ('output "x" {\n  value = var.nope\n}\n', "main.tf:2: Reference to undeclared input"),
        ('resource "terraform_data" "x" {\n', "Unclosed configuration block"),
        ('variable "needed" {}\n', "No value for required variable"),
    ],
)
def test_a_mistake_in_a_stack_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    source = module(tmp_path, 'terraform {\n  backend "local" {}\n}\n')
    (source / "main.tf").write_text(text)
    (source / "versions.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    with pytest.raises(GuardianError) as caught:
        root(tmp_path, source).plan()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_is_sensitive_when_terraform_says_so(tmp_path: Path) -> None:
    text = 'terraform {\n  backend "local" {}\n}\n'
    text += 'output "password" {\n  value = "not-a-secret"\n  sensitive = true\n}\n'
    one = root(tmp_path, module(tmp_path, text))
    one.plan()
    one.apply()
    assert one.outputs() == {"password": Output("not-a-secret", sensitive=True)}
    assert "not-a-secret" not in repr(one.outputs())


def test_a_null_output_is_refused(tmp_path: Path) -> None:
    text = 'terraform {\n  backend "local" {}\n}\nresource "terraform_data" "x" {}\n'
    text += 'output "nothing" {\n  value = terraform_data.x.output\n}\n'
    one = root(tmp_path, module(tmp_path, text))
    one.plan()
    one.apply()
    with pytest.raises(GuardianError, match="output 'nothing' is null; nothing was published"):
        one.outputs()


def test_garbage_on_stdout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = root(tmp_path)
    one.plan()
    one.apply()
    real = shutil.which("terraform")
    fake = tmp_path / "bin" / "terraform"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "Warning: hello"\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(GuardianError, match="is not its JSON"):
        one.outputs()


def test_no_terraform_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuardianError, match="terraform: not on PATH; install"):
        root(tmp_path)


@pytest.mark.parametrize(
    "stack",
    sorted(path.parent for path in REPOSITORY.glob("terraform/*/versions.tf")),
    ids=lambda path: path.name,
)
def test_every_stack_is_formatted_and_passes_its_own_tests(tmp_path: Path, stack: Path) -> None:
    copy = tmp_path / stack.name
    shutil.copytree(stack, copy, ignore=shutil.ignore_patterns(".terraform"))
    environment = {**os.environ, "TF_IN_AUTOMATION": "1"}
    environment.pop("TF_CLI_CONFIG_FILE", None)
    for command in ("fmt -check -diff -recursive", "init -input=false", "validate", "test"):
        done = subprocess.run(
            ["terraform", *command.split()],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "0 failed" in done.stdout
