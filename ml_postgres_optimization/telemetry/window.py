"""What happened between two snapshots: the currency of the house."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce

import numpy as np

from ml_postgres_optimization.telemetry.histogram import Histogram
from ml_postgres_optimization.telemetry.sample import SampleBatch
from ml_postgres_optimization.telemetry.snapshot import (
    ActivitySample,
    Snapshot,
    StatementCounters,
    StatementKey,
)

# A rate as any other, so that it is merged, stored and exported as they are.
_DUE_PER_SECOND = "load.due_per_second"


@dataclass(frozen=True, slots=True)
class OperationWindow:
    """What one kind of operation did in a window.

    Parameters
    ----------
    response : Histogram
        From the intended start to the end: what a user waits. Failures are in it, since a user waits for them too.
    service : Histogram
        From the actual start to the end.
    failed_total : int
    """

    response: Histogram
    service: Histogram
    failed_total: int = 0

    def __add__(self, other: OperationWindow) -> OperationWindow:
        return OperationWindow(
            self.response + other.response,
            self.service + other.service,
            self.failed_total + other.failed_total,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two snapshots.

    Parameters
    ----------
    started_at, ended_at : datetime
        Aware.
    configuration_id : str
        `Configuration.id` in force during the whole of it.
    labels : mapping of str to str
        What the one who made it knows of it: ``run``, ``level``, ``phase``, ``arm``.
    rates : mapping of str to float
        Per second, ``database.commits_per_second`` for one: a counter's growth over the duration. That of our own
        load is ``load.due_per_second``: operations that came due, whether they have ended or not.
    gauges : mapping of str to float
        At the end of the window.
    waits : mapping of str to float
        Average active sessions by wait class, from the activity samples; empty where none were taken.
    operations : mapping of str to OperationWindow
        By kind, for work whose every operation we time; empty on sessions that are not ours.
    lag : Histogram
        How late the load generator's own scheduler was.
    errors : mapping of str to int
        Failed operations by SQLSTATE.
    skipped_total : int
        Operations that were due and never started.
    retried : mapping of str to int
        Attempts that failed and were followed by another one, by SQLSTATE. Whoever records what is not repeated has
        none.
    ambiguous_total : int
        Failed operations that may have been committed all the same.
    statements : mapping
        Growth of each normalised query's counters.
    unseen : mapping of str to str
        Source → why it could not be read, or why its counters could not be compared (a reset).
    server : str or None
        System identifier of the server that it is of, where it was kept with those of others; None where nobody said.
    """

    started_at: datetime
    ended_at: datetime
    configuration_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)
    operations: Mapping[str, OperationWindow] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram.empty)
    errors: Mapping[str, int] = field(default_factory=dict)
    skipped_total: int = 0
    retried: Mapping[str, int] = field(default_factory=dict)
    ambiguous_total: int = 0
    statements: Mapping[StatementKey, StatementCounters] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)
    server: str | None = None

    @property
    def duration_seconds(self) -> float:
        """Length of the window."""
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def response(self) -> Histogram:
        """Response times of all kinds together."""
        return sum((operation.response for operation in self.operations.values()), Histogram.empty())

    @property
    def service(self) -> Histogram:
        """Service times of all kinds together."""
        return sum((operation.service for operation in self.operations.values()), Histogram.empty())

    @property
    def operations_total(self) -> int:
        """Finished operations, failed ones included."""
        return sum(operation.response.total for operation in self.operations.values())

    @property
    def due_total(self) -> int:
        """Operations that came due; where nobody counted them, those that finished or were skipped."""
        due_per_second = self.rates.get(_DUE_PER_SECOND)
        if due_per_second is None:
            return self.operations_total + self.skipped_total
        return round(due_per_second * self.duration_seconds)

    @property
    def failed_total(self) -> int:
        """Failed operations."""
        return sum(operation.failed_total for operation in self.operations.values())

    @property
    def errors_before_retries(self) -> Mapping[str, int]:
        """Failed attempts by SQLSTATE, whether another one followed or not."""
        return _counts_added(self.errors, self.retried)

    @property
    def error_ratio(self) -> float:
        """Failed over finished operations; 0 when there were none."""
        return self.failed_total / self.operations_total if self.operations_total else 0.0

    @property
    def throughput_per_second(self) -> float:
        """Operations that succeeded, per second."""
        succeeded = self.operations_total - self.failed_total
        return succeeded / self.duration_seconds if self.duration_seconds else 0.0


