"""Hours of a week in a region's own time: when a deploy may run, and when calls peak."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Hours:
    """From `start` to `end` (minutes of a day) on `days`; over midnight when end is not later.

    A night belongs to the day on which it starts. `zone` is a name of the tz database.
    """

    days: tuple[str, ...]
    start: int
    end: int
    zone: str

    def __str__(self) -> str:
        days = "daily" if self.days == DAYS else " ".join(self.days)
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.zone}"

    def contains(self, now: float) -> bool:
        """Whether a moment, in seconds since 1970, lies within."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return DAYS[day] in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return DAYS[day] in self.days
        return minute < self.end and DAYS[(day - 1) % 7] in self.days

    def opens(self, now: float) -> str:
        """The next start in words, such as `Mon 22:00 Europe/London`."""
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        for ahead in range(8):
            date = local.date() + timedelta(days=ahead)
            minute = local.hour * 60 + local.minute if ahead == 0 else -1
            if DAYS[date.weekday()] in self.days and self.start > minute:
                return f"{date:%a} {_clock(self.start)} {self.zone}"
        raise AssertionError("hours hold a day of the week")


def minutes(text: str) -> int | None:
    """`22:00` as minutes of a day, None when it is no time of day."""
    found = _TIME.fullmatch(text)
    return int(found[1]) * 60 + int(found[2]) if found else None


def known(zone: str) -> bool:
    """Whether the tz database has a zone of this name."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
