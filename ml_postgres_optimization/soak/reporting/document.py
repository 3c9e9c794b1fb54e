"""A judged run as one JSON document; times in seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.figures.fold import Gap, RunFigures
from ml_postgres_optimization.soak.figures.totals import MEASURED, Totals
from ml_postgres_optimization.soak.interval import Event
from ml_postgres_optimization.soak.judging.drift.assessment import Drift
from ml_postgres_optimization.soak.judging.outcome import Finding
from ml_postgres_optimization.soak.judging.verdict import Verdict
from ml_postgres_optimization.telemetry import Histogram

QUANTILES: Mapping[str, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


def run_json(figures: RunFigures, verdict: Verdict) -> dict[str, object]:
    """Return verdict, totals, drifts, gaps and events of a run; JSON-ready but for NaN, which stands for unknown."""
    description = figures.description
    return {
        "run": description.run,
        "server": description.server,
        "load": description.load,
        "facts": dict(description.facts),
        "started_at": description.started_at.isoformat(),
        "planned_seconds": description.planned_seconds,
        "covered_seconds": figures.covered_seconds,
        "interval_seconds": description.interval_seconds,
        "intervals_total": figures.intervals_total,
        "verdict": verdict.result.value,
        "met": verdict.exit_code == 0,
        "undecided_fails": verdict.undecided_fails,
        "criteria": [_finding_json(finding) for finding in verdict.findings],
        "totals": _totals_json(figures.totals),
        "recorded": recorded_json(figures.minutes),
        "drift": {name: drift_json(drift) for name, drift in verdict.drifts.items()},
        "gaps": [_gap_json(gap) for gap in figures.gaps],
        "events": [_event_json(event) for event in figures.events],
    }


def recorded_json(minutes: Columns) -> dict[str, dict[str, float]]:
    """Return the smallest, middle and largest minute of every figure, and the last that was measured."""
    return {name: _spread(minutes.column(name)) for name in minutes}


def _spread(column: NDArray[np.float64]) -> dict[str, float]:
    measured = column[np.isfinite(column)]
    low, middle, high = np.quantile(measured, (0.0, 0.5, 1.0)).tolist()
    return {"min": low, "median": middle, "max": high, "last": float(measured[-1])}


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.name,
        "title": finding.title,
        "outcome": finding.outcome.value,
        "found": finding.found,
        "limit": finding.limit,
        "found_value": finding.found_value,
        "limit_value": finding.limit_value,
        "evidence": finding.evidence,
    }


def _totals_json(totals: Totals) -> dict[str, object]:
    return {
        "due_total": totals.due_total,
        "presumed_total": totals.presumed_total,
        "succeeded_total": totals.succeeded_total,
        "failed_total": totals.failed_total,
        "skipped_total": totals.skipped_total,
        "ambiguous_total": totals.ambiguous_total,
        "success_ratio": totals.success_ratio,
        "measured_seconds": totals.seconds_in(MEASURED),
        "seconds_by_state": {state.value: seconds for state, seconds in totals.seconds.items()},
        "seconds_by_configuration": dict(totals.configurations),
        "response": latency_json(totals.response),
        "response_by_kind": {kind: latency_json(part.response) for kind, part in sorted(totals.operations.items())},
        "scheduler_lag": latency_json(totals.lag),
        "errors_by_sqlstate": dict(sorted(totals.errors.items())),
        "retried_by_sqlstate": dict(sorted(totals.retried.items())),
    }


def drift_json(drift: Drift) -> Mapping[str, object]:
    """Return what became of one metric."""
    return {
        "metric": drift.metric.title,
        "unit": drift.metric.unit,
        "level": drift.level,
        "change_ratio": drift.change_ratio,
        "slope_per_hour": drift.slope_per_hour,
        "late_slope_per_hour": drift.late_slope_per_hour,
        "probability": drift.probability,
        "mann_kendall_score": drift.plain_score,
        "detectable_ratio": drift.detectable_ratio,
        "correlation": drift.correlation,
        "blocks_total": drift.blocks_total,
        "block_seconds": drift.block_seconds,
        "is_without_cycle": drift.is_without_cycle,
        "shifts_hours": list(drift.shifts_hours),
        "found": drift.found,
        "worse": drift.is_worse,
        "doubt": drift.doubt,
    }


def _gap_json(gap: Gap) -> dict[str, object]:
    return {
        "state": gap.state.value,
        "from_seconds": gap.from_seconds,
        "until_seconds": gap.until_seconds,
        "intervals_total": gap.intervals_total,
    }


def _event_json(event: Event) -> dict[str, object]:
    return {
        "kind": event.kind.value,
        "text": event.text,
        "at": event.at.isoformat(),
        "until": event.until.isoformat() if event.until else None,
    }


def latency_json(histogram: Histogram) -> dict[str, float | int | None]:
    """Return count, mean, quantiles to p99.9 and maximum, in seconds; None where nothing was measured."""
    if not histogram.total:
        return {"operations_total": 0, "mean_seconds": None}
    return {
        "operations_total": histogram.total,
        "mean_seconds": histogram.mean_seconds,
        **{f"{name}_seconds": histogram.quantile_seconds(quantile) for name, quantile in QUANTILES.items()},
        "maximum_seconds": histogram.max_seconds,
    }
