"""One slot of time being filled: buckets are merged and counts added, percentiles are read at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.figures.totals import MEASURED
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
        Receives each finished slot's number and all of its response times, merged.

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
        """Count an interval that begins so long after the run.

        Of one in which the server was down only what the load met is counted: what was due, and the errors.
        """
        slot = int(offset_seconds // self.columns.slot_seconds)
        if slot != self._slot:
            self.close()
            self._slot = slot
        if interval.window is not None:
            self._count_load(interval.window)
            if interval.state in MEASURED:
                self._count_server(interval.window)
        if interval.state in MEASURED:
            _append(self._values, "resource", interval.resources)

    def close(self) -> None:
        """Read the figures of the open slot and begin a new one."""
        if self._loaded_seconds > 0:
            self.columns.put(self._slot, self._figures())
            if self._on_slot:
                self._on_slot(self._slot, self._answered)
        self._open()

    def _open(self) -> None:
        self._answered = self._response = self._lag = Histogram.empty()
        self._loaded_seconds = self._seconds = 0.0
        self._load: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._values: dict[str, list[float]] = {}

    def _count_load(self, window: Window) -> None:
        failed = window.failed_total
        self._loaded_seconds += window.duration_seconds
        self._answered += window.response
        self._lag += window.lag
        _add(self._load, "load.offered", window.due_total)
        _add(self._load, "load.succeeded", window.operations_total - failed)
        _add(self._load, "load.failed", failed)
        _add(self._load, "load.skipped", window.skipped_total)
        for sqlstate, count in window.errors.items():
            _add(self._load, f"error.{sqlstate}", count)

    def _count_server(self, window: Window) -> None:
        self._seconds += window.duration_seconds
        self._response += window.response
        for wait, sessions in window.waits.items():
            _add(self._waits, f"wait.{wait}", sessions * window.duration_seconds)
        _append(self._values, "gauge", window.gauges)
        _append(self._values, "rate", window.rates)

    def _figures(self) -> dict[str, float]:
        return {
            **response_figures(self._response),
            **_lag_figures(self._lag),
            **{name: total / self._loaded_seconds for name, total in self._load.items()},
            **{name: total / self._seconds for name, total in self._waits.items()},
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


def _lag_figures(lag: Histogram) -> dict[str, float]:
    """Return how late the load's scheduler was, in seconds."""
    if not lag.total:
        return {}
    return {"lag.p50": lag.quantile_seconds(0.5), "lag.p99": lag.quantile_seconds(0.99), "lag.max": lag.max_seconds}


def _add(into: dict[str, float], name: str, value: float) -> None:
    into[name] = into.get(name, 0.0) + value


def _append(into: dict[str, list[float]], family: str, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        into.setdefault(f"{family}.{name}", []).append(value)
