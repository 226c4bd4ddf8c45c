"""The whole command against real Salt and a fake voice daemon: what a person sees."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.region import REPOSITORY, Region, until

pytestmark = pytest.mark.timeout(180)


def command(region: Region, *arguments: str) -> list[str]:
    config = str(region.root / "guardian.yaml")
    return [sys.executable, "-m", "guardian", "--config", config, *arguments]


def guardian(region: Region, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(region, *arguments),
        cwd=REPOSITORY,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )


def at_rest(region: Region, rtp: int) -> None:
    for host in region.hosts:
        node = region.node(host)
        assert node["config"]["rtp"] == rtp, host
        assert not node["paused"], host
        assert not node.get("withdrawn"), host


def test_plan_deploy_and_a_second_deploy(fresh: Region) -> None:
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", calls=3)
    fresh.node("pbx-02", calls=2)

    planned = guardian(fresh, "plan", fresh.workspace)
    assert planned.returncode == 10, planned.stderr
    assert "2 to add" in planned.stdout
    assert "drain, restart, put back: rtp: 16384 -> 20000" in planned.stdout
    assert "3 of 3 nodes change; 5 calls up now" in planned.stdout
    assert not fresh.log("apply", "drain")
    assert not (fresh.root / "outputs").exists()

    waiting = guardian(fresh, "deploy", fresh.workspace)
    assert waiting.returncode == 20, waiting.stderr
    assert not fresh.log("apply", "drain")

    done = guardian(fresh, "deploy", fresh.workspace, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    at_rest(fresh, 20000)
    of_one = [entry for entry in fresh.log() if "pbx-01" in entry]
    assert [entry[1] for entry in of_one] == [
        "withdraw", "drain", "apply", "checks", "undrain", "restore",
    ]  # fmt: skip
    assert "waited for 5 on" in done.stdout
    outputs = json.loads((fresh.root / "outputs/dev01-use2/lab.json").read_text())
    assert outputs["rtp_start_port"] == 16384

    fresh.forget()
    again = guardian(fresh, "deploy", fresh.workspace, "--yes", "--json")
    assert again.returncode == 0, again.stderr
    assert fresh.log() == []
    last = json.loads(again.stdout.splitlines()[-1])
    assert (last["type"], last["v"], last["changed"], last["restarted"]) == ("end", 1, 0, [])


@pytest.mark.parametrize("moment", ["drain", "apply"])
def test_killed_and_resumed(fresh: Region, moment: str) -> None:
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", calls=8, slow=3)
    with (fresh.root / "deploy.log").open("w") as log:
        running = subprocess.Popen(
            command(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet"),
            cwd=REPOSITORY, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    until(lambda: ["pbx-01", moment] in [one[:2] for one in fresh.log()], moment, 60)
    locked = guardian(fresh, "deploy", fresh.workspace, "--yes")
    assert (locked.returncode, f"pid {running.pid}" in locked.stderr) == (21, True)
    running.send_signal(signal.SIGKILL)
    running.wait()

    status = guardian(fresh, "status", fresh.workspace)
    assert "killed; nobody holds the lock" in status.stdout
    assert "OUT OF SERVICE" in status.stdout
    assert "guardian resume dev01-use2" in status.stdout
    refused = guardian(fresh, "deploy", fresh.workspace, "--yes")
    assert refused.returncode == 30
    assert "left pbx-01.dev01-use2 out of service" in refused.stderr

    done = guardian(fresh, "resume", fresh.workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    at_rest(fresh, 20000)
    applies = [entry for entry in fresh.log("apply") if entry[0] == "pbx-01"]
    assert len(applies) == 1


def test_a_failed_node_stays_out_is_named_and_resume_mends(fresh: Region) -> None:
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", breaks=True)
    done = guardian(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet")
    assert done.returncode == 30, done.stdout + done.stderr
    assert "the new configuration does not boot" in done.stdout
    assert "pbx-01  drained, withdrawn on sip-01" in done.stdout
    assert "next:  guardian resume dev01-use2" in done.stdout
    assert fresh.node("pbx-01")["paused"]
    assert not fresh.node("pbx-02")["paused"]
    assert fresh.node("pbx-02")["config"]["rtp"] == 16384

    fresh.node("pbx-01", breaks=False)
    mended = guardian(fresh, "resume", fresh.workspace)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    at_rest(fresh, 20000)


def test_ctrl_c_puts_back_and_resume_goes_on(fresh: Region) -> None:
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", calls=5, stuck=True)
    with (fresh.root / "deploy.log").open("w+") as log:
        running = subprocess.Popen(
            command(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet"),
            cwd=REPOSITORY, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: fresh.log("drain"), "the drain", 60)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        log.seek(0)
        assert "INTERRUPTED" in log.read()
    assert not fresh.node("pbx-01")["paused"]
    assert not fresh.log("apply")
    fresh.node("pbx-01", stuck=False)
    assert guardian(fresh, "resume", fresh.workspace).returncode == 0
    at_rest(fresh, 20000)


def committed(region: Region, message: str) -> str:
    """Commit what the region's master serves; the commit."""
    git = ["git", "-C", str(region.root), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    if not (region.root / ".git").exists():
        subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "files", "pillar"], check=True)
    subprocess.run([*git, "commit", "-qm", message], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def test_an_earlier_commit_is_deployed_through_the_same_gates(fresh: Region) -> None:
    refused = guardian(fresh, "deploy", fresh.workspace, "--at", "HEAD", "--yes")
    assert (refused.returncode, "set master.releases" in refused.stderr) == (2, True)

    fresh.config(releases=True)
    fresh.pillar({"rtp": 16384})
    before = committed(fresh, "the range as it was")
    fresh.pillar({"rtp": 20000})
    committed(fresh, "another range")
    done = guardian(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet")
    assert done.returncode == 0, done.stdout + done.stderr
    at_rest(fresh, 20000)

    nowhere = guardian(fresh, "deploy", fresh.workspace, "--at", "no-such", "--yes")
    assert (nowhere.returncode, "no commit of" in nowhere.stderr) == (2, True)
    fresh.forget()
    back = guardian(
        fresh, "deploy", fresh.workspace, "--at", "HEAD~1", "--yes", "--only", "fleet", "--json"
    )
    assert back.returncode == 0, back.stdout + back.stderr
    at_rest(fresh, 16384)
    steps = [entry[1] for entry in fresh.log() if entry[0] == "pbx-01"]
    assert steps.index("drain") < steps.index("apply") < steps.index("undrain")
    journal = sorted((fresh.root / "runs").glob("*/journal.jsonl"))[-1].read_text()
    assert json.loads(journal.splitlines()[0])["commit"] == before

    # A plain deploy serves the checkout again.
    again = guardian(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet")
    assert again.returncode == 0, again.stdout + again.stderr
    at_rest(fresh, 20000)


def test_calls_left_at_the_deadline_are_ended_when_the_workspace_is_named(fresh: Region) -> None:
    fresh.config(drain_deadline=1)
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", calls=4, stuck=True)
    words = ["deploy", fresh.workspace, "--yes", "--only", "fleet"]
    refused = guardian(fresh, *words, "--force", "yes")
    assert (refused.returncode, fresh.log("drain")) == (2, [])
    done = guardian(fresh, *words, "--force", fresh.workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 calls ENDED by force at the drain deadline" in done.stdout
    at_rest(fresh, 20000)


def test_stop_asks_the_run_to_end(fresh: Region) -> None:
    nothing = guardian(fresh, "stop", fresh.workspace)
    assert (nothing.returncode, "nothing to stop" in nothing.stderr) == (1, True)
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-01", calls=5, stuck=True)
    running = subprocess.Popen(
        command(fresh, "deploy", fresh.workspace, "--yes", "--only", "fleet"),
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: fresh.log("drain"), "the drain", 60)
    assert guardian(fresh, "stop", fresh.workspace).returncode == 0
    assert running.wait(60) == 30
    assert not fresh.node("pbx-01")["paused"]
    assert "stopped by" in guardian(fresh, "runs", fresh.workspace).stdout


def bad(region: Region, what: str) -> dict[str, Any]:
    """Arrange one bad input; the arguments, the environment, the exit code and the words."""
    path = region.root / "guardian.yaml"
    text = path.read_text()
    ask: dict[str, Any] = {"workspace": region.workspace, "env": {}}
    if what == "unknown workspace":
        return {**ask, "workspace": "dev01-use1", "code": 2, "says": "did you mean 'dev01-use2'"}
    if what == "malformed guardian.yaml":
        path.write_text(text.replace("stacks:", "stakcs:", 1))
        return {**ask, "code": 2, "says": "(did you mean 'stacks'?)"}
    if what == "unreachable master":
        path.write_text(text.replace(str(region.root / "etc"), "/nonexistent"))
        return {**ask, "code": 1, "says": "master unreachable"}
    if what == "pillar":
        (region.root / "pillar" / "facts.sls").write_text("#!py\nraise ValueError('bad')\n")
        return {**ask, "code": 1, "says": "Pillar failed to render"}
    empty = region.root / "empty"
    empty.mkdir(exist_ok=True)
    return {**ask, "env": {"PATH": str(empty)}, "code": 1, "says": "terraform: not on PATH"}


@pytest.mark.parametrize(
    "what",
    ["unknown workspace", "malformed guardian.yaml", "unreachable master", "pillar", "terraform"],
)
def test_a_bad_input_is_one_line_and_changes_nothing(fresh: Region, what: str) -> None:
    case = bad(fresh, what)
    for verb in (["plan"], ["deploy", "--yes"]):
        done = guardian(fresh, verb[0], case["workspace"], *verb[1:], **case["env"])
        said = done.stdout + done.stderr
        assert done.returncode == case["code"], said
        assert case["says"] in said
        assert "Traceback" not in said
    assert not fresh.log("apply", "drain", "withdraw")


def test_help_is_quick_and_names_the_exit_codes(tmp_path: Path) -> None:
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "guardian", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = os.times()
    assert "30   halted or held" in done.stdout
    # Processor time, so that a busy machine does not fail it.
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert spent < 0.3
    for heavy in ("yaml", "rich", "salt", "lab.cli", "guardian.deploy", "json"):
        assert f" {heavy}\n" not in done.stderr, f"{heavy} is imported for --help"
