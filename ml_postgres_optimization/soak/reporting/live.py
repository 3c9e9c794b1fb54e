"""How a run stands right now, from the intervals that it has finished."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_postgres_optimization.soak.figures.grain import response_figures
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.figures.totals import Totals
from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import Totals as Recorded
from ml_postgres_optimization.telemetry import Histogram

RECENT_SECONDS = 60.0
_TRACE_LENGTH = 60
_MOST_EVENTS = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """A run at one moment.

    Parameters
    ----------
    description : RunOutline
    state : IntervalState
        Of the last interval.
    epoch : int
    elapsed_seconds, left_seconds : float
    recent_seconds : float
        How much was measured within the last minute, which the next figures are of.
    offered_per_second, succeeded_per_second : float
        NaN where nothing was measured.
    response : mapping of str to float
        As `response_figures`; from merged buckets.
    errors : mapping of str to int
        By SQLSTATE.
    success_ratio : float
        Of the whole run so far; NaN before anything came due.
    failed_total : int
        Operations of the whole run that did not succeed.
    trace : tuple of float
        p99 of the last intervals, oldest first; NaN where one was not measured.
    events : tuple of Event
        The last ones, newest first, without checkpoints.
    """

    description: RunOutline
    state: IntervalState
    epoch: int
    elapsed_seconds: float
    left_seconds: float
    recent_seconds: float
    offered_per_second: float
    succeeded_per_second: float
    response: Mapping[str, float]
    errors: Mapping[str, int]
    success_ratio: float
    failed_total: int
    trace: tuple[float, ...]
    events: tuple[Event, ...]


@dataclass(slots=True)
class LiveFigures:
    """Keeps what a screen shows of a run; its memory does not grow with the run.

    Parameters
    ----------
    description : RunOutline
    """

    description: RunOutline
    _totals: Totals = field(default_factory=Totals)
    _recent: deque[Interval] = field(default_factory=deque)
    _trace: deque[float] = field(default_factory=lambda: deque(maxlen=_TRACE_LENGTH))
    _events: deque[Event] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))

    @classmethod
    def after(cls, description: RunOutline, so_far: Recorded) -> LiveFigures:
        """Return them as they stand after what a run has recorded so far, without its events."""
        totals = Totals(
            counted_total=so_far.due_total,
            ended_total=so_far.succeeded_total + so_far.failed_total + so_far.skipped_total,
            succeeded_total=so_far.succeeded_total,
        )
        return cls(description, totals)

    def add(self, interval: Interval) -> Standing:
        """Count a finished interval, and return how the run stands."""
        self._totals.add(interval)
        self._recent.append(interval)
        oldest = interval.number + 1 - max(1, round(RECENT_SECONDS / self.description.interval_seconds))
        while self._recent[0].number < oldest:
            self._recent.popleft()
        response = interval.window.response if interval.window is not None else Histogram.empty()
        self._trace.append(response.quantile_seconds(0.99))
        self._events.extendleft(event for event in interval.events if event.kind is not EventKind.CHECKPOINT)
        return self._standing(interval)

    def _standing(self, last: Interval) -> Standing:
        windows = [interval.window for interval in self._recent if interval.window is not None]
        seconds = sum(window.duration_seconds for window in windows)
        elapsed = self.description.seconds_until(last.number + 1)
        response = sum((window.response for window in windows), Histogram.empty())
        failed = sum(window.failed_total for window in windows)
        errors: Counter[str] = Counter()
        for window in windows:
            errors.update(window.errors)
        return Standing(
            description=self.description,
            state=last.state,
            epoch=last.epoch,
            elapsed_seconds=elapsed,
            left_seconds=max(0.0, self.description.planned_seconds - elapsed),
            recent_seconds=seconds,
            offered_per_second=sum(window.due_total for window in windows) / seconds if seconds else math.nan,
            succeeded_per_second=(response.total - failed) / seconds if seconds else math.nan,
            response=response_figures(response),
            errors=dict(errors.most_common()),
            success_ratio=self._totals.success_ratio,
            failed_total=self._totals.due_total - self._totals.succeeded_total,
            trace=tuple(self._trace),
            events=tuple(self._events),
        )
