"""A window in the few numbers that tell whether the load, or the answer to it, has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Measure

_QUANTILES = {Measure.P95: 0.95, Measure.P99: 0.99}


@dataclass(frozen=True, slots=True)
class Reading:
    """What one window says of the load, and of the answer to it.

    Parameters
    ----------
    at_seconds : float
        End of the window, since the epoch.
    counts : mapping of str to int
        Operations that ended, by kind; on sessions that are not ours calls, by query.
    rate_per_second : float
        Operations that came due, or calls that ended.
    response_seconds : float
        By the measure that trials compare; NaN where nothing ended. On sessions that are not ours the mean execution
        time of a call, the only one that can be seen.
    """

    at_seconds: float
    counts: Mapping[str, int]
    rate_per_second: float
    response_seconds: float

    @classmethod
    def of(cls, window: Window, measure: Measure = Measure.MEAN) -> Reading:
        """Read `window`; the response times of all its operations together."""
        at_seconds = window.ended_at.timestamp()
        if not window.operations_total:
            return cls._of_statements(window, at_seconds)
        counts = {kind: operation.response.total for kind, operation in window.operations.items()}
        rate = window.due_total / window.duration_seconds if window.duration_seconds else 0.0
        response = window.response
        quantile = _QUANTILES.get(measure)
        seconds = response.mean_seconds if quantile is None else response.quantile_seconds(quantile)
        return cls(at_seconds, counts, rate, seconds)

    @classmethod
    def _of_statements(cls, window: Window, at_seconds: float) -> Reading:
        counts: dict[str, int] = {}
        for key, counters in window.statements.items():
            counts[str(key[0])] = counts.get(str(key[0]), 0) + counters.calls_total
        calls = sum(counts.values())
        seconds = sum(counters.execution_seconds_total for counters in window.statements.values())
        rate = calls / window.duration_seconds if window.duration_seconds else 0.0
        return cls(at_seconds, counts, rate, seconds / calls if calls else math.nan)

    @property
    def is_idle(self) -> bool:
        """Whether nothing ran that could be judged: no load is no change of the load."""
        return not (self.rate_per_second > 0 and self.response_seconds > 0)

    def __str__(self) -> str:
        return f"{self.rate_per_second:,.0f}/s at {self.response_seconds * 1000:.2f} ms"
