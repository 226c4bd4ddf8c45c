"""The whole way of a new certificate: parameters, pillar, states, reload, and what is served."""

import pytest

from guardian.secrets import broker
from tests.functional.certificates import rotating
from tests.functional.certificates.held_calls import holding
from tests.functional.secrets.test_secret_pillar import Compiler
from tests.support import aws

WORKSPACE = "prod-euw2"
PARAMETERS = {
    rotating.CHAIN: "rt.certificate.default.chain",
    rotating.KEY: "rt.certificate.default.key",
}
GRANTS = [{"names": ["parameter:rt.certificate.default.*", "parameter:/voice/{workspace}/*"]}]


class Parameters:
    """What AWS holds for one node, and the pillar that a master makes of it."""

    def __init__(self, node, cloud, directory, memory):
        self.node, self.cloud = node, cloud
        # The lab has no AWS: this one is of production.
        self.minion_id = f"{node.caller.opts['id'].partition('.')[0]}.{WORKSPACE}"
        names = {name: f"/voice/{WORKSPACE}/{name}" for name in node.own_secrets} | PARAMETERS
        self.names = names
        self.master = Compiler(directory, memory)
        declared = {
            name: {"parameter": parameter, "dummy": "not-a-secret"}
            for name, parameter in names.items()
        }
        self.master.write(node.declared(), declared, GRANTS)

    def put(self, bundle, *names):
        """Store these secrets, or all, and have the master forget what it held of them."""
        values = self.node.secrets(bundle)
        changed = names or tuple(self.names)
        self.cloud.parameters({self.names[name]: values[name] for name in changed})
        sources = [f"parameter:{self.names[name]}" for name in changed]
        broker.from_opts(self.master.opts).forget(sources)

    def rotate(self):
        """Refresh the node's pillar and apply its states; what each returned."""
        pillar = self.master(self.minion_id)
        assert "_errors" not in pillar, pillar["_errors"]
        self.node.give_pillar(**pillar)
        return self.node.apply()


@pytest.fixture
def parameters(node, authority, tmp_path, monkeypatch):
    with aws.running() as cloud, aws.in_memory() as memory:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        directory = tmp_path / "master"
        directory.mkdir()
        made = Parameters(node, cloud, directory, memory)
        made.master.opts["ext_pillar"] = [{"aws_secrets": made.master.options}]
        made.put(authority.bundle())
        yield made


def test_new_parameters_are_served_and_half_of_them_is_refused(parameters, node, authority):
    with holding(node.kinds(), 1) as held:
        for _ in range(2):
            bundle, shown = authority.bundle(), node.shown()
            parameters.put(bundle, rotating.CHAIN)
            (refused,) = parameters.rotate()
            assert refused["result"] is False
            assert "key does not match" in refused["comment"]
            assert node.shown() == shown
            parameters.put(bundle, rotating.KEY)
            assert [one["comment"] for one in parameters.rotate() if not one["result"]] == []
            assert node.shown() == dict.fromkeys(node.tls, bundle.fingerprint)
            held.prove("served")
            held.renew(bundle.fingerprint, "served")
        held.hang_up()
        assert (held.lost, held.wrong) == ([], [])
