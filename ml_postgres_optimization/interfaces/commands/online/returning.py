"""To which moment to go back, and what it takes: read from the history of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.postgres.repository import Known, Period

# A trial's id is a time in the compact form of ISO 8601; so a moment has to be in the extended one.
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_AGO = re.compile(r"(\d+(?:\.\d+)?) ?(minute|hour|day|week)s? ago")


def moment_of(text: str, now: datetime) -> datetime | None:
    """Return the moment that `text` names; None where it looks like none.

    Parameters
    ----------
    text : str
        ISO 8601 with or without a zone (then of this machine), ``2026-11-30 14:00`` for one; or ``2 hours ago``.
    now : datetime
        Aware.

    Raises
    ------
    UsageError
        If it is no moment of the calendar.

    Examples
    --------
    >>> noon = datetime.fromisoformat("2026-11-30T12:00Z")
    >>> moment_of("90 minutes ago", noon).isoformat(), moment_of("2026-11-30 10:00+01:00", noon).isoformat()
    ('2026-11-30T10:30:00+00:00', '2026-11-30T10:00:00+01:00')
    >>> moment_of("20261130T120000.123456", noon) is None
    True
    """
    words = text.strip()
    try:
        if ago := _AGO.fullmatch(words):
            return now - timedelta(**{f"{ago[2]}s": float(ago[1])})
        if not _MOMENT.fullmatch(words):
            return None
        moment = datetime.fromisoformat(words)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--to is {text!r}, which is no moment: {error}.", "Write it like 2026-11-30 14:00, or 2 hours ago."
        ) from error


def moment_text(moment: datetime) -> str:
    """Write a moment with the time zone in which it was understood."""
    return f"{moment:%Y-%m-%d %H:%M:%S %Z (UTC%z)}"


def require_known(moment: datetime, now: datetime, known: Known | None) -> None:
    """Refuse a moment of which nothing is known.

    Raises
    ------
    UsageError
        If it is to come, or nobody had looked at the server by then.
    """
    if moment > now:
        raise UsageError(
            f"{moment_text(moment)} is to come; now it is {moment_text(now)}.", "Name a moment that has been."
        )
    if known is None:
        raise UsageError(
            "The history of this server's configuration has not begun: nobody has recorded it yet.",
            "Name a trial, or baseline; genesis-pg setup begins the history.",
        )
    if moment < known.known_since:
        since = known.known_since.astimezone(moment.tzinfo)
        raise UsageError(
            f"What was in force at {moment_text(moment)} is not known: the history begins at {moment_text(since)}.",
            "Name a later moment; or a trial, or baseline.",
        )


@dataclass(frozen=True, slots=True)
class Setback:
    """A setting that is not as it was.

    Parameters
    ----------
    then, now : Period
        Which value it had at the moment, and which it has.
    target : str
        What it has once we have taken back what we did since: `then`, or what somebody else has set meanwhile.
    foreign : Period or None
        What somebody else has set since and we leave; None where there is nothing.
    """

    then: Period
    now: Period
    target: str
    foreign: Period | None

    @property
    def name(self) -> str:
        """The setting's."""
        return self.now.name


def setbacks(periods: Iterable[Period], moment: datetime, live: Mapping[str, str]) -> list[Setback]:
    """Return what has to be put back, or is left, so that the server is as it was at `moment`.

    Only what we brought since is taken back, from the last change on; at the first change of somebody else it ends.

    Parameters
    ----------
    periods : iterable of Period
        Those that lasted at the moment or began after it.
    moment : datetime
    live : mapping of str to str
        What is in force, as ``pg_settings`` has it. What differs from the last period was not recorded yet, and is
        taken for somebody else's.
    """
    ordered = sorted(periods, key=lambda period: (period.name, period.since))
    found = (
        _setback(list(course), moment, live.get(name)) for name, course in groupby(ordered, lambda each: each.name)
    )
    return [each for each in found if each is not None]


def _setback(course: list[Period], moment: datetime, live: str | None) -> Setback | None:
    then = course[0]
    if then.since > moment:
        return None
    if live is not None and live != course[-1].value:
        end = course[-1].since
        course = [*course, Period(then.name, live, then.unit, end, None, end, "somebody else")]
    last = len(course) - 1
    while last > 0 and course[last].is_ours:
        last -= 1
    now, target = course[-1], course[last].value
    if now.value == target == then.value:
        return None
    return Setback(then, now, target, course[last] if target != then.value else None)
