"""Laws of histograms and windows."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.telemetry import (
    ActivitySample,
    Histogram,
    LatencySample,
    OperationWindow,
    Recorder,
    SampleBatch,
    Snapshot,
    StatementCounters,
    VirtualClock,
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
        retried=draw(st.dictionaries(st.sampled_from(["40001", "57P01"]), counts)),
        ambiguous_total=draw(counts),
        statements=draw(st.dictionaries(statement_keys, statement_counters, max_size=3)),
    )


def counted(window: Window) -> dict[str, object]:
    """Everything that adds up."""
    return {
        "operations": dict(window.operations),
        "lag": window.lag,
        "errors": dict(window.errors),
        "skipped": window.skipped_total,
        "retried": dict(window.retried),
        "ambiguous": window.ambiguous_total,
        "statements": dict(window.statements),
        "labels": dict(window.labels),
        "started_at": window.started_at,
        "ended_at": window.ended_at,
    }


@settings(max_examples=40)
@given(windows(), windows(), windows())
def test_merging_is_associative(a, b, c):
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    assert counted(left) == counted(right)
    assert left.rates == pytest.approx(dict(right.rates))
    assert left.waits == pytest.approx(dict(right.waits))


@settings(max_examples=40)
@given(windows(), windows())
def test_merging_is_commutative(a, b):
    left, right = merge(a, b), merge(b, a)
    assert counted(left) == counted(right)
    assert left.rates == pytest.approx(dict(right.rates))
    assert left.waits == pytest.approx(dict(right.waits))


@settings(max_examples=40)
@given(windows(), windows())
def test_merging_loses_nothing(a, b):
    merged = merge(a, b)
    assert merged.operations_total == a.operations_total + b.operations_total
    assert merged.failed_total == a.failed_total + b.failed_total
    assert merged.ambiguous_total == a.ambiguous_total + b.ambiguous_total
    before = [sum(window.errors_before_retries.values()) for window in (merged, a, b)]
    assert before[0] == before[1] + before[2] == sum(merged.errors.values()) + sum(merged.retried.values())
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


class Reports:
    """Operations with given ends, in reports of given lengths, and a server that has nothing to say."""

    def __init__(self, clock: VirtualClock, ends: list[float], lengths: list[float]) -> None:
        limits = np.cumsum([0.0, *lengths])
        self._clock = clock
        self.waiting = [self._batch([], 0.0, 0.0)]  # a source that will be behind says so at the start
        self.waiting += [self._batch(ends, *pair) for pair in itertools.pairwise(limits.tolist())]
        self.end_seconds = float(limits[-1])

    @staticmethod
    def _batch(ends: list[float], since: float, until: float) -> SampleBatch:
        samples = [LatencySample("read", end, end, end) for end in ends if since < end <= until]
        counted = {"since_seconds": since, "until_seconds": until, "complete_until_seconds": until}
        return replace(SampleBatch.of(samples, skipped_total=2), due_total=7 + len(samples), **counted)

    def samples(self) -> list[SampleBatch]:
        told = [batch for batch in self.waiting if batch.until_seconds <= self._clock.monotonic_seconds()]
        self.waiting = self.waiting[len(told) :]
        return told

    def snapshot(self) -> Snapshot:
        return Snapshot(self._clock.now(), self._clock.monotonic_seconds(), {})

    def activity(self) -> ActivitySample:
        return ActivitySample({}, 0, 0, 0, 0.0)


@given(
    st.lists(st.floats(0.001, 8.0), max_size=40),
    st.lists(st.floats(0.05, 0.5), min_size=40, max_size=60),
    st.lists(st.floats(0.0, 2.0), max_size=6),
    st.data(),
)
def test_windows_cut_anywhere_add_up_to_all_that_was_reported(ends, lengths, durations, data):
    clock = VirtualClock()
    reports = Reports(clock, ends, lengths)
    batches = list(reports.waiting)
    recorder = Recorder(reports, clock, samples=reports.samples)
    begun_seconds, parts = 0.0, []
    for duration in durations:
        window = recorder.record(duration, configuration_id="stock")
        ended_seconds = begun_seconds + window.duration_seconds
        if ended_seconds <= reports.end_seconds:
            inside = [end for end in ends if begun_seconds < end - 1e-5 and end + 1e-5 <= ended_seconds]
            around = [end for end in ends if begun_seconds <= end + 1e-5 and end - 1e-5 <= ended_seconds]
            assert len(inside) <= window.operations_total <= len(around)
        begun_seconds = ended_seconds
        parts.append(window)
        if data.draw(st.booleans()):
            clock.sleep(data.draw(st.floats(0.0, 1.0)))
    clock.sleep(reports.end_seconds)
    parts.append(recorder.finish(configuration_id="stock"))
    windows = [part for part in parts if part]
    told = sum(len(batch) for batch in batches)
    assert sum(window.operations_total for window in windows) == told
    assert sum(window.skipped_total for window in windows) == 2 * len(batches)
    # a window of no length has no rate, so it cannot say what came due in it
    if all(window.duration_seconds for window in windows):
        assert sum(window.due_total for window in windows) == told + 7 * len(batches)


@given(st.lists(st.floats(0.0, 10.0), max_size=30), st.floats(-1.0, 11.0), st.integers(0, 9), st.integers(0, 99))
def test_both_parts_of_a_batch_are_the_whole(ends, at, skipped, due):
    batch = SampleBatch.of([LatencySample("read", 0.0, 0.0, end) for end in sorted(ends)], skipped_total=skipped)
    whole = replace(
        batch,
        due_total=due,
        since_seconds=0.0,
        until_seconds=10.0,
        ambiguous=batch.end_seconds < 5.0,
        retried={"40001": due},
    )
    earlier, later = whole.split(at)
    assert np.array_equal(np.concatenate([earlier.ambiguous, later.ambiguous]), whole.ambiguous)
    assert earlier.retried.get("40001", 0) + later.retried.get("40001", 0) == due
    assert np.array_equal(np.concatenate([earlier.end_seconds, later.end_seconds]), whole.end_seconds)
    assert all(end <= at for end in earlier.end_seconds)
    assert all(end > at for end in later.end_seconds)
    for part, count in (("skipped_total", skipped), ("due_total", due)):
        assert getattr(earlier, part) + getattr(later, part) == count
        assert min(getattr(earlier, part), getattr(later, part)) >= 0


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
