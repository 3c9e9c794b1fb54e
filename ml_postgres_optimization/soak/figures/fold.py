"""Fold a run's intervals, as they are read, into what its judge and its readers need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.figures.grain import Grain, SlotSink
from ml_postgres_optimization.soak.figures.happenings import Happenings
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.figures.totals import MEASURED, Totals
from ml_postgres_optimization.soak.interval import Event, Interval, IntervalState

MINUTE_SECONDS = 60.0
# As many points as a picture can show side by side.
_MOST_SLOTS = 720
_NICE_SECONDS = tuple(unit * number for unit in (1, 60, 3600) for number in (1, 2, 3, 5, 6, 10, 12, 15, 20, 24, 30))
HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of intervals that were not measured, or are doubtful.

    Parameters
    ----------
    state : IntervalState
    from_seconds, until_seconds : float
        Since the run's start.
    intervals_total : int
    """

    state: IntervalState
    from_seconds: float
    until_seconds: float
    intervals_total: int


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run, folded.

    Parameters
    ----------
    description : RunOutline
    totals : Totals
    minutes : Columns
        Figures by minute (by interval, where that is longer).
    slots : Columns
        The same by slots of at most some 720 for the whole run, for pictures; from merged buckets, too.
    gaps : tuple of Gap
    events : tuple of Event
        By time: those of the journal, and those that the server's counters show.
    intervals_total : int
    covered_seconds : float
        From the run's start to the end of its last interval.
    hours : dict of int to tuple of (int, int)
        What came due in each hour, and what of it succeeded; hours in which nothing came due are left out.
    """

    description: RunOutline
    totals: Totals
    minutes: Columns
    slots: Columns
    gaps: tuple[Gap, ...]
    events: tuple[Event, ...]
    intervals_total: int
    covered_seconds: float
    hours: Mapping[int, tuple[int, int]]


def fold(description: RunOutline, intervals: Iterable[Interval], *, on_minute: SlotSink | None = None) -> RunFigures:
    """Read a run once, from its first interval to its last; what it keeps grows by minutes, not by operations.

    Parameters
    ----------
    description : RunOutline
    intervals : iterable of Interval
        By number. A number that is not there counts as lost.
    on_minute : callable, optional
        Receives each minute's number and merged response times as it is finished.

    Raises
    ------
    StateError
        If a number comes twice, or after a later one: it would count twice.
    """
    course = _Course(description, on_minute)
    for interval in intervals:
        course.add(interval)
    return course.finished()


def slot_seconds(planned_seconds: float, interval_seconds: float) -> float:
    """Return the shortest slot of whole intervals, a round one if there is one, that cuts a run into at most 720.

    Examples
    --------
    >>> slot_seconds(72 * 3600, 10)
    360.0
    """
    shortest = interval_seconds * max(1, math.ceil(planned_seconds / interval_seconds / _MOST_SLOTS))
    for seconds in _NICE_SECONDS:
        intervals = seconds / interval_seconds
        if shortest <= seconds <= 2 * shortest and math.isclose(intervals, round(intervals)):
            return float(seconds)
    return shortest


class _Course:
    """A run on its way from its first interval to its last."""

    def __init__(self, description: RunOutline, on_minute: SlotSink | None) -> None:
        self._description = description
        length = description.interval_seconds
        self._minutes = Grain(max(MINUTE_SECONDS, length), on_minute)
        self._slots = Grain(slot_seconds(description.planned_seconds, length))
        self._totals = Totals()
        self._gaps: list[Gap] = []
        self._events: list[Event] = []
        self._happenings = Happenings()
        self._hours: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._total = 0

    def add(self, interval: Interval) -> None:
        if interval.number < self._next:
            raise StateError(
                f"Run {self._description.run}: interval {interval.number} comes after interval {self._next - 1}.",
                "Its journal is damaged, or two runners wrote it; do not judge it.",
            )
        self._lose(interval.number)
        self._count(interval)
        self._events += [*interval.events, *self._happenings.seen_in(interval)]
        if interval.state in MEASURED or interval.state is IntervalState.SERVER_DOWN:
            offset = interval.number * self._description.interval_seconds
            self._minutes.add(interval, offset)
            self._slots.add(interval, offset)
        self._mark(interval.state, interval.number, interval.number + 1)
        self._next = interval.number + 1
        self._total += 1

    def _count(self, interval: Interval) -> None:
        totals = self._totals
        due, succeeded = totals.due_total, totals.succeeded_total
        totals.add(interval)
        if totals.due_total > due or totals.succeeded_total > succeeded:
            hour = int(interval.number * self._description.interval_seconds // HOUR_SECONDS)
            before = self._hours.get(hour, (0, 0))
            self._hours[hour] = (before[0] + totals.due_total - due, before[1] + totals.succeeded_total - succeeded)

    def finished(self) -> RunFigures:
        covered = self._description.seconds_until(self._next)
        for grain in (self._minutes, self._slots):
            grain.close()
            grain.columns.extend(math.ceil(covered / grain.columns.slot_seconds))
        return RunFigures(
            description=self._description,
            totals=self._totals,
            minutes=self._minutes.columns,
            slots=self._slots.columns,
            gaps=tuple(self._gaps),
            events=tuple(sorted(self._events, key=lambda event: event.at)),
            intervals_total=self._total,
            covered_seconds=covered,
            hours=self._hours,
        )

    def _lose(self, number: int) -> None:
        """Mark the numbers before this one that never came."""
        missing = number - self._next
        if missing > 0:
            seconds = missing * self._description.interval_seconds
            self._totals.seconds[IntervalState.LOST] = self._totals.seconds.get(IntervalState.LOST, 0.0) + seconds
            self._mark(IntervalState.LOST, self._next, number)

    def _mark(self, state: IntervalState, first: int, after: int) -> None:
        if state is IntervalState.MEASURED:
            return
        length = self._description.interval_seconds
        last = self._gaps[-1] if self._gaps else None
        if last and last.state is state and math.isclose(last.until_seconds, first * length):
            self._gaps[-1] = Gap(state, last.from_seconds, after * length, last.intervals_total + after - first)
        else:
            self._gaps.append(Gap(state, first * length, after * length, after - first))
