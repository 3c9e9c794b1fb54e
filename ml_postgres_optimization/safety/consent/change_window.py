"""When the owner lets a server be changed: weekly windows of time, in a time zone that is always stated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EXAMPLE = "Write it like Mon-Fri 22:00-05:00, or Sat,Sun 00:00-24:00 Europe/Madrid; daily stands for every day."
_DAYS_PART, _TIME = r"(?:(?P<days>[A-Za-z,\- ]+?)\s+)?", r"\d\d?:\d\d"
_ENTRY = re.compile(rf"{_DAYS_PART}(?P<begin>{_TIME})\s*-\s*(?P<end>{_TIME})(?:\s+(?P<zone>\S+))?", re.ASCII)
_MINUTES_A_DAY = 24 * 60
# What began on any of the days around a moment can still hold it: a window takes at most a day, and a change of the
# clocks less than one.
_DAYS_BACK, _DAYS_AHEAD = 2, 9


@dataclass(frozen=True, slots=True)
class ChangeWindow:
    """A span of time that comes again every week, by the clocks of a zone.

    Parameters
    ----------
    days : frozenset of int
        On which it begins: 0 for Monday to 6 for Sunday.
    begin_minutes, end_minutes : int
        Since midnight; one that does not end after it begins ends on the next day.
    zone : tzinfo

    Notes
    -----
    Where the clocks are put forward, a time that does not exist is that much later by the new time; where they are
    put back, one that exists twice is the first of both.
    """

    days: frozenset[int]
    begin_minutes: int
    end_minutes: int
    zone: tzinfo

    def spans(self, around: datetime) -> Iterable[tuple[datetime, datetime]]:
        """Return its spans from two days before `around` to nine days after it, in UTC, the earliest first."""
        today = around.astimezone(self.zone).date()
        for offset in range(-_DAYS_BACK, _DAYS_AHEAD + 1):
            day = today + timedelta(days=offset)
            if day.weekday() in self.days:
                ends_next_day = self.end_minutes <= self.begin_minutes
                begin = self._instant(day, self.begin_minutes)
                end = self._instant(day + timedelta(days=ends_next_day), self.end_minutes)
                if begin < end:
                    yield begin, end

    def _instant(self, day: date, minutes: int) -> datetime:
        days, minutes = divmod(minutes, _MINUTES_A_DAY)
        wall = time(*divmod(minutes, 60))
        return datetime.combine(day + timedelta(days=days), wall, tzinfo=self.zone).astimezone(UTC)

    def __str__(self) -> str:
        begin, end = (f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in (self.begin_minutes, self.end_minutes))
        return f"{_named(self.days)} {begin}-{end} {self.zone}"


@dataclass(frozen=True, slots=True)
class ChangeWindows:
    """All windows of a server; without any, it may be changed at any time.

    Parameters
    ----------
    windows : tuple of ChangeWindow
    """

    windows: tuple[ChangeWindow, ...] = ()

    def is_open(self, at: datetime) -> bool:
        """Tell whether the server may be changed at that moment."""
        return not self.windows or any(begin <= at < end for begin, end in self._spans(at))

    def closes_at(self, at: datetime) -> datetime | None:
        """Return when the window ends that is open then; None where it does not within a week."""
        if not self.windows:
            return None
        end = next((end for begin, end in self._spans(at) if begin <= at < end), at)
        return end if end < at + timedelta(days=7) else None

    def opens_at(self, at: datetime) -> datetime | None:
        """Return when the next window begins after that moment; None where none does within a week."""
        return next((begin for begin, _ in self._spans(at) if begin > at), None)

    def longest_seconds(self, at: datetime) -> float:
        """Return the length of the longest window around that moment; infinite where it is always open."""
        if not self.windows:
            return math.inf
        return max(((end - begin).total_seconds() for begin, end in self._spans(at)), default=0.0)

    def _spans(self, around: datetime) -> list[tuple[datetime, datetime]]:
        """Return the spans of all windows in order, those that meet or overlap as one."""
        joined: list[tuple[datetime, datetime]] = []
        for begin, end in sorted(span for window in self.windows for span in window.spans(around)):
            if joined and begin <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((begin, end))
        return joined

    def __str__(self) -> str:
        return "; ".join(map(str, self.windows)) or "at any time"


def parse_windows(text: str, zone: Callable[[], tzinfo]) -> ChangeWindows:
    """Read windows as users write them, separated by semicolons: ``Mon-Fri 22:00-05:00; Sat 00:00-24:00 UTC``.

    Parameters
    ----------
    text : str
    zone : callable
        Returns that of windows which name none; a ValueError of it is passed on.

    Raises
    ------
    ValueError
        Saying what is wrong, and how it is written.
    """
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    return ChangeWindows(tuple(_parsed(entry, zone) for entry in entries))


def _parsed(entry: str, zone: Callable[[], tzinfo]) -> ChangeWindow:
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(f"{entry!r} is no window. {_EXAMPLE}")
    begin, end = _minutes(found["begin"]), _minutes(found["end"])
    if begin in (_MINUTES_A_DAY, end):
        raise ValueError(f"{entry!r} ends when it begins. {_EXAMPLE}")
    return ChangeWindow(
        _days(found["days"] or "daily"), begin, end, _zone(found["zone"]) if found["zone"] else zone()
    )


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    total = hours * 60 + minutes
    if minutes > 59 or total > _MINUTES_A_DAY:
        raise ValueError(f"{text} is no time of day, from 00:00 to 24:00. {_EXAMPLE}")
    return total


def _days(text: str) -> frozenset[int]:
    if text.strip().lower() in ("daily", "every day"):
        return frozenset(range(len(DAYS)))
    return frozenset(day for part in text.split(",") for day in _span_of_days(part))


def _span_of_days(text: str) -> Iterable[int]:
    ends = [_day(name) for name in text.split("-")]
    if len(ends) == 1:
        return ends
    if len(ends) > 2:
        raise ValueError(f"{text.strip()!r} is no span of days. {_EXAMPLE}")
    first, last = ends
    return [(first + offset) % len(DAYS) for offset in range((last - first) % len(DAYS) + 1)]


def _day(name: str) -> int:
    """Read the name of a day, in English, by its first three letters or whole."""
    known = {day.lower(): number for number, day in enumerate(DAYS)}
    whole = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    known |= {day: number for number, day in enumerate(whole)}
    try:
        return known[name.strip().lower()]
    except KeyError:
        raise ValueError(f"{name.strip()!r} is no day of the week. {_EXAMPLE}") from None


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError(f"{name!r} is no time zone that this machine knows. {_EXAMPLE}") from None


def _named(days: frozenset[int]) -> str:
    if len(days) == len(DAYS):
        return "daily"
    ordered = sorted(days)
    follows = len(ordered) > 2 and all(after - before == 1 for before, after in pairwise(ordered))
    return f"{DAYS[ordered[0]]}-{DAYS[ordered[-1]]}" if follows else ",".join(DAYS[day] for day in ordered)
