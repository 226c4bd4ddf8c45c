"""Regions made from seeds, with slow, lost and doubled returns, deaths and sick nodes.

`make evidence AREA=controller` rolls a thousand nodes of each seed; this is a sample of them.
"""

import pytest

from guardian.fleet.rollout import DONE, FAILED
from tests.support import simrun, simschedule
from tests.support.simulator import Faults, SimNode, World

# Each of these once broke something, or shows a kind of region: calm, dead minions, a master away.
SEEDS = (0, 1, 2, 3, 5, 7, 11, 14)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_no_call_is_cut_and_nobody_is_forgotten(seed: int) -> None:
    result = simrun.roll(simrun.region(seed, 60), seed=seed)
    assert result.wrongs == []
    assert result.world.cut == 0
    assert result.world.refused == 0


def test_the_world_tells_of_what_must_not_be() -> None:
    # The books of the simulator are worth nothing if they forgive.
    world = World({name: SimNode("pbx", calls=4, capacity=5) for name in ("pbx-1.w", "pbx-2.w")})
    world.nodes["pbx-1.w"].pair = world.nodes["pbx-2.w"].pair = "p"
    for number, minion in enumerate(("pbx-1.w", "pbx-2.w")):
        world.publish(str(number), [minion], "voice.drain", [], {"by": "guardian"})
        world.advance(world.now + 1)
    world.publish("3", ["pbx-1.w", "pbx-2.w"], "state.apply", [], {})
    world.advance(world.now + 60)
    said = "\n".join(world.wrongs)
    for wrong in ("2 of pbx are out, 1 may be", "nobody of pbx is left", "both of pair p", "room"):
        assert wrong in said
    world.nodes["pbx-1.w"].config = 0
    world.publish("4", ["pbx-1.w"], "state.apply", [], {})
    world.advance(world.now + 60)
    assert "applied twice" in "\n".join(world.wrongs)


def test_a_node_in_service_that_is_applied_is_told_of() -> None:
    world = World({"pbx-1.w": SimNode("pbx", calls=4), "sip-1.w": SimNode("sip")})
    world.publish("1", ["pbx-1.w"], "state.apply", [], {})
    world.advance(world.now + 60)
    assert world.cut == 4
    assert any("applied while it is in service" in wrong for wrong in world.wrongs)


def test_a_rollout_takes_hardly_longer_than_its_schedule() -> None:
    nodes = {f"pbx-{one:02d}.w": SimNode("pbx", "ab"[one % 2], calls=9) for one in range(40)}
    nodes |= {f"sip-{one}.w": SimNode("sip", "ab"[one % 2]) for one in range(4)}
    world = World(nodes, seed=1, faults=Faults(latency=0.15, apply=20.0), mean_call=60.0)
    result = simrun.roll(world, cpu=True)
    assert result.wrongs == []
    assert {track.step for track in result.rollout.tracks.values()} == {DONE}
    path = simschedule.critical_path(result, simrun.SETTINGS)
    assert path <= simschedule.wall(result) <= 1.10 * path


@pytest.mark.parametrize("ill", ["failing", "gateways", "boot"])
def test_a_sick_canary_halts_the_rollout_and_is_named(ill: str) -> None:
    nodes = {f"pbx-{one:02d}.w": SimNode("pbx", "a", calls=9) for one in range(8)}
    nodes |= {f"sip-{one}.w": SimNode("sip", "a") for one in range(2)}
    nodes["pbx-00.w"].ill = ill
    world = World(nodes, seed=1, mean_call=20.0)
    result = simrun.roll(world, attempts=1)
    assert "pbx-00.w" in result.halts[0]
    assert result.rollout.tracks["pbx-00.w"].step == FAILED
    assert [one.config for one in nodes.values()].count(1) <= 1
    assert (nodes["pbx-00.w"].paused, nodes["pbx-00.w"].withdrawn_on) == (
        True,
        {"sip-0.w", "sip-1.w"},
    )
    assert result.wrongs == []
