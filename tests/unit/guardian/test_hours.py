"""Hours of a week in a region's own time, and what they keep a deploy from."""

import io
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardian import hours
from guardian.config import Config, Master, Rollout, Workspace
from guardian.deploy import Pipeline
from guardian.errors import APPROVAL, GuardianError
from guardian.hours import Hours
from guardian.ui.progress import Progress

LONDON = "Europe/London"
NIGHTS = Hours(("mon", "fri"), 22 * 60, 5 * 60, LONDON)
DAYTIME = Hours(hours.DAYS, 8 * 60, 19 * 60, LONDON)


def at(text: str, zone: str = LONDON) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("when", "within"),
    [
        ("2026-11-23 21:59", False),  # a Monday
        ("2026-11-23 22:00", True),
        ("2026-11-24 04:59", True),  # still Monday's night
        ("2026-11-24 05:00", False),
        ("2026-11-24 22:30", False),
        ("2026-11-28 01:00", True),  # Friday's night reaches into Saturday
        ("2026-11-23 01:00", False),  # Sunday's would, and it has none
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_starts(when: str, within: bool) -> None:
    assert NIGHTS.contains(at(when)) is within


def test_summer_time_is_the_regions_own() -> None:
    assert DAYTIME.contains(datetime(2026, 7, 1, 7, 30, tzinfo=ZoneInfo("UTC")).timestamp())
    assert not DAYTIME.contains(datetime(2026, 12, 1, 7, 30, tzinfo=ZoneInfo("UTC")).timestamp())


@pytest.mark.parametrize(
    ("when", "opens"),
    [
        ("2026-11-24 12:00", "Fri 22:00 Europe/London"),
        ("2026-11-23 12:00", "Mon 22:00 Europe/London"),
        ("2026-11-28 12:00", "Mon 22:00 Europe/London"),
    ],
)
def test_the_next_opening_is_told(when: str, opens: str) -> None:
    assert NIGHTS.opens(at(when)) == opens


@given(
    st.sets(st.sampled_from(hours.DAYS), min_size=1),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from([LONDON, "America/Chicago", "Asia/Singapore", "Australia/Sydney", "UTC"]),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_any_hours_say_where_a_moment_lies(
    days: set[str], start: int, end: int, zone: str, now: int
) -> None:
    found = Hours(tuple(day for day in hours.DAYS if day in days), start, end, zone)
    week = [found.contains(now + hour * 3600) for hour in range(7 * 24)]
    minutes = (end - start) % 1440 or 1440
    # In hours, one more or less at either end of each day's, and two days change their clocks.
    assert abs(sum(week) - len(days) * minutes / 60) <= 2 * len(days) + 2
    assert found.opens(now)


def test_the_reader_refuses_by_line(tmp_path: Path) -> None:
    from guardian import config
    from guardian.errors import UsageError

    def refused(window: str) -> str:
        path = tmp_path / "guardian.yaml"
        space = "  lab-local:\n    stacks: []\n    master: {local: true}\n"
        path.write_text(f"stacks: {{}}\nworkspaces:\n{space}    window: {window}\n")
        with pytest.raises(UsageError) as found:
            config.load(path)
        return str(found.value)

    assert "guardian.yaml:6: zone: 'Europe/Lodnon' is no time zone" in refused(
        '{from: "22:00", to: "05:00", zone: Europe/Lodnon}'
    )
    assert "from: '25:00' is no time of day" in refused(
        f'{{from: "25:00", to: "05:00", zone: {LONDON}}}'
    )
    assert "days: 'mo' unknown" in refused(
        f'{{days: [mo], from: "22:00", to: "05:00", zone: {LONDON}}}'
    )


def pipeline(tmp_path: Path, **times: Hours) -> Pipeline:
    space = Workspace(
        "lab-local", (), Master((), "", ""), tmp_path, tmp_path, tmp_path, Rollout(), **times
    )
    return Pipeline(Config(tmp_path, tmp_path), space, Progress(io.StringIO(), io.StringIO()))


def always_but_now(now: float) -> Hours:
    """Hours of UTC that begin two hours after a moment and end an hour before it."""
    minute = datetime.fromtimestamp(now, ZoneInfo("UTC"))
    start = (minute.hour * 60 + minute.minute + 120) % 1440
    return Hours(hours.DAYS, start, (start - 180) % 1440, "UTC")


def test_outside_its_window_a_deploy_is_refused_before_anything(tmp_path: Path) -> None:
    closed = pipeline(tmp_path, window=always_but_now(time.time()))
    with pytest.raises(GuardianError, match="--outside-window REASON") as refused:
        closed.deploy()
    assert refused.value.code == APPROVAL
    assert list(tmp_path.iterdir()) == []
    closed.outside_window = "an emergency: CVE-2026-116779"
    assert closed._closed() == ""


def test_at_peak_no_node_is_drained_unless_the_run_says_why(tmp_path: Path) -> None:
    peak = pipeline(tmp_path, peak=Hours(hours.DAYS, 0, 0, "UTC"))
    assert peak._no_drain() == "calls peak (daily 00:00-00:00 UTC)"
    peak.outside_window = "an emergency"
    assert peak._no_drain() == ""


def test_calls_are_ended_by_nobody_who_did_not_name_the_workspace(tmp_path: Path) -> None:
    one = pipeline(tmp_path)
    one.force = "prod-euw2"
    with pytest.raises(GuardianError, match="it takes the name of the workspace, lab-local"):
        one.deploy()
    assert list(tmp_path.iterdir()) == []
