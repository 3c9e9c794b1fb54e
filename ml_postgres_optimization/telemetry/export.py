"""Windows as a flat table, for spreadsheets and notebooks; and the table as a file."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ml_postgres_optimization.telemetry.histogram import Histogram
from ml_postgres_optimization.telemetry.window import OperationWindow, Window

if TYPE_CHECKING:
    import pandas as pd

Cell = object

COLUMNS: Mapping[str, str] = {
    "started_at": "beginning of the window, UTC",
    "ended_at": "end of the window, UTC",
    "duration_seconds": "length of the window, in seconds",
    "configuration_id": "configuration in force during the whole window",
    "server": "system identifier of the server; empty where nobody said",
    "run": "label: the run that made it",
    "level": "label: level of load",
    "phase": "label: what the run was doing",
    "arm": "label: baseline or candidate, in a trial",
    "operations_total": "operations that finished, failed ones included",
    "failed_total": "operations that failed",
    "skipped_total": "operations that were due and never started",
    "error_ratio": "failed over finished operations, 0 to 1",
    "throughput_per_second": "operations that succeeded, per second",
    "mean_response_seconds": "mean time from the intended start to the end",
    "p50_response_seconds": "half of the operations answered within",
    "p95_response_seconds": "95 % of the operations answered within",
    "p99_response_seconds": "99 % of the operations answered within",
    "p999_response_seconds": "99.9 % of the operations answered within",
    "max_response_seconds": "the slowest operation",
    "mean_service_seconds": "mean time from the actual start to the end",
    "p99_service_seconds": "99 % of the operations served within",
    "p99_lag_seconds": "how late the load generator's own scheduler was, 99 % of the time at most",
    "statement_calls_total": "statements executed, by pg_stat_statements",
    "mean_statement_seconds": "mean execution time, by pg_stat_statements",
    "active_sessions": "average active sessions",
}
"""The columns that are always there, and what they hold; what was not measured is empty, never zero."""

COLUMN_FAMILIES: Mapping[str, str] = {
    "operation.<kind>.<figure>": "operations_total, failed_total and times of a kind of operation",
    "error.<SQLSTATE>_total": "operations that failed with this SQLSTATE",
    "retried.<SQLSTATE>_total": "attempts that failed with this SQLSTATE and were followed by another one",
    "ambiguous_total": "failed operations that may have been committed all the same",
    "wait.<class>_sessions": "average active sessions that waited for this",
    "rate.<source>.<name>": "growth of a counter, per second",
    "gauge.<source>.<name>": "value at the end of the window",
    "label.<name>": "any other label",
    "unseen": "what could not be read, and why",
}
"""The columns that are there where a window has them; the order within a family is that of the alphabet."""

_OWN_LABELS = ("run", "level", "phase", "arm")


def window_frame(windows: Iterable[Window]) -> pd.DataFrame:
    """Return one row for each window, in the given order; see `COLUMNS` and `COLUMN_FAMILIES`.

    Parameters
    ----------
    windows : iterable of Window
        May be empty: the table then has its columns and no rows.
    """
    rows = WindowRows()
    for window in windows:
        rows.append(window)
    return rows.frame()


class WindowRows:
    """The rows of `window_frame`, kept by column: some 3 kB each, where a window takes 300 kB and a row as a dict 16.

    So the windows of days fit into memory.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Cell] | array[float]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, window: Window) -> None:
        """Add the row of one more window."""
        row = {**window_figures(window), **_families(window)}
        for name, cell in row.items():
            if name not in self._columns:
                are_floats = isinstance(cell, float)
                self._columns[name] = array("d", [math.nan] * self._length) if are_floats else [None] * self._length
        for name, column in self._columns.items():
            cell = row.get(name)
            column.append(math.nan if cell is None and isinstance(column, array) else cell)  # type: ignore[arg-type]
        self._length += 1

    def frame(self) -> pd.DataFrame:
        """Return all rows as one table, in the order in which they were added."""
        import pandas as pd  # noqa: PLC0415  (a third of a second, for what few commands do)

        families = sorted(self._columns.keys() - COLUMNS.keys(), key=_family_order)
        missing: list[Cell] = [None] * self._length
        cells = ((name, self._columns.get(name, missing)) for name in (*COLUMNS, *families))
        frame = pd.DataFrame({name: np.array(cell) if isinstance(cell, array) else cell for name, cell in cells})
        for name in ("started_at", "ended_at"):
            frame[name] = pd.to_datetime(frame[name], utc=True)
        return frame


