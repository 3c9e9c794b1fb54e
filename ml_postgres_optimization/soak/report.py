"""What a run of load found, as JSON and for reading."""

from __future__ import annotations

from collections.abc import Mapping

from ml_postgres_optimization.soak.runner import SoakResult
from ml_postgres_optimization.telemetry import Histogram, Window

QUANTILES: Mapping[str, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}


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


def window_json(window: Window) -> dict[str, object]:
    """Return what users ask of a stretch of load: latencies by kind, errors by SQLSTATE, throughput."""
    return {
        "started_at": window.started_at.isoformat(),
        "duration_seconds": window.duration_seconds,
        "configuration": window.configuration_id,
        "operations_total": window.operations_total,
        "due_total": window.due_total,
        "failed_total": window.failed_total,
        "skipped_total": window.skipped_total,
        "throughput_per_second": window.throughput_per_second,
        "response": latency_json(window.response),
        "service": latency_json(window.service),
        "scheduler_lag": latency_json(window.lag),
        "response_by_kind": {
            kind: latency_json(window.operations[kind].response) for kind in sorted(window.operations)
        },
        "errors_by_sqlstate": dict(sorted(window.errors.items())),
        "retried_by_sqlstate": dict(sorted(window.retried.items())),
        "ambiguous_total": window.ambiguous_total,
        "average_active_sessions": dict(window.waits),
    }


def soak_json(result: SoakResult) -> dict[str, object]:
    """Return the whole of a soak."""
    return {
        "met": result.met,
        "interrupted": result.interrupted,
        "windows_total": result.windows_total,
        "lost_windows_total": result.lost_windows_total,
        "clients_died_total": result.clients_died_total,
        "client_cpu_ratio": result.client_cpu_ratio,
        "doubts": list(result.doubts),
        "criteria": [
            {
                "name": criterion.name,
                "found": criterion.found,
                "limit": criterion.limit,
                "unit": criterion.unit,
                "met": criterion.met,
            }
            for criterion in result.criteria
        ],
        "whole": window_json(result.whole) if result.whole else None,
    }
