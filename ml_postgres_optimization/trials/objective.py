"""What a trial compares: one figure for a block, with the same mix of work in both arms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import numpy as np

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.telemetry import Histogram, StatementKey, Window


class Measure(StrEnum):
    """The figure that a trial compares, chosen by the user."""

    MEAN = "mean"
    P95 = "p95"
    P99 = "p99"
    THROUGHPUT = "throughput"


_QUANTILES: Final = {Measure.P95: 0.95, Measure.P99: 0.99}
# Counts are whole numbers: a kind's share is kept to one part in a billion.
_RESOLUTION = 1_000_000_000


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
    `reference`, over the queries that all three have. Throughput is given as seconds for one operation.

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
    if reference.operations_total:
        kinds = {kind: share for kind, share in mix_of(reference).items() if _seen(baseline, kind)}
        mix = {kind: share for kind, share in kinds.items() if _seen(candidate, kind)}
        return _figure(response_with_mix(baseline, mix), measure), _figure(response_with_mix(candidate, mix), measure)
    if measure is not Measure.MEAN:
        raise UsageError(
            f"{measure} of the response time cannot be seen in sessions that are not ours, only the mean.",
            "Choose the objective 'mean', or let the load come from us.",
        )
    keys = reference.statements.keys() & baseline.statements.keys() & candidate.statements.keys()
    calls = {key: reference.statements[key].calls_total for key in sorted(keys)}
    return _mean_execution_seconds(baseline, calls), _mean_execution_seconds(candidate, calls)


def _figure(response: Histogram, measure: Measure) -> float:
    if measure is Measure.MEAN:
        return response.mean_seconds
    return response.quantile_seconds(_QUANTILES[measure])


def _seconds_for_one(window: Window) -> float:
    if window.operations_total:
        succeeded_per_second = window.throughput_per_second
    else:
        calls = sum(counters.calls_total for counters in window.statements.values())
        succeeded_per_second = calls / window.duration_seconds if window.duration_seconds else 0.0
    return 1.0 / succeeded_per_second if succeeded_per_second else math.nan


def _mean_execution_seconds(window: Window, calls: Mapping[StatementKey, int]) -> float:
    if not calls:
        return math.nan
    weighted = sum(
        weight * window.statements[key].execution_seconds_total / window.statements[key].calls_total
        for key, weight in calls.items()
    )
    return weighted / sum(calls.values())