def between(
    before: Snapshot,
    after: Snapshot,
    *,
    configuration_id: str,
    labels: Mapping[str, str] | None = None,
    batches: Sequence[SampleBatch] = (),
    activity: Sequence[ActivitySample] = (),
) -> Window:
    """Make the window that lies between two snapshots.

    A counter that went backwards was reset by somebody: its source is put into `Window.unseen`, and its
    rates are left out, rather than guessed.
    """
    # the wall clock may step; the window is as long as the monotonic clock says
    duration_seconds = after.monotonic_seconds - before.monotonic_seconds
    rates, gauges, reset = _compare(before, after, duration_seconds)
    operations, errors = _operations(batches)
    return Window(
        started_at=after.taken_at - timedelta(seconds=duration_seconds),
        ended_at=after.taken_at,
        configuration_id=configuration_id,
        labels=dict(labels or {}),
        rates=rates | _due_rate(batches, duration_seconds),
        gauges=gauges | _activity_gauges(activity),
        waits=_average_waits(activity),
        operations=operations,
        lag=_lag(batches),
        errors=errors,
        skipped_total=sum(batch.skipped_total for batch in batches),
        retried=reduce(_counts_added, (batch.retried for batch in batches), {}),
        ambiguous_total=sum(batch.ambiguous_total for batch in batches),
        statements=_statement_growth(before, after),
        unseen={
            **after.unseen,
            **dict.fromkeys(reset, "its counters went backwards: statistics were reset, or what was counted is gone"),
        },
    )


def _compare(
    before: Snapshot, after: Snapshot, duration_seconds: float
) -> tuple[dict[str, float], dict[str, float], set[str]]:
    rates: dict[str, float] = {}
    gauges = {name: value for name, value in after.values.items() if not name.endswith("_total")}
    growth = {
        name: value - before.values[name]
        for name, value in after.values.items()
        if name.endswith("_total") and name in before.values
    }
    reset = {name.split(".")[0] for name, delta in growth.items() if delta < 0}
    for name, delta in growth.items():
        if name.split(".")[0] not in reset and duration_seconds > 0:
            rates[name.removesuffix("_total") + "_per_second"] = delta / duration_seconds
    return rates, gauges, reset


def _operations(batches: Sequence[SampleBatch]) -> tuple[dict[str, OperationWindow], dict[str, int]]:
    """Count all batches of the same kinds together: one by one, a hundred of them took ten times as long."""
    operations: dict[str, OperationWindow] = {}
    errors: Counter[str] = Counter()
    for kinds in dict.fromkeys(batch.kinds for batch in batches):
        alike = [batch for batch in batches if batch.kinds == kinds]
        sqlstate = np.concatenate([batch.sqlstate for batch in alike])
        has_failed = sqlstate != b""
        errors.update(code.decode() for code in sqlstate[has_failed].tolist())
        end = np.concatenate([batch.end_seconds for batch in alike])
        response = end - np.concatenate([batch.intended_start_seconds for batch in alike])
        service = end - np.concatenate([batch.start_seconds for batch in alike])
        kind_index = np.concatenate([batch.kind_index for batch in alike])
        for index, kind in enumerate(kinds):
            mine = kind_index == index
            if mine.any():
                failed = int(np.count_nonzero(has_failed & mine))
                window = OperationWindow(Histogram.of(response[mine]), Histogram.of(service[mine]), failed)
                operations[kind] = operations[kind] + window if kind in operations else window
    return operations, dict(errors)


def _lag(batches: Sequence[SampleBatch]) -> Histogram:
    return Histogram.of(np.concatenate([batch.lag_seconds for batch in batches])) if batches else Histogram.empty()


def _due_rate(batches: Sequence[SampleBatch], duration_seconds: float) -> dict[str, float]:
    """Return how many operations came due per second, if somebody counted them."""
    # as long as `Window.duration_seconds`, which counts microseconds: so that the number can be had back
    seconds = timedelta(seconds=duration_seconds).total_seconds()
    if not seconds > 0 or all(batch.due_total is None for batch in batches):
        return {}
    due = sum(len(batch) + batch.skipped_total if batch.due_total is None else batch.due_total for batch in batches)
    return {_DUE_PER_SECOND: due / seconds}


def _average_waits(activity: Sequence[ActivitySample]) -> dict[str, float]:
    classes = {wait for sample in activity for wait in sample.active_sessions_by_wait}
    return {
        wait: sum(sample.active_sessions_by_wait.get(wait, 0) for sample in activity) / len(activity)
        for wait in sorted(classes)
    }


def _activity_gauges(activity: Sequence[ActivitySample]) -> dict[str, float]:
    if not activity:
        return {}
    return {
        "activity.connections": sum(sample.connections for sample in activity) / len(activity),
        "activity.blocked_sessions": sum(sample.blocked_sessions for sample in activity) / len(activity),
        "activity.idle_in_transaction_sessions": sum(sample.idle_in_transaction_sessions for sample in activity)
        / len(activity),
        "activity.longest_transaction_seconds": max(sample.longest_transaction_seconds for sample in activity),
    }


def _statement_growth(before: Snapshot, after: Snapshot) -> dict[StatementKey, StatementCounters]:
    growth: dict[StatementKey, StatementCounters] = {}
    if "statements" in before.unseen and not before.statements:
        return growth  # without a beginning, all that was ever counted would pass for growth
    for key, now in after.statements.items():
        then = before.statements.get(key)
        # an entry that went backwards was evicted or reset, and came back: what it shows now is all that is known
        delta = now if then is None or _went_backwards(now, then) else _subtract(now, then)
        if delta.calls_total > 0:
            growth[key] = delta
    return growth


def _went_backwards(now: StatementCounters, then: StatementCounters) -> bool:
    return any(getattr(now, name) < getattr(then, name) for name in StatementCounters.__slots__)


def _subtract(now: StatementCounters, then: StatementCounters) -> StatementCounters:
    return StatementCounters(*(getattr(now, name) - getattr(then, name) for name in StatementCounters.__slots__))


def merge(first: Window, second: Window) -> Window:
    """Put two windows of one configuration together: counts and histograms add, rates and waits average by time.

    Gauges are those of the later window. A rate that is unknown in one of them stays unknown; a wait class that is
    absent from one was not met there. Associative and commutative, so that windows can be merged in any grouping;
    only the gauges of windows with gaps between them depend on it.

    Raises
    ------
    ValueError
        If the two ran under different configurations, or on different servers.
    """
    if first.configuration_id != second.configuration_id:
        raise ValueError("windows of two configurations cannot be merged")
    if first.server != second.server:
        raise ValueError("windows of two servers cannot be merged")
    last = max(first, second, key=lambda window: window.ended_at)
    weights = (first.duration_seconds, second.duration_seconds)
    return Window(
        started_at=min(first.started_at, second.started_at),
        ended_at=min(first.started_at, second.started_at) + timedelta(seconds=sum(weights)),
        configuration_id=first.configuration_id,
        labels={key: value for key, value in first.labels.items() if second.labels.get(key) == value},
        rates=_weighted(first.rates, second.rates, weights, {*first.rates} & {*second.rates}),
        gauges=dict(last.gauges),
        waits=_weighted(first.waits, second.waits, weights, {*first.waits} | {*second.waits}),
        operations=_added(first.operations, second.operations),
        lag=first.lag + second.lag,
        errors=_counts_added(first.errors, second.errors),
        skipped_total=first.skipped_total + second.skipped_total,
        retried=_counts_added(first.retried, second.retried),
        ambiguous_total=first.ambiguous_total + second.ambiguous_total,
        statements=_statements_added(first.statements, second.statements),
        unseen={**first.unseen, **second.unseen},
        server=first.server,
    )


def _counts_added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in {*first, *second}}


def _weighted(
    first: Mapping[str, float], second: Mapping[str, float], weights: tuple[float, float], names: set[str]
) -> dict[str, float]:
    total = sum(weights) or 1.0
    return {
        name: (first.get(name, 0.0) * weights[0] + second.get(name, 0.0) * weights[1]) / total
        for name in sorted(names)
    }


def _added(first: Mapping[str, OperationWindow], second: Mapping[str, OperationWindow]) -> dict[str, OperationWindow]:
    merged = dict(first)
    for kind, window in second.items():
        merged[kind] = merged[kind] + window if kind in merged else window
    return merged


def _statements_added(
    first: Mapping[StatementKey, StatementCounters], second: Mapping[StatementKey, StatementCounters]
) -> dict[StatementKey, StatementCounters]:
    merged = dict(first)
    for key, counters in second.items():
        if key in merged:
            merged[key] = StatementCounters(
                *(getattr(merged[key], name) + getattr(counters, name) for name in StatementCounters.__slots__)
            )
        else:
            merged[key] = counters
    return merged
