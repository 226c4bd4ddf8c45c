"""Faults of stacks: the real terraform on small roots, a stand-in where it cannot be faulted."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from guardian.errors import APPROVAL, FAILED, HALTED, INTERRUPTED, LOCKED, OK
from tests.support.faults import (
    BACKEND,
    LOCKED_OUT,
    QUIET,
    Roots,
    StandIn,
    children,
    diagnostic,
    kill,
)
from tests.support.region import until

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform not on PATH"),
]

# It stops for as long as a file of that name is there.
SLOW = (
    QUIET
    + 'resource "terraform_data" "slow" {\n  depends_on = [terraform_data.kept]\n'
    + '  provisioner "local-exec" {\n    command = "while test -e GATE; do sleep 0.1; done"\n'
    + "  }\n}\n"
)
BROKEN = BACKEND + (
    'resource "terraform_data" "fails" {\n  provisioner "local-exec" {\n    command = "exit 7"\n'
    "  }\n}\n"
)


@pytest.fixture
def slow(tmp_path: Path) -> Roots:
    """One root whose apply waits at a gate."""
    gate(tmp_path).touch()
    return Roots(tmp_path, {"net": (SLOW.replace("GATE", str(gate(tmp_path))), ())})


@pytest.fixture
def replayed(tmp_path: Path) -> tuple[Roots, StandIn]:
    """One root and a stand-in that plans and applies it until it is given faults."""
    roots, stand_in = Roots(tmp_path, {"net": (QUIET, ())}), StandIn(tmp_path)
    roots.env["PATH"] = stand_in.path
    return roots, stand_in


def gate(root: Path) -> Path:
    return root / "gate"


def test_terraform_killed_in_an_apply_loses_nothing_that_was_made(slow: Roots) -> None:
    with slow.started("deploy", slow.workspace, "--yes", "--only", "stacks") as guardian:
        guardian.until("terraform_data.slow start")
        kill(guardian.process.pid, "terraform apply")
        assert guardian.ended() in (FAILED, HALTED)
        assert "stack net: terraform apply: exit code -9" in guardian.said
        assert "guardian" in guardian.said.rpartition("next:")[2]
    # What it left behind is shown where the state is, and freed by nobody but Terraform itself.
    assert slow.state("net").with_name(".terraform.tfstate.lock.info").exists()
    gate(slow.root).unlink()
    code, said = slow.deploy()
    assert code == OK, said
    assert slow.resources("net") == {"kept", "slow"}


def test_a_full_disk_at_the_state_write_keeps_the_state_in_the_run(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a file system of its own")
    fill = f"head -c 9M /dev/zero > {tmp_path}/state/fill || true"
    text = BACKEND + (
        'resource "terraform_data" "big" {\n'
        '  input = join("", [for n in range(1000) : "room for sixteen "])\n'
        f'  provisioner "local-exec" {{\n    command = "{fill}"\n  }}\n}}\n'
    )
    roots = Roots(tmp_path, {"net": (text, ())})
    (tmp_path / "state").mkdir()
    mount = f'mount -t tmpfs -o size=64k none {tmp_path}/state && exec "$@"'
    roots.wrap = ("unshare", "--mount", "sh", "-c", mount, "sh")
    code, said = roots.deploy()
    assert code in (FAILED, HALTED), said
    kept = roots.runs[-1] / "work" / "net" / "errored.tfstate"
    assert f"could not be written and is kept in {kept}" in said
    assert "terraform state push errored.tfstate" in said
    assert "big" in kept.read_text()
    # The words on the screen are the mending of it.
    advice = said.partition("when the backend answers: ")[2].splitlines()[0]
    roots.wrap = ()
    subprocess.run(advice, shell=True, check=True, capture_output=True, timeout=60)  # noqa: S602
    assert roots.resources("net") == {"big"}


def test_the_state_is_waited_for_while_another_holds_it(tmp_path: Path) -> None:
    roots = Roots(tmp_path, {"net": (QUIET, ())})
    assert roots.deploy()[0] == OK
    (tmp_path / "terraform" / "net" / "main.tf").write_text(QUIET.replace("one", "two"))
    with roots.state("net").open("r+") as state:
        fcntl.lockf(state, fcntl.LOCK_EX)
        info = {"ID": "6f0a2f0e", "Who": "mallory@elsewhere", "Created": "2026-11-23T10:00:00Z"}
        held = roots.state("net").with_name(".terraform.tfstate.lock.info")
        held.write_text(json.dumps(info))
        with roots.started("deploy", roots.workspace, "--yes", "--only", "stacks") as guardian:
            guardian.until("stack net: plan")
            waits = "-lock-timeout=60s"
            until(lambda: any(waits in line for _, line in children(guardian.process.pid)), waits)
            held.unlink()
            fcntl.lockf(state, fcntl.LOCK_UN)
            assert guardian.ended() == OK, guardian.said


def test_a_state_that_another_keeps_is_exit_21_and_names_the_owner(
    replayed: tuple[Roots, StandIn],
) -> None:
    roots, stand_in = replayed
    stand_in.faults(plan=[{"out": [LOCKED_OUT], "code": 1}])
    code, said = roots.deploy()
    assert code == LOCKED, said
    assert "Who: mallory@elsewhere" in said
    assert "Created: 2026-11-23 10:00:00" in said
    # Never freed for its owner, never asked again in a loop, nothing applied.
    assert stand_in.calls == ["net init", "net plan"]


def test_a_plan_is_stale_when_the_state_moved_while_it_was_read(tmp_path: Path) -> None:
    roots = Roots(tmp_path, {"net": (QUIET, ())})
    terminal, mine = pty.openpty()
    streams = {"stdin": mine, "stdout": mine, "stderr": mine}
    ask = ("deploy", roots.workspace, "--only", "stacks")
    with roots.started(*ask, **streams) as guardian:
        os.close(mine)
        shown = read_until(terminal, "[y/N]")
        assert "1 to add" in shown
        # Somebody applies the same root meanwhile, as one does who is in a hurry.
        copy = tmp_path / "hurry"
        shutil.copytree(tmp_path / "terraform" / "net", copy)
        backend = f"-backend-config=workspace_dir={tmp_path}/state/net"
        env = {**os.environ, "TF_CLI_CONFIG_FILE": ""}
        terraform = ["terraform"]
        for command in (["init", backend], ["apply", "-auto-approve"]):
            subprocess.run(
                [*terraform, *command, "-input=false"], cwd=copy, check=True, timeout=60,
                capture_output=True,
                env=env if command[0] == "init" else {**env, "TF_WORKSPACE": roots.workspace},
            )  # fmt: skip
        applied = roots.state("net").read_bytes()
        os.write(terminal, b"y\n")
        said = read_until(terminal, "next:")
        assert guardian.ended() in (FAILED, HALTED, APPROVAL)
    assert "plan of stack net: serial was 0, is" in " ".join(said.split())
    assert roots.state("net").read_bytes() == applied


def read_until(terminal: int, text: str) -> str:
    """What a terminal shows, up to these words."""
    shown = b""
    while text.encode() not in shown:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    assert text.encode() in shown, shown.decode(errors="replace")
    return shown.decode(errors="replace")


def test_words_on_stdout_and_a_new_kind_of_event_change_nothing(
    replayed: tuple[Roots, StandIn],
) -> None:
    roots, stand_in = replayed
    odd = ["Warning: a provider prints to stdout", '{"type":"invented_in_1_20","x":[{}]}', "[1]"]
    stand_in.faults(plan=[{"out": odd}], apply=[{"out": odd}])
    code, said = roots.deploy()
    assert code == OK, said
    outputs = roots.root / "outputs" / roots.workspace / "net.json"
    assert json.loads(outputs.read_text()) == {"first": "one"}


def test_a_warning_among_the_outputs_publishes_nothing(replayed: tuple[Roots, StandIn]) -> None:
    roots, stand_in = replayed
    stand_in.faults(output=[{"out": ["Warning: the backend is deprecated"]}])
    code, said = roots.deploy()
    assert code in (FAILED, HALTED), said
    assert "stack net: `terraform output` is not its JSON" in said
    assert not (roots.root / "outputs" / roots.workspace / "net.json").exists()
    stand_in.faults()
    assert roots.deploy()[0] == OK
    assert (roots.root / "outputs" / roots.workspace / "net.json").exists()


def test_an_event_format_of_another_age_is_refused_before_the_apply(
    replayed: tuple[Roots, StandIn],
) -> None:
    roots, stand_in = replayed
    stand_in.faults(plan=[{"ui": "2.0"}])
    code, said = roots.deploy()
    assert code == FAILED, said
    assert "its event format 2.0 is not known" in said
    assert "net apply" not in stand_in.calls


def test_a_throttled_init_is_tried_again(replayed: tuple[Roots, StandIn]) -> None:
    roots, stand_in = replayed
    throttled = "\nError: Failed to query available provider packages\n\n429 TooManyRequests\n"
    stand_in.faults(init=[{"err": throttled, "code": 1}, {}])
    code, said = roots.deploy()
    assert code == OK, said
    assert "stack net: retry (in 1 s: stack net: terraform init:" in said
    assert stand_in.calls[:3] == ["net init", "net init", "net plan"]


def test_a_provider_of_another_checksum_is_fatal_at_once(replayed: tuple[Roots, StandIn]) -> None:
    roots, stand_in = replayed
    wrong = (
        "\nError: Failed to install provider\n\nError while installing hashicorp/aws v6.0.0: "
        "doesn't match any of the checksums recorded in the dependency lock file\n"
    )
    stand_in.faults(init=[{"err": wrong, "code": 1}])
    code, said = roots.deploy()
    assert code == FAILED, said
    assert "stack net: terraform init: Failed to install provider" in said
    assert "checksums recorded in the dependency lock file" in said
    assert stand_in.calls == ["net init"]


def test_an_apply_that_was_throttled_is_never_tried_again(
    replayed: tuple[Roots, StandIn],
) -> None:
    roots, stand_in = replayed
    throttled = diagnostic("creating EC2 Instance", "RequestLimitExceeded: slow down")
    stand_in.faults(apply=[{"out": [throttled], "code": 1}])
    code, said = roots.deploy()
    assert code in (FAILED, HALTED), said
    assert "creating EC2 Instance: RequestLimitExceeded" in said
    assert stand_in.calls.count("net apply") == 1


def test_a_root_that_fails_stops_its_dependents_and_not_its_siblings(tmp_path: Path) -> None:
    roots = Roots(
        tmp_path,
        {
            "network": (QUIET, ()),
            "broken": (BROKEN, ["network"]),
            "sibling": (QUIET, ["network"]),
            "dependent": (QUIET, ["broken"]),
        },
    )
    code, said = roots.deploy()
    assert code in (FAILED, HALTED), said
    assert "stack broken: terraform apply: main.tf:" in said
    assert "local-exec provisioner error" in said
    assert (roots.resources("network"), roots.resources("sibling")) == ({"kept"}, {"kept"})
    assert not roots.state("dependent").exists()
    assert "stack dependent" not in said
    (tmp_path / "terraform" / "broken" / "main.tf").write_text(BROKEN.replace("exit 7", "true"))
    code, said = roots.deploy()
    assert code == OK, said
    assert roots.resources("dependent") == {"kept"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_frees_the_state_and_keeps_what_was_made(slow: Roots, number: int) -> None:
    with slow.started("deploy", slow.workspace, "--yes", "--only", "stacks") as guardian:
        guardian.until("terraform_data.slow start")
        guardian.signal(number)
        assert guardian.ended() == INTERRUPTED, guardian.said
        assert f"guardian resume {slow.workspace}" in guardian.said
    assert slow.journal()[-1]["code"] == INTERRUPTED
    assert slow.resources("net") >= {"kept"}
    assert not list(slow.root.glob("state/**/.*.lock.info"))
    gate(slow.root).unlink()
    code, said = slow.resume()
    assert code == OK, said
    assert slow.resources("net") == {"kept", "slow"}


@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_once_or_more_is_one_sigint_to_terraform(
    replayed: tuple[Roots, StandIn], times: int
) -> None:
    roots, stand_in = replayed
    stand_in.faults(apply=[{"wait": True}, {}])
    with roots.started("deploy", roots.workspace, "--yes", "--only", "stacks") as guardian:
        guardian.until("terraform_data.slow start")
        for _ in range(times):
            guardian.signal(signal.SIGINT)
            until(lambda: "net SIGINT" in stand_in.calls, "the interrupt")
        assert guardian.ended() == INTERRUPTED, guardian.said
        assert "guardian resume" in guardian.said
    until(lambda: "net saved" in stand_in.calls, "the state")
    assert stand_in.calls.count("net SIGINT") == 1
    code, said = roots.resume()
    assert code == OK, said


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["plain", "json"])
def test_a_closed_pipe_ends_no_apply_half_way(slow: Roots, arguments: tuple[str, ...]) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    ask = ("deploy", slow.workspace, "--yes", "--only", "stacks", *arguments)
    with slow.started(*ask, **streams) as guardian:
        pipe = guardian.process.stdout
        assert pipe is not None
        while b"terraform_data.slow start" not in pipe.readline():
            pass
        pipe.close()  # as `guardian deploy … | head` does
        gate(slow.root).unlink()
        assert guardian.ended() == OK
    assert slow.journal()[-1]["type"] == "end"
    assert not list(slow.root.glob("state/**/.*.lock.info"))
    code, said = slow.deploy()
    assert code == OK, said
    assert slow.resources("net") == {"kept", "slow"}


def test_a_terminal_that_is_gone_ends_no_apply_half_way(slow: Roots) -> None:
    terminal, mine = pty.openpty()
    streams = {"stdin": mine, "stdout": mine, "stderr": mine}
    ask = ("deploy", slow.workspace, "--yes", "--only", "stacks")
    with slow.started(*ask, **streams) as guardian:
        os.close(mine)
        read_until(terminal, "slow start")
        os.close(terminal)
        gate(slow.root).unlink()
        assert guardian.ended() == OK
    assert slow.journal()[-1]["code"] == OK
    assert slow.resources("net") == {"kept", "slow"}


def test_outputs_that_cannot_be_published_are_said_and_come_with_the_next_deploy(
    replayed: tuple[Roots, StandIn],
) -> None:
    roots, stand_in = replayed
    path = roots.root / "guardian.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("outputs: outputs", "outputs: {parameters: /g}"))
    roots.env |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "NO_PROXY": "127.0.0.1",
    }
    code, said = roots.deploy()
    assert code in (FAILED, HALTED), said
    assert "/g/dev01-use2/net: GetParametersByPath: EndpointConnectionError" in said
    assert stand_in.calls.count("net apply") == 1
    path.write_text(whole)
    code, said = roots.deploy()
    assert code == OK, said
    assert (roots.root / "outputs" / roots.workspace / "net.json").exists()


def test_the_second_of_two_deploys_is_told_who_holds_the_workspace(slow: Roots) -> None:
    with slow.started("deploy", slow.workspace, "--yes", "--only", "stacks") as guardian:
        guardian.until("terraform_data.slow start")
        code, said = slow.deploy()
        assert code == LOCKED, said
        assert f"pid {guardian.process.pid}" in said
        assert f"guardian status {slow.workspace}" in said
        gate(slow.root).unlink()
        assert guardian.ended() == OK, guardian.said


def test_guardian_killed_in_an_apply_plans_anew_and_applies_nothing_twice(slow: Roots) -> None:
    with slow.started("deploy", slow.workspace, "--yes", "--only", "stacks") as guardian:
        guardian.until("terraform_data.slow start")
        # A host that goes down takes the children with it.
        kill(guardian.process.pid, "terraform apply")
        guardian.signal(signal.SIGKILL)
        guardian.process.wait()
    assert slow.journal()[-1]["type"] == "apply"
    made = made_of(slow)
    assert "killed; nobody holds the lock" in slow.run("status", slow.workspace)[1]
    gate(slow.root).unlink()
    code, said = slow.resume()
    assert code == OK, said
    assert made_of(slow).items() >= made.items()
    assert slow.resources("net") == {"kept", "slow"}


def made_of(roots: Roots) -> dict[str, str]:
    """Identifiers of what the state holds, by name: one that is made twice has another."""
    if not roots.state("net").exists() or not roots.state("net").read_text():
        return {}
    state = json.loads(roots.state("net").read_text())
    return {
        one["name"]: one["instances"][0]["attributes"]["id"]
        for one in state["resources"]
        if not one["instances"][0].get("status")
    }
