"""One slot of time being filled: buckets are merged and counts added, percentiles are read at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.telemetry import Histogram, Window

QUANTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}

SlotSink = Callable[[int, Histogram], None]


class Grain:
    """Figures of one length of slot, filled interval by interval.

    Parameters
    ----------
    slot_seconds : float
    on_slot : callable, optional
        Receives each finished slot's number and merged response times.

    Notes
    -----
    An interval belongs to the slot in which it begins. Counts and waits are averaged by time, gauges and
    rates over the intervals that have them.
    """

    def __init__(self, slot_seconds: float, on_slot: SlotSink | None = None) -> None:
        self.columns = Columns(slot_seconds)
        self._on_slot = on_slot
        self._slot = -1
        self._open()

    def add(self, interval: Interval, offset_seconds: float) -> None:
        """Count a measured interval that begins so long after the run."""
        slot = int(offset_seconds // self.columns.slot_seconds)
        if slot != self._slot:
            self.close()
            self._slot = slot
        if interval.window is not None:
            self._count(interval.window)
        _append(self._values, "resource", interval.resources)

    def close(self) -> None:
        """Read the figures of the open slot and begin a new one."""
        if self._seconds > 0:
            self.columns.put(self._slot, self._figures())
            if self._on_slot:
                self._on_slot(self._slot, self._response)
        self._open()

    def _open(self) -> None:
        self._response = Histogram.empty()
        self._seconds = 0.0
        self._counts: dict[str, float] = {}
        self._values: dict[str, list[float]] = {}

    def _count(self, window: Window) -> None:
        seconds = window.duration_seconds
        self._seconds += seconds
        self._response += window.response
        failed = window.failed_total
        totals = {
            "load.offered": window.due_total,
            "load.succeeded": window.operations_total - failed,
            "load.failed": failed,
            "load.skipped": window.skipped_total,
            **{f"error.{sqlstate}": count for sqlstate, count in window.errors.items()},
            **{f"wait.{wait}": sessions * seconds for wait, sessions in window.waits.items()},
        }
        for name, total in totals.items():
            self._counts[name] = self._counts.get(name, 0.0) + total
        _append(self._values, "gauge", window.gauges)
        _append(self._values, "rate", window.rates)

    def _figures(self) -> dict[str, float]:
        return {
            **response_figures(self._response),
            **{name: total / self._seconds for name, total in self._counts.items()},
            **{name: sum(values) / len(values) for name, values in self._values.items()},
        }


def response_figures(response: Histogram) -> dict[str, float]:
    """Return mean, percentiles and maximum by column, in seconds; nothing where nothing was answered."""
    if not response.total:
        return {}
    return {
        "response.mean": response.mean_seconds,
        **{f"response.{name}": response.quantile_seconds(quantile) for name, quantile in QUANTILES.items()},
        "response.max": response.max_seconds,
    }


def _append(into: dict[str, list[float]], family: str, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        into.setdefault(f"{family}.{name}", []).append(value)
