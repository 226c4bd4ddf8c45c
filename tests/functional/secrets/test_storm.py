"""A hundred minions refresh their pillar at once, while AWS throttles: few calls, no failure.

The thousand, the times and the real master are in tests/bench/secrets_storm.py.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import salt.pillar

from tests.support import storm
from tests.support.aws import Aws

MINIONS = 100

pytestmark = pytest.mark.timeout(300)  # ten seconds on two idle cores


@pytest.fixture
def world(tmp_path: Path, aws: Aws, memory: Path) -> storm.World:
    return storm.World(tmp_path, aws, MINIONS, str(memory / "secrets"))


def test_a_hundred_minions_at_once_cost_few_calls_and_none_fails(world: storm.World) -> None:
    world.aws.forget_calls()
    world.aws.fault("throttle", "ssm:*", share=0.2)
    compiled = storm.compile_all(world, ["ours"], workers=4)
    log = world.aws.log()
    assert len(compiled) == MINIONS
    assert [one for one in compiled if one.errors] == []
    answered = Counter(one["action"] for one in log if one["outcome"] == "ok")
    assert answered.total() <= world.distinct() / 10 + world.pages()
    assert set(answered) <= {"ssm:GetParameters", "ssm:GetParametersByPath"}
    assert len(log) <= 2 * answered.total() + 5, "what is throttled is asked again, but not in vain"


def test_a_sensitive_output_reaches_its_role_as_a_secret_and_stands_nowhere_else(
    tmp_path: Path, aws: Aws, memory: Path
) -> None:
    world = storm.World(tmp_path, aws, 20, str(memory / "secrets"))
    options = world.options("ours")

    def compiled(role: str) -> dict[str, Any]:
        minion = f"{role}-0001.prod-euw2"
        return salt.pillar.Pillar(options, {}, minion, "base").compile_pillar()

    sealed = {role: compiled(role) for role in storm.ROLES}
    password = "not-a-secret-database-password"
    assert password not in json.dumps(sealed)
    assert sealed["sip"]["stack"]["databases"] == {}
    held = sealed["sip"]["opensips"]["database"]["remote"]["password"]
    assert held == {"secret": "database-password"}
    assert options["ext_pillar"].pop() == {"secrets_sealed": {"plain": ["lab"]}}
    values = {role: compiled(role)["secret_values"] for role in storm.ROLES}
    assert values["sip"]["database-password"] == password
    assert password not in json.dumps([values["pbx"], values["fsx"]])
