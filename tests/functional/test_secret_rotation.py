"""A parameter changes: the master has just the nodes that use it compile their pillar."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import salt.client
import yaml
from salt.exceptions import SaltException

from tests.support.aws import ACCOUNT, in_memory, running
from tests.support.loading import REPOSITORY
from tests.support.region import Region, until

AWS_REGION = "us-east-2"
HOSTS = {"pbx-01": "a", "sip-01": "a"}
NAME = "/voice/dev01-use2/{}/esl-password"
PILLAR = {
    "secrets": {"esl-password": {"parameter": "/voice/{workspace}/{role}/esl-password"}},
    "freeswitch": {"esl_password": {"secret": "esl-password"}},
}


class Rotating(Region):
    """A region whose nodes have secrets, and whose master reads a queue."""

    def __init__(self, root, hosts, **master):
        super().__init__(root, hosts)
        self._master = master

    def _write(self, path, content):
        return Region._write(path, {**content, **(self._master if path.name == "master" else {})})

    def pillar(self, data):
        super().pillar({**PILLAR, **data})
        shutil.copy(REPOSITORY / "pillar" / "fleet.yaml", self.root / "pillar")
        fleet = {host: {"role": host[:3], "zone": zone, "address": "127.0.0.1"}
                 for host, zone in self.hosts.items()}  # fmt: skip
        workspaces = self.root / "pillar" / "workspaces"
        workspaces.mkdir(exist_ok=True)
        (workspaces / f"{self.workspace}.sls").write_text(yaml.safe_dump({"fleet": fleet}))

    def held(self):
        """The secret that each minion has in memory; asking compiles nothing."""
        minions = [self.minion(host) for host in HOSTS]
        told = {}
        with contextlib.suppress(SaltException):  # the master begins
            client = salt.client.LocalClient(str(self.root / "etc" / "master"))
            told = client.cmd(minions, "pillar.raw", ["secret_values"], tgt_type="list", timeout=10)
        # One that does not answer has a text, or False, in its place.
        return {
            minion[:6]: value.get("esl-password")
            for minion, value in told.items()
            if isinstance(value, dict)
        }


@pytest.fixture
def aws(monkeypatch):
    with running() as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        yield aws


@pytest.fixture
def queue(aws):
    return aws.client("sqs", AWS_REGION).create_queue(QueueName="rotation")["QueueUrl"]


@pytest.fixture
def region(aws, queue):
    aws.parameters({NAME.format("pbx"): "first-of-pbx", NAME.format("sip"): "of-sip"}, AWS_REGION)
    # Unix sockets have short names: not under pytest's long directories.
    with in_memory() as memory, tempfile.TemporaryDirectory(prefix="gl") as directory:
        root = Path(directory)
        grants = root / "grants.yaml"
        grants.write_text(yaml.safe_dump([{"names": ["parameter:/voice/{workspace}/{role}/*"]}]))
        secrets = {"grants": str(grants), "region": AWS_REGION, "cache": str(memory / "secrets")}
        started = Rotating(
            root,
            HOSTS,
            pillar_dirs=[str(REPOSITORY / "_pillar")],
            utils_dirs=[str(REPOSITORY / "_utils")],
            engines_dirs=[str(REPOSITORY / "_engines")],
            ext_pillar=[{"aws_secrets": secrets}],
            engines=[
                {"secret_rotation": {
                    "queue_url": queue, "region": AWS_REGION, "account": ACCOUNT,
                }}
            ],
            log_level="info",
        )  # fmt: skip
        try:
            started.start()
            yield started
        finally:
            started.stop()


def test_only_the_nodes_concerned_take_a_new_value(region, aws, queue):
    first = {"pbx-01": "first-of-pbx", "sip-01": "of-sip"}
    until(lambda: region.held() == first, "the first pillar", 60)
    aws.parameters({NAME.format("pbx"): "second-of-pbx", NAME.format("sip"): "unannounced"},
                   AWS_REGION)  # fmt: skip
    aws.forget_calls()
    forged = {
        "account": ACCOUNT,
        "region": "eu-west-2",
        "source": "aws.ssm",
        "detail-type": "Parameter Store Change",
        "detail": {"operation": "Update", "name": NAME.format("sip"), "type": "SecureString"},
    }
    changed = {**forged, "region": AWS_REGION, "detail": {"name": NAME.format("pbx")}}
    for event in (forged, changed):
        aws.client("sqs", AWS_REGION).send_message(QueueUrl=queue, MessageBody=json.dumps(event))
    until(lambda: region.held().get("pbx-01") == "second-of-pbx", "the second pillar", 30)
    # A pillar compiled for the other would hold what nobody announced only after its TTL, so what
    # was asked of AWS and published says whether one was.
    log = (region.root / "master.log").read_text()
    published = [line for line in log.splitlines() if "saltutil.refresh_pillar" in line]
    assert len(published) == 1
    assert until(lambda: region.held().get("sip-01"), "the other's pillar", 30) == "of-sip"
    assert aws.calls()["ssm:GetParameters"] == 1
    assert f"parameter:{NAME.format('pbx')} changed; refreshed pbx-01.dev01-use2" in log
    assert "is none of ours; it stays" in log
    assert "second-of-pbx" not in log
