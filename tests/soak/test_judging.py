"""What is asked of a run, and what it is said to have held."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_run import SimulatedRun, autocorrelated, eventful

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.soak.judging.drift.cycle import without_cycle
from ml_postgres_optimization.soak.judging.drift.shift import shifts
from ml_postgres_optimization.soak.judging.drift.trend import mann_kendall, theil_sen
from ml_postgres_optimization.soak.judging.limits import Limits, parse_limits, read_limits
from ml_postgres_optimization.soak.judging.outcome import Outcome
from ml_postgres_optimization.soak.judging.quantity import Dimension, quantity
from ml_postgres_optimization.soak.judging.verdict import Result, judge

DAYS = SimulatedRun(hours=72, interval_seconds=600, per_second=1, noise=0.03)

# a p99.9 of few operations is their largest: too noisy to say anything of
FEW = parse_limits('[drift]\nmetrics = ["mean", "p99", "throughput"]')


def judged(run, limits=None):
    return judge(fold(run.description, run.intervals()), limits or Limits())


def outcome(verdict, name):
    return next(finding.outcome for finding in verdict.findings if finding.name == name)


def test_the_defaults_are_those_of_the_specification():
    assert (Limits().success_ratio, Limits().mean_seconds) == (0.995, 0.005)
    assert parse_limits("") == Limits()


def test_a_criteria_file_is_read_in_the_units_that_people_write(tmp_path):
    path = tmp_path / "criteria.toml"
    path.write_text(
        'success = "99.9 %"\nmean = "900 µs"\np99 = "0.05 s"\np99_9 = "200ms"\nhourly_burn = "off"\n'
        'client_memory_growth = "1.5 MB/h"\nbloat_growth = "150 %"\nundecided = "fail"\n'
        '[drift]\nmetrics = ["p99", "client_memory"]\nminimum = "10 %"\nconfidence = "99 %"\ndetectable = "200 %"\n',
        encoding="utf-8",
    )
    limits = read_limits(path)
    assert (limits.success_ratio, limits.mean_seconds, limits.p99_seconds) == (0.999, 0.0009, 0.05)
    assert (limits.p99_9_seconds, limits.hourly_burn_factor) == (0.2, None)
    assert (limits.client_memory_bytes_per_hour, limits.bloat_growth_ratio) == (1.5e6, 1.5)
    assert limits.undecided_fails and limits.drift.metrics == ("p99", "client_memory")
    assert (limits.drift.minimum_ratio, limits.drift.confidence_ratio) == (0.1, 0.99)
    assert limits.drift.detectable_ratio == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('p98 = "5 ms"', "'p98' is not known.*p99"),
        ('mean = "5 MB/h"', "mean is '5 MB/h': MB/h is no unit of a time.*us, µs, ms"),
        ("mean = 5", "mean is 5: no unit is no unit of a time"),
        ('client_memory_growth = "1 MB"', "MB is no unit of growth of memory.*MB/h"),
        ("success = nan", "success is nan; it must be from 0 to 100 %"),
        ('success = "101 %"', "it must be from 0 to 100 %"),
        ('p99 = "-3 ms"', "p99 is '-3 ms'; it must be finite and not negative"),
        ('p99 = "inf ms"', "finite and not negative"),
        ('p99 = "soon"', "p99 is 'soon', which is no quantity.*p99 = \"5 ms\""),
        ("p99 = true", "p99 is True, which is no quantity"),
        ('success = "off"', "success cannot be off"),
        ('drift = "maybe"', "drift is 'maybe'; it is a table"),
        ('[drift]\nmetrics = ["p999"]', "'p999' is not known"),
        ('[drift]\nmetrics = "p99"', "it is a list"),
        ('[drift]\nconfidence = "100 %"', "below 100 %"),
        ('[drift]\nalpha = "5 %"', r"\[drift\]: 'alpha' is not known"),
        ('undecided = "maybe"', "must be pass or fail"),
        ("mean =", "is no TOML"),
    ],
)
def test_what_is_wrong_with_a_criteria_file_is_said(text, said, tmp_path):
    path = tmp_path / "criteria.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"(?s){said}") as refused:
        read_limits(path)
    assert refused.value.exit_code == 2 and refused.value.next_step


def test_a_criteria_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "binary"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_limits(path)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_a_quantity(text):
    try:
        assert quantity("mean", text, Dimension.SECONDS) >= 0
    except UsageError as refused:
        assert refused.next_step


def test_three_quiet_days_under_a_daily_load_pass():
    verdict = judged(DAYS, FEW)
    assert verdict.result is Result.PASSED and verdict.exit_code == 0
    assert {finding.outcome for finding in verdict.findings} == {Outcome.PASSED}
    assert verdict.drifts["p99"].is_without_cycle
    # seeds 1 to 10 gave 0.14 on average with a deviation of 0.017; the bounds are four of those away
    assert 0.07 < verdict.drifts["p99"].detectable_ratio < 0.21


def test_a_drift_of_a_tenth_under_a_daily_load_is_found():
    verdict = judged(replace(DAYS, drift=0.1))
    assert outcome(verdict, "drift") is Outcome.FAILED and verdict.exit_code == 1
    assert verdict.drifts["mean"].change_ratio == pytest.approx(0.1, abs=0.03)
    assert not verdict.drifts["throughput"].found


def test_a_leak_fails_and_memory_that_fills_up_does_not():
    leaking = judged(replace(DAYS, leak=2e6))
    assert outcome(leaking, "client_memory_growth") is Outcome.FAILED
    assert leaking.drifts["client_memory"].slope_per_hour == pytest.approx(2e6, rel=0.05)

    def filling():
        for interval in DAYS.intervals():
            grown = 92e6 + 300e6 * (1 - np.exp(-interval.number * 600 / 3600 / 10))
            yield replace(interval, resources={"client.rss_bytes": grown})

    verdict = judge(fold(DAYS.description, filling()), Limits())
    assert verdict.drifts["client_memory"].slope_per_hour > 1e6
    assert outcome(verdict, "client_memory_growth") is Outcome.PASSED


def test_a_load_that_changes_for_good_excuses_what_follows_it():
    run = replace(DAYS, hours=9, interval_seconds=300, drift=0.3, daily=0.6)
    figures = fold(run.description, run.intervals())
    verdict = judge(figures, Limits())
    assert outcome(verdict, "drift") is Outcome.UNDECIDED
    assert "offered load" in verdict.drifts["mean"].doubt
    assert verdict.result is Result.PASSED
    assert judge(figures, parse_limits('undecided = "fail"')).exit_code == 1


def test_a_run_too_short_for_a_trend_is_judged_by_the_rest():
    verdict = judged(SimulatedRun(hours=0.1, interval_seconds=10, daily=0.0))
    assert outcome(verdict, "drift") is Outcome.UNDECIDED
    assert verdict.result is Result.PASSED
    assert "Too short for a trend" in verdict.drifts["p99"].doubt


def test_that_nothing_was_found_where_nothing_could_have_been_is_no_finding():
    run = SimulatedRun(hours=1.5, interval_seconds=30, per_second=5, daily=0.0, noise=0.3)
    figures = fold(run.description, run.intervals())
    verdict = judge(figures, Limits())
    assert verdict.drifts["p99"].doubt is None and verdict.drifts["p99"].detectable_ratio > 0.25
    assert outcome(verdict, "drift") is Outcome.UNDECIDED
    assert outcome(judge(figures, parse_limits('[drift]\ndetectable = "2000 %"')), "drift") is Outcome.PASSED


def test_a_run_of_nothing_is_not_passed():
    run = SimulatedRun(hours=1, gaps={(0, 1): IntervalState.CLIENT_DOWN})
    verdict = judged(run)
    assert verdict.result is Result.UNDECIDED and verdict.exit_code == 1
    empty = judge(fold(run.description, []), Limits())
    assert empty.result is Result.UNDECIDED


def test_an_hour_of_outage_is_a_burnt_budget_although_the_whole_run_succeeds_often_enough():
    run = replace(DAYS, failed_ratio=0.0, gaps={(30.0, 30.1): IntervalState.SERVER_DOWN})
    verdict = judged(run)
    assert outcome(verdict, "success") is Outcome.PASSED
    assert outcome(verdict, "hourly_burn") is Outcome.FAILED
    # a sixth of an hour, in units of half a percent
    assert next(one.found_value for one in verdict.findings if one.name == "hourly_burn") == pytest.approx(
        40, rel=0.3
    )
    away = judged(replace(run, gaps={(30.0, 30.1): IntervalState.CLIENT_DOWN}))
    assert outcome(away, "hourly_burn") is Outcome.PASSED


def test_a_violated_ledger_fails_whatever_else_a_run_held():
    description = replace(DAYS.description, violation="3 acknowledged operations have no row.")
    verdict = judge(fold(description, replace(DAYS, hours=1).intervals()), Limits())
    assert verdict.result is Result.FAILED and outcome(verdict, "integrity") is Outcome.FAILED


def test_a_level_that_changes_at_once_is_a_shift_and_a_slope_is_none():
    rng = np.random.default_rng(5)
    noise = 0.02 * autocorrelated(rng, 72, 0.5)
    step, slope = noise + 0.15 * (np.arange(72) >= 40), noise + 0.15 * np.arange(72) / 72
    for series, expected in ((step, [40]), (slope, []), (noise, [])):
        kept, rest = without_cycle(series, 0)
        found = shifts(kept, rest, 0.05)
        assert len(found) == len(expected) and all(abs(a - b) <= 2 for a, b in zip(found, expected, strict=True))


def test_a_daily_cycle_of_any_phase_keeps_nothing_of_a_drift():
    hour = np.arange(71)
    for phase in range(0, 24, 5):
        cycle = 0.5 * (((hour + phase) % 24) > 12)
        kept, rest = without_cycle(cycle + 0.1 * hour / 71, 24)
        assert theil_sen(kept) * 71 == pytest.approx(0.1, abs=1e-6)
        assert rest.deviation < 1e-9


def test_missing_blocks_change_no_slope():
    values = 0.1 * np.arange(60.0)
    values[[3, 20, 21, 22, 50]] = np.nan
    assert theil_sen(values) == pytest.approx(0.1)
    assert mann_kendall(values) > 9
    assert without_cycle(values, 24)[1].deviation < 1e-9


def test_everything_that_can_happen_is_judged():
    verdict = judged(eventful(interval_seconds=720, per_second=1), FEW)
    assert outcome(verdict, "hourly_burn") is Outcome.FAILED
    assert outcome(verdict, "drift") is Outcome.PASSED
    assert all(finding.evidence for finding in verdict.findings)
