"""A canary against its peers: what takes it out, what does not, and when calls are too few."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardian.fleet.judge import verdict

START: dict[str, Any] = {
    "since": "a",
    "attempts": 1000,
    "failed": 10,
    "registrations": 100,
    "gateways_down": [],
}


def soak(attempts: int = 0, failed: int = 0, **after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A node before and after a soak in which it had so many calls."""
    counted = {"attempts": 1000 + attempts, "failed": 10 + failed}
    return START, {**START, **counted, **after}


def judged(canary: Any, *peers: Any) -> tuple[bool, str]:
    found = verdict(canary, peers, margin=5, least=50)
    return found.good, found.why


@pytest.mark.parametrize(
    ("canary", "peers", "good", "why"),
    [
        (soak(100, 1), [soak(100, 1)], True, "1 of 100 calls failed (1.0%); 1 peers: 1 of 100"),
        (soak(100, 20), [soak(100, 1)], False, "20 of 100 calls failed (20.0%)"),
        # Everybody fails: not the change's doing.
        (soak(100, 40), [soak(100, 41)], True, "40 of 100"),
        # Six points, but of fifty calls: chance does that.
        (soak(50, 4), [soak(50, 1)], True, "4 of 50"),
        (soak(49, 49), [soak(500, 1)], True, "49 calls on it are too few to compare"),
        (soak(500, 500), [soak(3, 0)], True, "3 calls on its peers are too few"),
        (soak(500, 1), [], True, "0 calls on its peers are too few"),
        (soak(since="b"), [soak()], False, "restarted by itself"),
        (soak(gateways_down=["acme"]), [soak()], False, "gateway acme is down"),
        # A carrier that is away is away for all.
        (soak(gateways_down=["acme"]), [soak(gateways_down=["acme"])], True, "too few"),
        (soak(registrations=40), [soak()], False, "registrations fell from 100 to 40"),
        (soak(registrations=40), [soak(registrations=30)], True, "too few"),
        # A peer that restarted cannot be compared with: its counters began anew.
        (soak(100, 20), [soak(100, 0, since="z")], True, "0 calls on its peers"),
    ],
)
def test_the_verdict(canary: Any, peers: list[Any], good: bool, why: str) -> None:
    found = judged(canary, *peers)
    assert found[0] is good
    assert why in found[1]


def test_a_gateway_that_the_change_broke_was_down_before_the_soak() -> None:
    before = {**START, "gateways_down": ["acme"]}
    assert judged((before, dict(before)), soak()) == (
        False,
        "gateway acme is down, and not on its peers",
    )
    assert judged((before, dict(before)))[0], "without peers, only what goes down is told"


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_no_figures_break_it_and_no_better_canary_is_refused(
    attempts: int, failed: int, others: int, bad: int
) -> None:
    failed, bad = min(failed, attempts), min(bad, others)
    good, why = judged(soak(attempts, failed), soak(others, bad))
    assert why
    if attempts and others and failed / attempts <= bad / others:
        assert good
