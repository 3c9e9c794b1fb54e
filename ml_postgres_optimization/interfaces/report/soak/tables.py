"""The report's tables, for who wants the figures behind the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ml_postgres_optimization.interfaces.report.soak.lanes import listed
from ml_postgres_optimization.interfaces.report.soak.words import duration
from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.figures.totals import Totals
from ml_postgres_optimization.soak.judging.drift.assessment import Drift
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown, shown_bytes, shown_seconds
from ml_postgres_optimization.soak.judging.verdict import Verdict
from ml_postgres_optimization.telemetry import Histogram

MOST_EVENTS = 200
_QUANTILES = (0.5, 0.95, 0.99, 0.999)


def tables_of(figures: RunFigures, verdict: Verdict) -> Iterator[Table]:
    """Yield the tables of a run: evidence, responses, errors, drift, gaps, events."""
    evidence = [(one.title, one.outcome.value, one.found, one.limit, one.evidence) for one in verdict.findings]
    yield Table("Criteria and what they stand on", ("criterion", "", "found", "limit", "evidence"), evidence, 4)
    yield drift_table(verdict)
    yield _responses(figures.totals)
    yield _errors(figures.totals)
    if len(figures.totals.configurations) > 1:
        rows = [(name, duration(seconds)) for name, seconds in figures.totals.configurations.items()]
        yield Table("Configurations", ("configuration", "in force"), rows, 1)
    yield _gaps(figures)
    yield _events(figures)


def drift_table(verdict: Verdict) -> Table:
    """Return what became of each metric over the run."""
    columns = ("metric", "level", "over the run", "by accident", "would be found", "level changed", "")
    rows = [_drift_row(drift) for drift in verdict.drifts.values()]
    return Table("Drift", columns, rows, 1)


def _drift_row(drift: Drift) -> tuple[str, ...]:
    if drift.doubt is not None and not drift.blocks_total:
        return (drift.metric.title, "–", "–", "–", "–", "–", drift.doubt)
    probability = "p < 0.001" if drift.probability < 0.001 else f"p = {drift.probability:.2g}"
    verdict = "worse" if drift.is_worse else "drifted" if drift.found else "no drift"
    shifts = ", ".join(f"at hour {hours:.3g}" for hours in drift.shifts_hours) or "no"
    return (
        drift.metric.title,
        _level(drift),
        shown(drift.change_ratio, Dimension.GROWTH),
        probability,
        shown(drift.detectable_ratio, Dimension.GROWTH),
        shifts,
        drift.doubt or verdict,
    )


def _level(drift: Drift) -> str:
    unit = drift.metric.unit
    if unit == "seconds":
        return shown_seconds(drift.level)
    if unit.startswith("bytes"):
        return shown_bytes(drift.level)
    return f"{drift.level:,.4g}/s"


def _responses(totals: Totals) -> Table:
    columns = ("kind", "operations", "mean", "p50", "p95", "p99", "p99.9", "slowest", "failed")
    parts: list[tuple[str, Histogram, int]] = [("all", totals.response, totals.failed_total)]
    parts += [(kind, part.response, part.failed_total) for kind, part in sorted(totals.operations.items())]
    rows = [_response_row(*part) for part in parts if part[1].total]
    return Table("Response from the intended start, whole run", columns, rows, 1)


def _response_row(kind: str, response: Histogram, failed: int) -> tuple[str, ...]:
    quantiles = (shown_seconds(response.quantile_seconds(quantile)) for quantile in _QUANTILES)
    mean, slowest = shown_seconds(response.mean_seconds), shown_seconds(response.max_seconds)
    return (kind, f"{response.total:,}", mean, *quantiles, slowest, f"{failed:,}")


def _errors(totals: Totals) -> Table:
    sqlstates = sorted({*totals.errors, *totals.retried})
    rows = [(name, f"{totals.errors[name]:,}", f"{totals.retried[name]:,}") for name in sqlstates]
    columns = ("SQLSTATE", "operations that failed", "attempts that were repeated")
    return Table("Errors", columns, rows or [("none", "0", "0")], 1)


def _gaps(figures: RunFigures) -> Table:
    start = figures.description.started_at
    rows = [
        (
            gap.state.value,
            f"{start + timedelta(seconds=gap.from_seconds):%d %b %H:%M:%S}",
            duration(gap.until_seconds - gap.from_seconds),
            str(gap.intervals_total),
        )
        for gap in figures.gaps[:MOST_EVENTS]
    ]
    title = "What was not measured, or is doubtful; nothing is filled in"
    if len(figures.gaps) > MOST_EVENTS:
        title += f" (the first {MOST_EVENTS} of {len(figures.gaps)})"
    return Table(title, ("state", "from", "length", "intervals"), rows or [("none", "", "", "")], 1)


def _events(figures: RunFigures) -> Table:
    shown_events, left_out = listed(figures.events, MOST_EVENTS)
    rows = [(event.kind.value, f"{event.at:%d %b %H:%M:%S}", event.text) for event in shown_events]
    title = f"Events ({left_out:,} more, checkpoints among them, are in the JSON)" if left_out else "Events"
    return Table(title, ("kind", "at", "what"), rows or [("none", "", "")], 2)
