"""A hundred minions refresh their pillar at once, while AWS throttles: few calls, no failure.

The thousand, the times and the real master are in tests/bench/secrets_storm.py.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.support import storm
from tests.support.aws import Aws

MINIONS = 100


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