def window_figures(window: Window) -> dict[str, Cell]:
    """Return the figures of a window by the names of `COLUMNS`; None for what was not measured."""
    response = window.response
    calls = sum(counters.calls_total for counters in window.statements.values())
    execution_seconds = sum(counters.execution_seconds_total for counters in window.statements.values())
    return {
        "started_at": window.started_at,
        "ended_at": window.ended_at,
        "duration_seconds": window.duration_seconds,
        "configuration_id": window.configuration_id,
        "server": window.server,
        **{label: window.labels.get(label) for label in _OWN_LABELS},
        "operations_total": response.total,
        "failed_total": window.failed_total,
        "skipped_total": window.skipped_total,
        "error_ratio": window.error_ratio if response.total else None,
        "throughput_per_second": window.throughput_per_second if response.total else None,
        **_times("response", response, {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}),
        "max_response_seconds": response.max_seconds if response.total else None,
        **_times("service", window.service, {"p99": 0.99}),
        "p99_lag_seconds": window.lag.quantile_seconds(0.99) if window.lag.total else None,
        "statement_calls_total": calls if window.statements else None,
        "mean_statement_seconds": execution_seconds / calls if calls else None,
        "active_sessions": sum(window.waits.values()) if window.waits else None,
    }


def operation_figures(part: OperationWindow) -> dict[str, Cell]:
    """Return the figures of one kind of operation; None for what was not measured."""
    return {
        "operations_total": part.response.total,
        "failed_total": part.failed_total,
        **_times("response", part.response, {"p50": 0.5, "p95": 0.95, "p99": 0.99}),
        **_times("service", part.service, {}),
    }


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV (UTF-8, a header, ISO 8601 times); the file is whole, or is not there.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before is left as it was.
    """
    times = {name: frame[name].map(datetime.isoformat) for name in ("started_at", "ended_at")}
    write_whole(path, lambda partial: frame.assign(**times).to_csv(partial, index=False))


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as Parquet; the file is whole, or is not there.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before is left as it was.
    """
    write_whole(path, lambda partial: frame.to_parquet(partial, index=False))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file beside `path`, and put it there once it is whole.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before is left as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _times(name: str, histogram: Histogram, quantiles: Mapping[str, float]) -> dict[str, Cell]:
    return {
        f"mean_{name}_seconds": histogram.mean_seconds if histogram.total else None,
        **{
            f"{short}_{name}_seconds": histogram.quantile_seconds(quantile) if histogram.total else None
            for short, quantile in quantiles.items()
        },
    }


def _families(window: Window) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for kind, part in window.operations.items():
        cells |= {f"operation.{kind}.{name}": cell for name, cell in operation_figures(part).items()}
    cells |= {f"error.{sqlstate}_total": count for sqlstate, count in window.errors.items()}
    cells |= {f"retried.{sqlstate}_total": count for sqlstate, count in window.retried.items()}
    if window.ambiguous_total:
        cells["ambiguous_total"] = window.ambiguous_total
    cells |= {f"wait.{wait}_sessions": sessions for wait, sessions in window.waits.items()}
    cells |= {f"rate.{name}": rate for name, rate in window.rates.items()}
    cells |= {f"gauge.{name}": value for name, value in window.gauges.items()}
    cells |= {f"label.{name}": text for name, text in window.labels.items() if name not in _OWN_LABELS}
    if window.unseen:
        cells["unseen"] = "; ".join(f"{source}: {reason}" for source, reason in sorted(window.unseen.items()))
    return cells


def _family_order(column: str) -> tuple[int, str]:
    families = [family.partition(".")[0] for family in COLUMN_FAMILIES]
    return families.index(column.partition(".")[0]), column
