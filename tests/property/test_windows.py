"""Laws of histograms and windows."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.telemetry import (
    Histogram,
    OperationWindow,
    Snapshot,
    StatementCounters,
    Window,
    between,
    merge,
)

START = datetime(2026, 1, 1, tzinfo=UTC)

# what a histogram can hold: from a microsecond to two hours
durations = st.floats(min_value=1e-6, max_value=7200.0)
samples = st.lists(durations, max_size=50)
histograms = samples.map(Histogram.of)
counts = st.integers(min_value=0, max_value=10**9)
rates = st.floats(min_value=0.0, max_value=1e6)
kinds = st.sampled_from(["read", "write", "join"])
statement_keys = st.tuples(st.integers(-3, 3), st.just(10), st.just(5))
statement_counters = st.builds(StatementCounters, *[counts] * 6, counts.map(float))


@st.composite
def windows(draw) -> Window:
    start = START + timedelta(seconds=draw(st.integers(0, 1000)))
    return Window(
        started_at=start,
        ended_at=start + timedelta(seconds=draw(st.integers(1, 1000))),
        configuration_id="stock",
        labels=draw(st.dictionaries(st.sampled_from(["run", "arm"]), st.sampled_from(["a", "b"]))),
        rates=draw(st.dictionaries(st.sampled_from(["x.y_per_second", "x.z_per_second"]), rates)),
        waits=draw(st.dictionaries(st.sampled_from(["CPU", "IO"]), rates)),
        operations=draw(st.dictionaries(kinds, st.builds(OperationWindow, histograms, histograms, counts))),
        lag=draw(histograms),
        errors=draw(st.dictionaries(st.sampled_from(["40001", "53300"]), counts)),
        skipped_total=draw(counts),
        statements=draw(st.dictionaries(statement_keys, statement_counters, max_size=3)),
    )


def counted(window: Window) -> dict[str, object]:
    """Everything that adds up."""
    return {
        "operations": dict(window.operations),
        "lag": window.lag,
        "errors": dict(window.errors),
        "skipped": window.skipped_total,
        "statements": dict(window.statements),
        "labels": dict(window.labels),
        "started_at": window.started_at,
        "ended_at": window.ended_at,
    }


@given(windows(), windows(), windows())
def test_merging_is_associative(a, b, c):
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    assert counted(left) == counted(right)
    assert left.rates == pytest.approx(dict(right.rates))
    assert left.waits == pytest.approx(dict(right.waits))


@given(windows(), windows())
def test_merging_is_commutative(a, b):
    left, right = merge(a, b), merge(b, a)
    assert counted(left) == counted(right)
    assert left.rates == pytest.approx(dict(right.rates))
    assert left.waits == pytest.approx(dict(right.waits))


@given(windows(), windows())
def test_merging_loses_nothing(a, b):
    merged = merge(a, b)
    assert merged.operations_total == a.operations_total + b.operations_total
    assert merged.failed_total == a.failed_total + b.failed_total
    assert merged.response.sum_seconds == pytest.approx(a.response.sum_seconds + b.response.sum_seconds)
    assert merged.duration_seconds == a.duration_seconds + b.duration_seconds


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=3), st.lists(st.integers(1, 100), min_size=2, max_size=2))
def test_a_window_is_the_merger_of_its_parts(growth, lengths):
    totals = np.cumsum(growth)
    seconds = np.cumsum([0, *lengths])
    first, second, third = (
        Snapshot(START + timedelta(seconds=int(at)), float(at), {"database.commits_total": float(total)})
        for at, total in zip(seconds, totals, strict=True)
    )
    whole = between(first, third, configuration_id="stock")
    parts = merge(between(first, second, configuration_id="stock"), between(second, third, configuration_id="stock"))
    assert (parts.started_at, parts.ended_at) == (whole.started_at, whole.ended_at)
    assert parts.rates == pytest.approx(dict(whole.rates))


@given(samples, samples)
def test_adding_histograms_is_recording_everything_in_one(first, second):
    assert Histogram.of(first) + Histogram.of(second) == Histogram.of(first + second)


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_within_one_bucket_of_the_truth(values, quantile):
    truth = np.quantile(values, quantile, method="inverted_cdf")
    assert Histogram.of(values).quantile_seconds(quantile) == pytest.approx(truth, rel=1 / 128)


@given(samples)
def test_count_mean_and_maximum_are_exact(values):
    histogram = Histogram.of(values)
    assert histogram.total == len(values)
    assert histogram.sum_seconds == pytest.approx(sum(values))
    assert histogram.max_seconds == max(values, default=0.0)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50))
def test_any_duration_is_counted(values):
    histogram = Histogram.of(values)
    assert histogram.total == len(values)
    assert 0 <= histogram.quantile_seconds(0.5) <= histogram.max_seconds


@given(histograms)
def test_a_histogram_survives_json(histogram):
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram
