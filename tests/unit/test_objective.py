"""The objective of a block: a change of the mix is not a change of speed."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, Window
from ml_postgres_optimization.trials import NO_GUARDS, Guards, Health, Measure, breach, mix_of, paired_objective
from ml_postgres_optimization.trials.objective import response_with_mix

START = datetime(2026, 1, 1, tzinfo=UTC)


def window(*, seconds=10.0, skipped=0, statements=None, **kinds):
    """Return a window; each kind is (count, latency) or (count, latency, failed)."""
    operations = {}
    for kind, (count, latency, *failed) in kinds.items():
        histogram = Histogram.of(np.full(count, latency))
        operations[kind] = OperationWindow(histogram, histogram, failed[0] if failed else 0)
    return Window(
        started_at=START,
        ended_at=START + timedelta(seconds=seconds),
        configuration_id="c",
        operations=operations,
        skipped_total=skipped,
        statements=statements or {},
    )


def called(**queries):
    """Return statement counters; each query is (calls, seconds of one call)."""
    return {
        (ord(name), 0, 0): StatementCounters(calls, calls * each, 0, 0, 0, 0, 0.0)
        for name, (calls, each) in queries.items()
    }


def test_a_change_of_mix_is_not_a_change_of_speed():
    baseline = window(read=(900, 0.001), write=(100, 0.010))
    candidate = window(read=(100, 0.001), write=(900, 0.010))
    assert candidate.response.mean_seconds > 4 * baseline.response.mean_seconds
    figures = paired_objective(baseline, candidate, reference=baseline, measure=Measure.MEAN)
    assert figures == pytest.approx((0.0019, 0.0019), rel=1e-6)


def test_a_kind_that_is_missing_in_one_block_is_left_out_of_both():
    reference = window(read=(500, 0.001), write=(400, 0.010), join=(100, 1.0))
    baseline, candidate = window(read=(500, 0.001), write=(10, 0.010), join=(3, 1.0)), window(read=(9, 0.002))
    figures = paired_objective(baseline, candidate, reference=reference, measure=Measure.MEAN)
    assert figures == pytest.approx((0.001, 0.002))


@pytest.mark.parametrize("measure", Measure)
def test_exchanging_the_arms_exchanges_the_figures(measure):
    reference = window(read=(700, 0.001), write=(300, 0.003))
    first, second = (
        window(read=(500, 0.002), write=(20, 0.004)),
        window(read=(10, 0.001), join=(5, 1.0), write=(1, 0.1)),
    )
    forth = paired_objective(first, second, reference=reference, measure=measure)
    back = paired_objective(second, first, reference=reference, measure=measure)
    assert forth == back[::-1]


def test_quantiles_are_taken_of_the_reweighted_whole():
    reference = window(read=(98, 0.001), write=(2, 0.1))
    block = window(read=(10, 0.001), write=(90, 0.1))
    mean, _ = paired_objective(block, block, reference=reference, measure=Measure.MEAN)
    p95, _ = paired_objective(block, block, reference=reference, measure=Measure.P95)
    p99, _ = paired_objective(block, block, reference=reference, measure=Measure.P99)
    assert mean == pytest.approx(0.98 * 0.001 + 0.02 * 0.1, rel=1e-6)
    assert p95 == pytest.approx(0.001, rel=0.01)
    assert p99 == pytest.approx(0.1, rel=0.01)


def test_the_own_mix_changes_nothing():
    block = window(read=(70, 0.001), write=(30, 0.004))
    response = response_with_mix(block, mix_of(block))
    assert response.mean_seconds == pytest.approx(block.response.mean_seconds)
    assert response.quantile_seconds(0.9) == block.response.quantile_seconds(0.9)


def test_throughput_is_the_time_for_one_that_succeeds():
    figures = paired_objective(
        window(read=(100, 0.001)), window(read=(100, 0.001, 50)), reference=window(), measure=Measure.THROUGHPUT
    )
    assert figures == pytest.approx((0.1, 0.2))


def test_sessions_that_are_not_ours_are_compared_query_by_query_in_the_baselines_mix():
    reference = window(statements=called(a=(90, 0.001), b=(10, 0.1), c=(5, 0.01)))
    baseline = window(statements=called(a=(50, 0.001), b=(50, 0.1), d=(9, 9.0)))
    candidate = window(statements=called(a=(1, 0.002), b=(99, 0.1), c=(5, 1.0)))
    figures = paired_objective(baseline, candidate, reference=reference, measure=Measure.MEAN)
    assert figures == pytest.approx((0.9 * 0.001 + 0.1 * 0.1, 0.9 * 0.002 + 0.1 * 0.1))


@pytest.mark.parametrize(("lost_seconds", "compares"), [(0.09, True), (0.13, False)])
def test_what_a_block_lacks_may_be_a_tenth_of_the_execution_time_and_no_more(lost_seconds, compares):
    reference = window(statements=called(a=(1000, 0.001), b=(1, lost_seconds)))
    lacking = window(statements=called(a=(1000, 0.0009)))
    figures = paired_objective(reference, lacking, reference=reference, measure=Measure.MEAN)
    assert np.isfinite(figures).all() == compares
    assert paired_objective(lacking, reference, reference=reference, measure=Measure.MEAN) == pytest.approx(
        figures[::-1], nan_ok=True
    )


def test_a_percentile_of_our_load_before_it_has_finished_anything_is_not_a_number():
    reference, block = window(statements=called(a=(1, 0.1))), window(read=(10, 0.001), statements=called(a=(1, 0.1)))
    for measure in (Measure.MEAN, Measure.P99):
        assert np.isnan(paired_objective(block, block, reference=reference, measure=measure)).all()


def test_a_percentile_of_sessions_that_are_not_ours_is_refused():
    block = window(statements=called(a=(1, 0.1)))
    with pytest.raises(UsageError, match="p99"):
        paired_objective(block, block, reference=block, measure=Measure.P99)


@pytest.mark.parametrize("measure", [Measure.MEAN, Measure.THROUGHPUT])
def test_nothing_to_compare_is_not_a_number(measure):
    figures = paired_objective(window(), window(), reference=window(), measure=measure)
    assert np.isnan(figures).all()


BASELINE = {"read": (1000, 0.010)}


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (window(read=(1000, 0.019)), None),
        (window(read=(1000, 0.021)), "mean response"),
        (window(read=(980, 0.010), write=(20, 0.200)), None),
        (window(read=(1000, 0.010, 9)), None),
        (window(read=(1000, 0.010, 11)), "failed"),
        (window(skipped=40, read=(1000, 0.010)), None),
        (window(skipped=80, read=(1000, 0.010)), "skipped"),
        (window(), "finished per second"),
        (window(read=(99, 0.010)), "finished per second"),
        (window(read=(101, 0.010)), None),
    ],
)
def test_guards_stop_what_is_clearly_worse_and_nothing_else(candidate, says):
    reference = window(**BASELINE)
    health = Health.of(candidate, reference=reference)
    found = breach(health, Health.of(reference, reference=reference), Guards())
    assert (found is None) if says is None else says in found.reason and not found.may_be_a_stall


def test_a_tail_that_grows_is_seen_and_may_be_a_stall():
    reference = window(**BASELINE)
    tail = Histogram.of(np.concatenate([np.full(970, 0.009), np.full(30, 0.2)]))
    candidate = Window(START, START, "c", operations={"read": OperationWindow(tail, tail)})
    found = breach(Health.of(candidate, reference=reference), Health.of(reference, reference=reference), Guards())
    assert "99th percentile" in found.reason
    assert found.may_be_a_stall


def test_the_worst_of_the_baseline_counts_and_not_a_number_gives_way():
    first = Health(5.0, 0.1, float("nan"), 0.1, 0.0, 0.2, 10.0, 0.9)
    second = Health(5.0, 0.2, 0.5, 0.05, 0.1, 0.1, 20.0, float("nan"))
    assert first.worst(second) == Health(5.0, 0.2, 0.5, 0.1, 0.1, 0.2, 10.0, 0.9)


FOREIGN = window(statements=called(a=(900, 0.001), r=(2, 1.0)))


@pytest.mark.parametrize(
    ("candidate", "says", "may_be_chance"),
    [
        (called(a=(900, 0.001), r=(1, 1.0)), None, False),
        (called(a=(900, 0.0009)), "did not finish", True),
        (called(r=(200, 1.0)), "took 31%", True),
        (called(a=(900, 0.001), r=(2, 5.0)), "mean response", False),
        (called(r=(2, 1.0)), "finished per second", False),
        ({}, "finished per second", False),
    ],
)
def test_a_query_that_stops_finishing_is_stopped_unless_it_may_be_chance(candidate, says, may_be_chance):
    reference = Health.of(FOREIGN, reference=FOREIGN)
    found = breach(Health.of(window(statements=candidate), reference=FOREIGN), reference, Guards())
    assert (found is None) if says is None else (says in found.reason and found.may_be_a_stall is may_be_chance)


def test_without_guards_nothing_is_breached():
    reference = Health.of(FOREIGN, reference=FOREIGN)
    for candidate in ({}, called(a=(900, 9.0))):
        assert breach(Health.of(window(statements=candidate), reference=FOREIGN), reference, NO_GUARDS) is None


def test_few_that_do_not_come_may_be_chance():
    reference = window(statements=called(a=(9, 0.001)))
    found = breach(Health.of(window(), reference=reference), Health.of(reference, reference=reference), Guards())
    assert found.may_be_a_stall
