"""What a window says of load, latency and errors, as a few numbers instead of histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.retry.classification import ErrorClass, error_class
from ml_postgres_optimization.telemetry import Histogram, Window

NAN = float("nan")
_SHORTEST_SECONDS = 1e-6  # what a histogram counts as its smallest


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """What a window says of load, latency and errors; NaN for what it cannot say.

    Parameters
    ----------
    is_timed_by_us : bool
        Whether its operations are ours; else latency comes from statement statistics, and the rates from
        transactions.
    finished : mapping of str to int
        Operations by kind, failed ones included.
    failures : mapping of ErrorClass to int
        Failed operations by class; only those classes that can be seen at all.
    throughput_per_second, offered_per_second : float
        What succeeded, and what came due: the offer must not depend on how the server coped with it.
    skipped_ratio : float
        Skipped over finished and skipped operations.
    active_sessions : float
        Average, whatever they wait for.
    log_mean, log_p95, log_p99, log_service_mean : float
        Natural logs of seconds.
    """

    is_timed_by_us: bool
    finished: Mapping[str, int]
    failures: Mapping[ErrorClass, int]
    throughput_per_second: float
    offered_per_second: float
    skipped_ratio: float
    active_sessions: float
    log_mean: float
    log_p95: float = NAN
    log_p99: float = NAN
    log_service_mean: float = NAN


def summarise(window: Window) -> WindowSummary:
    """Return the figures of `window` that models use; its histograms are read here, and only once."""
    if any(operation.response.total for operation in window.operations.values()):
        return _of_operations(window)
    return _of_server(window)


def log_or_nan(value: float) -> float:
    """Return the natural log, NaN for what has none."""
    return math.log(value) if value > 0 else NAN


def _of_operations(window: Window) -> WindowSummary:
    finished = {kind: operation.response.total for kind, operation in window.operations.items()}
    total = sum(finished.values())
    succeeded = total - window.failed_total
    ended = total + window.skipped_total
    response = window.response
    service_seconds = sum(operation.service.sum_seconds for operation in window.operations.values())
    return WindowSummary(
        is_timed_by_us=True,
        finished=finished,
        failures=_failures_by_class(window),
        throughput_per_second=_per_second(succeeded, window),
        offered_per_second=NAN if _is_closed_loop(window) else _per_second(window.due_total, window),
        skipped_ratio=window.skipped_total / ended,
        active_sessions=_active_sessions(window),
        log_mean=_log_seconds(response.sum_seconds / total),
        log_p95=_log_quantile(response, 0.95),
        log_p99=_log_quantile(response, 0.99),
        log_service_mean=_log_seconds(service_seconds / total),
    )


def _of_server(window: Window) -> WindowSummary:
    """Read what the server says of sessions that are not ours."""
    commits = window.rates.get("database.commits_per_second", NAN)
    deadlocks = window.rates.get("database.deadlocks_per_second", NAN)
    return WindowSummary(
        is_timed_by_us=False,
        finished={},
        failures={} if math.isnan(deadlocks) else {ErrorClass.DEADLOCK: round(deadlocks * window.duration_seconds)},
        throughput_per_second=commits,
        offered_per_second=commits + window.rates.get("database.rollbacks_per_second", NAN),
        skipped_ratio=NAN,
        active_sessions=_active_sessions(window),
        log_mean=_log_statement_mean(window),
    )


def _per_second(count: int, window: Window) -> float:
    return count / window.duration_seconds if window.duration_seconds > 0 else NAN


def _log_statement_mean(window: Window) -> float:
    calls = float(sum(counters.calls_total for counters in window.statements.values()))
    seconds = sum(counters.execution_seconds_total for counters in window.statements.values())
    if not window.statements:  # record_window() knows all statements together only
        calls = window.rates.get("statements.calls_per_second", NAN)
        seconds = window.rates.get("statements.execution_seconds_per_second", NAN)
    is_known = calls > 0 and math.isfinite(calls) and math.isfinite(seconds)
    return _log_seconds(seconds / calls) if is_known else NAN


def _failures_by_class(window: Window) -> dict[ErrorClass, int]:
    failures = dict.fromkeys(ErrorClass, 0)
    for sqlstate, count in window.errors.items():
        failures[error_class(sqlstate)] += count
    return failures


def _is_closed_loop(window: Window) -> bool:
    return window.labels.get("loop") == "closed"


def _active_sessions(window: Window) -> float:
    return sum(window.waits.values()) if window.waits else NAN


def _log_seconds(seconds: float) -> float:
    return math.log(max(seconds, _SHORTEST_SECONDS))


def _log_quantile(histogram: Histogram, quantile: float) -> float:
    return _log_seconds(histogram.quantile_seconds(quantile))
