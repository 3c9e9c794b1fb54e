"""What a run did in total, and for how long it could be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ml_postgres_optimization.soak.interval import Interval, IntervalState
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window

MEASURED = frozenset({IntervalState.MEASURED, IntervalState.DEGRADED})


@dataclass(slots=True)
class Totals:
    """Counts over a whole run.

    Parameters
    ----------
    counted_total, ended_total : int
        Operations that came due, and those that ended or were skipped: the first ends later than it comes due, and
        a load that nobody counted has the second only.
    presumed_total : int
        Operations that would have come due while the server was down and nobody counted, at the rate that was
        offered before.
    succeeded_total, failed_total, skipped_total, ambiguous_total : int
    operations : dict of str to OperationWindow
        By kind.
    lag : Histogram
    errors, retried : Counter
        By SQLSTATE.
    seconds : dict of IntervalState to float
        How long each state lasted.
    configurations : dict of str to float
        Seconds under each configuration.
    """

    counted_total: int = 0
    ended_total: int = 0
    presumed_total: int = 0
    succeeded_total: int = 0
    failed_total: int = 0
    skipped_total: int = 0
    ambiguous_total: int = 0
    operations: dict[str, OperationWindow] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram.empty)
    errors: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    seconds: dict[IntervalState, float] = field(default_factory=dict)
    configurations: dict[str, float] = field(default_factory=dict)
    _offered_per_second: float = 0.0

    def add(self, interval: Interval) -> None:
        """Count one interval, by its state."""
        self.seconds[interval.state] = self.seconds.get(interval.state, 0.0) + interval.seconds
        if interval.window is not None and interval.state not in {IntervalState.CLIENT_DOWN, IntervalState.LOST}:
            self._count(interval.window, interval.state)
        elif interval.state is IntervalState.SERVER_DOWN and interval.counted_in is None:
            self.presumed_total += round(self._offered_per_second * interval.seconds)

    def _count(self, window: Window, state: IntervalState) -> None:
        self.counted_total += window.due_total
        self.ended_total += window.operations_total + window.skipped_total
        self.succeeded_total += window.operations_total - window.failed_total
        self.failed_total += window.failed_total
        self.skipped_total += window.skipped_total
        self.ambiguous_total += window.ambiguous_total
        self.errors.update(window.errors)
        self.retried.update(window.retried)
        self.lag += window.lag
        for kind, part in window.operations.items():
            self.operations[kind] = self.operations[kind] + part if kind in self.operations else part
        seconds = window.duration_seconds
        self.configurations[window.configuration_id] = self.configurations.get(window.configuration_id, 0.0) + seconds
        if state in MEASURED and seconds > 0:
            self._offered_per_second = window.due_total / seconds

    @property
    def due_total(self) -> int:
        """Operations that came due, `presumed_total` included."""
        return max(self.counted_total, self.ended_total) + self.presumed_total

    @property
    def response(self) -> Histogram:
        """Response times of all kinds together."""
        return sum((part.response for part in self.operations.values()), Histogram.empty())

    @property
    def success_ratio(self) -> float:
        """Succeeded over due; NaN where nothing came due."""
        return self.succeeded_total / self.due_total if self.due_total else float("nan")

    def seconds_in(self, states: Iterable[IntervalState]) -> float:
        """Return how long the run was in any of these states."""
        return float(np.sum([self.seconds.get(state, 0.0) for state in states]))
