"""What a trial compares: one figure for a block, with the same mix of work in both arms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import numpy as np

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.telemetry import Histogram, StatementCounters, StatementKey, Window


class Measure(StrEnum):
    """The figure that a trial compares, chosen by the user."""

    MEAN = "mean"
    P95 = "p95"
    P99 = "p99"
    THROUGHPUT = "throughput"


_QUANTILES: Final = {Measure.P95: 0.95, Measure.P99: 0.99}
# Counts are whole numbers: a kind's share is kept to one part in a billion.
_RESOLUTION = 1_000_000_000
# A query that does not finish within a block is counted nowhere: what it took must not drop out of a comparison
# unseen. A tenth is left to the rare queries, which no two short blocks have in common.
_LEAST_COVERAGE = 0.9


def mix_of(window: Window) -> dict[str, float]:
    """Return each kind's share of the operations in `window`; empty where no operation of ours ended."""
    total = window.operations_total
    return {kind: operation.response.total / total for kind, operation in window.operations.items()} if total else {}


def response_with_mix(window: Window, mix: Mapping[str, float]) -> Histogram:
    """Return the response times of `window` as if its kinds had come in the shares of `mix`.

    Only kinds that the window has count; their shares are scaled up to one. Failed operations are part of it, since
    users wait for them too. It holds a billion of weighted operations: its mean and quantiles mean something, its
    total does not.
    """
    shares = {kind: share for kind, share in mix.items() if share > 0 and _seen(window, kind)}
    total = sum(shares.values())
    reweighted = Histogram.empty()
    for kind, share in shares.items():
        reweighted = reweighted + _scaled(window.operations[kind].response, share / total)
    return reweighted


def _seen(window: Window, kind: str) -> bool:
    return kind in window.operations and window.operations[kind].response.total > 0


def _scaled(response: Histogram, share: float) -> Histogram:
    counts = np.rint(response.counts * (share * _RESOLUTION / response.total)).astype(np.int64)
    return Histogram(counts, response.mean_seconds * int(counts.sum()), response.max_seconds)


def paired_objective(
    baseline: Window, candidate: Window, *, reference: Window, measure: Measure
) -> tuple[float, float]:
    """Return the objective of two neighbouring blocks, in seconds, lower being better; NaN where nothing compares.

    On work of ours, the chosen figure of the response times, in the mix of `reference` over the kinds that both
    blocks have. On sessions that are not ours, the mean execution time of each query, weighted by its calls in
    `reference`, over the queries that all three have; not a number where these took less than nine tenths of the
    execution time in `reference`, since the rest may just not have finished. Throughput is given as seconds for one
    operation. The work is ours where any of the three has operations of ours.

    Parameters
    ----------
    baseline, candidate : Window
        One block of each arm; exchanging them exchanges the results, as the sequential test needs it.
    reference : Window
        The baseline before the trial: a change of the mix, in either arm, is then not taken for a change of speed.
    measure : Measure

    Raises
    ------
    UsageError
        If a percentile is wanted of sessions that are not ours, of which only means are known.
    """
    if measure is Measure.THROUGHPUT:
        return _seconds_for_one(baseline), _seconds_for_one(candidate)
    if any(window.operations_total for window in (reference, baseline, candidate)):
        kinds = {kind: share for kind, share in mix_of(reference).items() if _seen(baseline, kind)}
        mix = {kind: share for kind, share in kinds.items() if _seen(candidate, kind)}
        return _figure(response_with_mix(baseline, mix), measure), _figure(response_with_mix(candidate, mix), measure)
    if measure is not Measure.MEAN:
        raise UsageError(
            f"{measure} of the response time cannot be seen in sessions that are not ours, only the mean.",
            "Choose the objective 'mean', or let the load come from us.",
        )
    keys = reference.statements.keys() & baseline.statements.keys() & candidate.statements.keys()
    if not coverage_ratio(keys, reference) >= _LEAST_COVERAGE:
        return math.nan, math.nan
    calls = {key: reference.statements[key].calls_total for key in sorted(keys)}
    return _mean_execution_seconds(baseline.statements, calls), _mean_execution_seconds(candidate.statements, calls)


def coverage_ratio(keys: Iterable[StatementKey], reference: Window) -> float:
    """Return which share of the execution time in `reference` the queries in `keys` took; NaN where it has none."""
    seconds = {key: counters.execution_seconds_total for key, counters in reference.statements.items()}
    total_seconds = sum(seconds.values())
    return sum(seconds.get(key, 0.0) for key in keys) / total_seconds if total_seconds else math.nan


def mean_seconds_like(reference: Window, window: Window) -> float:
    """Return the mean response of `window` in the mix of `reference`; NaN where they have nothing in common.

    On sessions that are not ours, a query that `window` lacks counts as fast as in `reference`: that the quick ones
    did not come does not make a block slow.
    """
    if reference.operations_total or window.operations_total:
        return response_with_mix(window, mix_of(reference)).mean_seconds
    common = {key: window.statements[key] for key in reference.statements.keys() & window.statements.keys()}
    calls = {key: counters.calls_total for key, counters in reference.statements.items()}
    return _mean_execution_seconds({**reference.statements, **common}, calls) if common else math.nan


def finished_per_second(window: Window, *, are_ours: bool) -> float:
    """Return how many operations of ours, or calls of anybody's queries, ended per second; NaN without duration."""
    calls = (counters.calls_total for counters in window.statements.values())
    finished = window.operations_total if are_ours else sum(calls)
    return finished / window.duration_seconds if window.duration_seconds else math.nan


def _figure(response: Histogram, measure: Measure) -> float:
    if measure is Measure.MEAN:
        return response.mean_seconds
    return response.quantile_seconds(_QUANTILES[measure])


def _seconds_for_one(window: Window) -> float:
    if window.operations_total:
        succeeded_per_second = window.throughput_per_second
    else:
        succeeded_per_second = finished_per_second(window, are_ours=False)
    return 1.0 / succeeded_per_second if succeeded_per_second else math.nan


def _mean_execution_seconds(
    statements: Mapping[StatementKey, StatementCounters], calls: Mapping[StatementKey, int]
) -> float:
    weighted = sum(
        weight * statements[key].execution_seconds_total / statements[key].calls_total
        for key, weight in calls.items()
    )
    return weighted / sum(calls.values())
