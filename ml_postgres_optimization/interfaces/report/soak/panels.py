"""Which plots a run gets, from what was measured in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.interfaces.report.soak.plot import Line, Plot
from ml_postgres_optimization.interfaces.report.soak.scale import Shown
from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.judging.metrics import BLOAT, CLIENT_MEMORY, SERVER_MEMORY
from ml_postgres_optimization.soak.judging.quantity import shown_bytes, shown_seconds

# As many classes as can be told apart; the rest are added up.
_MOST_CLASSES = 6
_PERCENTILES = (("p99.9", "p99_9", 4), ("p99", "p99", 3), ("p95", "p95", 2), ("p50", "p50", 1))


def plots_of(slots: Columns, *, success_ratio: float | None = None) -> list[Plot]:
    """Return the plots that have something to show, in the order of reading.

    Parameters
    ----------
    slots : Columns
    success_ratio : float, optional
        What of the operations is to succeed: the rest is the error budget.
    """
    plots = (
        *_service(slots),
        *_burn(slots, success_ratio),
        *_inside(slots),
        *_resources(slots),
        *_stocks(slots),
        *_limits_and_client(slots),
    )
    return [plot for plot in plots if any(np.isfinite(line.values).any() for line in plot.lines)]


def _service(slots: Columns) -> Iterator[Plot]:
    yield Plot(
        "Response time",
        "from the intended start; percentiles of merged buckets; logarithmic",
        [Line(name, slots.column(f"response.{column}"), colour) for name, column, colour in _PERCENTILES],
        shown_seconds,
        is_logarithmic=True,
    )
    yield Plot(
        "Throughput",
        "operations per second, offered and succeeded",
        [
            Line("offered", slots.column("load.offered"), 5, is_dashed=True),
            Line("succeeded", slots.column("load.succeeded"), 1),
        ],
        _per_second,
    )
    errors = _classes(slots, "error", slots.column("load.failed"))
    skipped = slots.column("load.skipped")
    if np.nansum(skipped) > 0:
        errors = [*errors, Line("never started", skipped * 60, 8)]
    yield Plot(
        "Errors",
        "operations per minute that failed, by SQLSTATE",
        errors if any(np.nansum(line.values) for line in errors) else [],
        _count,
        is_stacked=True,
        is_low=True,
    )


def _burn(slots: Columns, success_ratio: float | None) -> Iterator[Plot]:
    if success_ratio is None or success_ratio >= 1:
        return
    offered, succeeded = slots.column("load.offered"), slots.column("load.succeeded")
    missed = np.divide(offered - succeeded, offered, out=np.full_like(offered, np.nan), where=offered > 0)
    line = Line("use", np.maximum(missed, 0.0) / (1 - success_ratio), 4)
    note = f"times what {1 - success_ratio:.3g} of failures allows; at 1 it is used up exactly when the run ends"
    yield Plot("Use of the error budget", note, [line], _times, is_low=True)


def _inside(slots: Columns) -> Iterator[Plot]:
    present = slots.column("load.offered")
    waits = _classes(slots, "wait", present, factor=1.0)
    yield Plot(
        "What sessions do",
        "average active sessions: on the CPU, or waiting for what",
        sorted(waits, key=lambda line: line.name != "CPU"),
        _count,
        is_stacked=True,
    )
    yield _single(slots, "WAL", "written per second", "rate.wal.generated_bytes_per_second", _bytes_per_second)
    checkpoints = "rate.checkpointer.written_blocks_per_second"
    yield _single(slots, "Checkpoint writes", "blocks per second", checkpoints, _per_second)


def _resources(slots: Columns) -> Iterator[Plot]:
    cpu = [
        Line("server's machine", slots.column("rate.host.cpu_busy_seconds_per_second"), 1),
        Line("busiest client process", slots.column("resource.client.cpu_ratio"), 2),
        Line("runner of the test", slots.column("resource.runner.cores"), 3),
    ]
    yield _several("CPU", "cores in use", cpu, _count)
    for metric, note in (
        (CLIENT_MEMORY, "of the load's own processes"),
        (SERVER_MEMORY, "what PostgreSQL's processes have for themselves, or its control group"),
    ):
        line = Line(metric.title, metric.values(slots), 1)
        yield Plot(_capital(metric.title), note, [line], shown_bytes, is_from_zero=False, is_low=True)
    size = Line(BLOAT.title, BLOAT.values(slots), 1)
    yield Plot("Size per live row", "tables, indexes and TOAST", [size], shown_bytes, is_from_zero=False, is_low=True)
    yield _single(slots, "Disk writes", "per second", "rate.host.disk_written_bytes_per_second", _bytes_per_second)


def _stocks(slots: Columns) -> Iterator[Plot]:
    stalls = [
        Line(name, slots.column(f"rate.host.pressure_{resource}_some_seconds_per_second"), colour)
        for colour, (name, resource) in enumerate((("CPU", "cpu"), ("I/O", "io"), ("memory", "memory")), 1)
    ]
    yield _several("Pressure", "share of the time in which something on the machine waited for it", stalls, _count)
    dead = _first(slots, "resource.load_tables.dead_tuples", "gauge.tables.dead_tuples")
    yield Plot(
        "Dead rows", "not yet vacuumed, as the server estimates", [Line("dead rows", dead, 1)], _count, is_low=True
    )
    sizes = [
        Line("tables, indexes and TOAST", slots.column("resource.load_tables.total_bytes"), 1),
        Line("indexes", slots.column("resource.load_tables.index_bytes"), 2),
    ]
    yield _several("Size of the load's tables", "on disk", sizes, shown_bytes)
    wal = [
        Line("files in pg_wal", slots.column("resource.wal_folder.total_bytes"), 1),
        Line("held back by a slot", slots.column("gauge.slots.retained_wal_bytes"), 4),
    ]
    yield _several("WAL kept", "on disk", wal, shown_bytes)
    yield _single(slots, "Disk left", "where the data are", "gauge.host.disk_free_bytes", shown_bytes)


def _limits_and_client(slots: Columns) -> Iterator[Plot]:
    ages = [
        Line("transaction ids", slots.column("gauge.cluster.oldest_transaction_id_age"), 1),
        Line("multixacts", slots.column("gauge.cluster.oldest_multixact_age"), 2),
    ]
    yield _several(
        "Oldest that is not frozen", "how many came after it; vacuum must come before 2 billion", ages, _count
    )
    yield _single(slots, "Spilled to disk", "sorts and hashes beyond work_mem, per second",
                  "rate.database.temp_bytes_per_second", _bytes_per_second)  # fmt: skip
    lags = [Line(name, slots.column(f"lag.{name}"), colour) for name, colour in (("p99", 3), ("p50", 1))]
    yield _several(
        "Lag of the load's scheduler", "how late the client itself noticed what was due", lags, shown_seconds
    )
    under_way = "resource.client.operations_under_way"
    yield _single(slots, "Under way", "operations that came due and had not ended", under_way, _count)


def _several(title: str, note: str, lines: Sequence[Line], shown: Shown) -> Plot:
    """Return a plot of those of the lines that were measured."""
    return Plot(title, note, [line for line in lines if np.isfinite(line.values).any()], shown, is_low=True)


def _first(slots: Columns, *names: str) -> NDArray[np.float64]:
    return slots.column(next((name for name in names if name in slots), names[0]))


def _single(slots: Columns, title: str, note: str, column: str, shown: Shown) -> Plot:
    return Plot(title, note, [Line(title, slots.column(column), 1)], shown, is_low=True)


def _classes(slots: Columns, family: str, measured: NDArray[np.float64], *, factor: float = 60.0) -> Sequence[Line]:
    """Return the classes of a family, largest first, each 0 where something was measured and it was not met."""
    there = np.isfinite(measured)
    found = {}
    for name in slots.names_of(family):
        values = np.where(there, np.nan_to_num(slots.column(name)), np.nan) * factor
        found[name.partition(".")[2]] = values
    ordered = sorted(found, key=lambda name: -float(np.nansum(found[name])))
    lines = [Line(name, found[name], number) for number, name in enumerate(ordered[:_MOST_CLASSES], 1)]
    if len(ordered) > _MOST_CLASSES:
        others = np.sum([found[name] for name in ordered[_MOST_CLASSES:]], axis=0)
        lines.append(Line(f"{len(ordered) - _MOST_CLASSES} others", others, 7))
    return lines


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _times(value: float) -> str:
    return f"{_count(value)} ×"


def _per_second(value: float) -> str:
    return f"{_count(value)}/s"


def _bytes_per_second(value: float) -> str:
    return f"{shown_bytes(value)}/s"


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
