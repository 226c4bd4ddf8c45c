"""The agent and its client against a real master and real minions: what the design leans on."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from guardian import config
from guardian.errors import GuardianError
from guardian.fleet.agent import trim
from guardian.fleet.checks import change
from guardian.fleet.master import Jids, Job, Master, Patience
from guardian.fleet.survey import RefusedError, survey
from tests.integration.conftest import HOSTS, one_agent
from tests.support.region import REPOSITORY, Region, until

JIDS = Jids(time.time)


@pytest.fixture
def master(fresh: Region) -> Iterator[Master]:
    patience = Patience(sweep=1, silence=2, answer=3, misses=2)
    with Master(one_agent(fresh), JIDS, patience) as started:
        yield started


def minions(region: Region) -> tuple[str, ...]:
    return tuple(region.minion(host) for host in HOSTS)


def test_a_list_gets_one_return_each(master: Master, fresh: Region) -> None:
    found = master.run(Job(JIDS.new(), minions(fresh), "test.ping"))
    assert {minion: (one.known, one.value) for minion, one in found.items()} == dict.fromkeys(
        minions(fresh), (True, True)
    )


def test_the_same_job_id_runs_once(master: Master, fresh: Region) -> None:
    job = Job(JIDS.new(), (fresh.minion("pbx-01"),), "voice.undrain")
    master.run(job)
    master._ask("publish", jid=job.jid, targets=list(job.targets), fun=job.fun, args=[], kwargs={})
    # A later job on the same minion is the proof that the second publication was passed over.
    master.run(Job(JIDS.new(), job.targets, "test.ping"))
    assert fresh.log("undrain") == [["pbx-01", "undrain"]]


def test_a_job_of_an_earlier_process_is_found_in_the_cache(master: Master, fresh: Region) -> None:
    job = Job(JIDS.new(), minions(fresh), "voice.capacity")
    master.run(job)
    with Master(one_agent(fresh), JIDS) as second:
        second.attach(job)
        found = {one.minion: one.value for one in until(lambda: second.poll(1), "the cache", 10)}
    assert found == {minion: {"calls": 1000, "registrations": None} for minion in minions(fresh)}


def test_a_job_that_was_never_published_is_unknown(master: Master, fresh: Region) -> None:
    master.attach(Job(JIDS.new(), (fresh.minion("pbx-01"),), "state.apply", cap=60))
    (outcome,) = until(lambda: master.poll(1), "the answer", 40)
    assert not outcome.known
    assert "not running there" in str(outcome.value)


def test_a_minion_that_does_not_exist_is_unknown_not_forgotten(master: Master) -> None:
    job = Job(JIDS.new(), ("pbx-99.dev01-use2",), "test.ping", cap=60)
    (outcome,) = master.run(job).values()
    assert not outcome.known


def test_a_slow_job_is_waited_for(master: Master, fresh: Region) -> None:
    job = Job(JIDS.new(), (fresh.minion("pbx-01"),), "test.sleep", (6,), cap=60)
    (outcome,) = master.run(job).values()
    assert (outcome.known, outcome.value) == (True, True)


def test_a_lost_return_is_recovered_from_the_minion(master: Master, fresh: Region) -> None:
    job = Job(JIDS.new(), (fresh.minion("pbx-01"),), "voice.capacity")
    master.run(job)
    (jid,) = (
        path for path in fresh.root.glob("master/**/jid") if path.read_text().strip() == job.jid
    )
    kept = jid.parent / job.targets[0] / "return.p"
    until(kept.exists, "the return in the cache, which is written after the event", 10)
    kept.unlink()
    assert job.targets[0] not in master._ask("lookup", jid=job.jid)
    with Master(one_agent(fresh), JIDS, Patience(1, 2, 3, 2)) as second:
        second.attach(job)
        (outcome,) = until(lambda: second.poll(1), "the minion's own cache", 30)
    assert (outcome.known, outcome.value) == (True, {"calls": 1000, "registrations": None})


def test_a_second_state_run_is_refused_as_busy(master: Master, fresh: Region) -> None:
    fresh.node("pbx-01", slow=4)
    fresh.pillar({"gateways": 1})
    target = (fresh.minion("pbx-01"),)
    master.run(Job(JIDS.new(), target, "saltutil.refresh_pillar", (), {"wait": True}))
    first = Job(JIDS.new(), target, "state.apply")
    master.submit(first)
    until(lambda: fresh.log("apply"), "the first run to begin", 20)
    master.submit(Job(JIDS.new(), target, "state.apply"))
    (second,) = until(lambda: master.poll(1), "a return", 20)
    assert second.jid != first.jid
    assert change(second.value).busy
    (ended,) = until(lambda: master.poll(1), "the first run to end", 20)
    assert (ended.jid, change(ended.value).problem) == (first.jid, "")


def test_the_survey_classifies_everyone(master: Master, fresh: Region) -> None:
    fresh.pillar({"rtp": 20000})
    fresh.node("pbx-02", config={"rtp": 20000, "gateways": 0}, calls=3)
    said: list[str] = []
    nodes = {node.minion: node for node in survey(master, JIDS, fresh.workspace, said.append)}
    assert len(nodes) == len(HOSTS)
    one, two = nodes[fresh.minion("pbx-01")], nodes[fresh.minion("pbx-02")]
    assert (one.role, one.zone, one.disruption, one.changes) == ("pbx", "a", "restart", 1)
    assert one.why == ("rtp: 16384 -> 20000",)
    assert (two.changes, two.calls, two.zone) == (0, 3, "b")
    assert said
    assert not fresh.log("apply", "drain", "withdraw")


def test_a_pillar_that_does_not_render_is_a_refusal(master: Master, fresh: Region) -> None:
    fresh.pillar({"rtp": 20000})
    top = fresh.root / "pillar" / "facts.sls"
    top.write_text("#!py\ndef run():\n    raise ValueError('node: rol unknown')\n")
    with pytest.raises(
        RefusedError, match=r"Pillar failed to render.*nothing was changed"
    ) as caught:
        survey(master, JIDS, fresh.workspace, lambda text: None)
    assert len(caught.value.problems) == len(HOSTS)


def test_a_host_of_the_fleet_without_a_key_is_a_refusal(master: Master, fresh: Region) -> None:
    try:
        fresh.hosts["fsx-01"] = "a"
        fresh.pillar({})
        with pytest.raises(
            RefusedError, match=r"fsx-01\.dev01-use2: in pillar's fleet, but has no"
        ):
            survey(master, JIDS, fresh.workspace, lambda text: None)
    finally:
        del fresh.hosts["fsx-01"]


def test_no_diff_and_no_secret_travels(master: Master, fresh: Region) -> None:
    run = {
        "file_|-a_|-b_|-managed": {
            "result": True,
            "comment": "x" * 2000,
            "changes": {"diff": "+ password=hunter2", "disruption": "none", "why": ["w"]},
            "__sls__": "a",
        }
    }
    travels = json.dumps(trim({"jid": "1", "return": run}))
    assert "hunter2" not in travels
    assert len(travels) < 1000
    assert '"disruption": "none"' in travels


def test_a_commit_is_served_and_the_live_tree_again(fresh: Region, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(fresh.root / "files", tree / "files")
    shutil.copytree(fresh.root / "pillar", tree / "pillar")
    daemon = tree / "files" / "daemon.sls"
    daemon.write_text(daemon.read_text().replace("daemon configured", "daemon as it was"))
    git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "as it was"]):
        subprocess.run([*git, *command], check=True)
    archive = tmp_path / "archive.tar"
    subprocess.run([*git, "archive", "-o", str(archive), "HEAD"], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    target = (fresh.minion("pbx-01"),)
    with Master(
        one_agent(fresh), JIDS, releases=str(fresh.releases), tree=str(fresh.root)
    ) as master:

        def names() -> list[str]:
            found = master.run(Job(JIDS.new(), target, "state.apply", (), {"test": True}))
            return [key.split("_|-")[1] for key in found[target[0]].value]

        assert names() == ["daemon configured"]
        master.release(commit, archive)
        assert master.facts()["release"] == commit
        assert names() == ["daemon as it was"]
        master.release("", None)
        assert names() == ["daemon configured"]
    with (
        Master(one_agent(fresh), JIDS) as master,
        pytest.raises(GuardianError, match=r"master\.releases is not set.*docs/masters\.md"),
    ):
        master.release(commit, archive)


STAND_IN = """#!/bin/sh
# An ssh that goes nowhere: what a server of that user's would run, after what it says to everyone.
while [ "$1" != -- ]; do shift; done
echo "Authorised use only."
echo "$2" >> "$0.hosts"
shift 2
exec sh -c "${FORCED:-$*}"
"""


@pytest.mark.parametrize("forced", [False, True])
def test_a_master_is_reached_by_ssh(
    fresh: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(STAND_IN)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    salt_config = str(fresh.root / "etc" / "master")
    path = fresh.config()
    content = yaml.safe_load(path.read_text())
    content["workspaces"][fresh.workspace]["master"] = {
        "ssh": "guardian@salt.example.com",
        "tree": str(REPOSITORY),
        "python": sys.executable,
        "salt_config": "/nonexistent/master" if forced else salt_config,
    }
    path.write_text(yaml.safe_dump(content))
    if forced:  # the line of docs/masters.md, with the places of this machine
        text = (REPOSITORY / "docs" / "masters.md").read_text()
        command = text.partition('restrict,command="')[2].partition('"')[0]
        for there, here in (
            ("/srv/guardian", str(REPOSITORY)),
            (".venv/bin/python", sys.executable),
            ("/etc/salt/master", salt_config),
        ):
            assert there in command
            command = command.replace(there, here, 1)
        monkeypatch.setenv("FORCED", command)
    reached = config.load(path).workspace(fresh.workspace).master
    with Master(reached.agent(), JIDS) as master:
        found = master.run(Job(JIDS.new(), minions(fresh), "test.ping"))
    assert all(one.known for one in found.values())
    assert (tmp_path / "ssh.hosts").read_text() == "guardian@salt.example.com\n"


def test_an_ssh_that_fails_is_told_as_it_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\necho 'ssh: connect to host x port 22: No route to host' >&2\nexit 255\n"
    )
    ssh.chmod(0o755)
    with pytest.raises(GuardianError, match=r"master unreachable: ssh: .*No route to host; try: "):
        Master([str(ssh), "-T", "x"], JIDS)


def test_a_host_that_is_no_master_says_so() -> None:
    command = [*one_agent_command(), "--config", "/nonexistent/master"]
    with pytest.raises(GuardianError, match=r"master unreachable: agent: /nonexistent/master: no"):
        Master(command, JIDS)


def test_what_is_no_request_is_answered_and_survived(fresh: Region) -> None:
    lines = ["nonsense", "[]", '{"id": 1, "op": "rm"}', '{"id": 2, "op": "minions", "x": 1}']
    done = subprocess.run(
        one_agent(fresh), input="\n".join([*lines, '{"id": 3, "op": "minions"}\n']),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["event"] == "ready"
    assert [answer.get("ok") for answer in answers[1:]] == [False, False, False, False, True]


def one_agent_command() -> list[str]:
    return [sys.executable, "-m", "guardian.fleet.agent"]
