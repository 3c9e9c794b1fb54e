"""Slices of time, intervals and the comparison with the naive forecast."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.errors import NotEnoughData
from ml_postgres_optimization.models.score import (
    STEP,
    IntervalWidth,
    conformal_factor,
    require_slices,
    skill,
    time_slices,
)


@given(st.lists(st.floats(0.0, 30.0), min_size=5, max_size=200))
def test_slices_are_in_order_with_a_gap_of_one_window(pauses):
    ended_at = np.cumsum(10.0 + np.array(pauses))
    started_at = ended_at - 10.0
    slices = time_slices(started_at, ended_at)
    parts = [part for part in (slices.training, slices.calibration, slices.test) if len(part)]
    assert np.concatenate(parts).tolist() == sorted(set(np.concatenate(parts).tolist()))
    for earlier, later in pairwise(parts):
        assert started_at[later[0]] - ended_at[earlier[-1]] >= 10.0 - 1e-3


def test_adjacent_windows_lose_one_row_at_each_cut():
    ended_at = np.arange(1, 101) * 10.0
    slices = time_slices(ended_at - 10.0, ended_at)
    assert (slices.training[-1], slices.calibration[0], slices.calibration[-1], slices.test[0]) == (59, 61, 79, 81)


def followed(scores, level=0.9):
    """Return which of the residuals, in half widths as calibrated, lay outside, and the width after the last."""
    width, outside = IntervalWidth(), []
    for score in scores:
        outside.append(score > width.ratio)
        width = width.after(held=not outside[-1], level=level)
    return np.array(outside), width


residuals = st.sampled_from([0.0, 0.6]).flatmap(lambda low: st.lists(st.floats(low, 15.0), min_size=1, max_size=100))


@settings(max_examples=50)
@given(residuals, st.sampled_from([0.5, 0.9]))
def test_whatever_happens_an_interval_misses_as_often_as_it_says_or_less(scores, level):
    outside, width = followed(scores, level)
    # residuals of at most 15 half widths cannot drive it to 20; at its narrowest it misses less
    assert outside.mean() - (1.0 - level) <= width.log_ratio / (STEP * len(scores)) + 1e-9
    if min(scores) >= 0.6:  # so that it never comes to its narrowest
        assert outside.mean() - (1.0 - level) == pytest.approx(width.log_ratio / (STEP * len(scores)), abs=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 999), st.lists(st.floats(0.4, 5.0), min_size=2, max_size=4))
def test_an_interval_is_right_again_after_each_shift(seed, scales):
    """What is 5 times as wild as it was held in 26 % of the windows by the width that was calibrated."""
    noise = np.abs(np.random.default_rng(seed).normal(size=(len(scales), 500))) / 1.6449
    outside, _ = followed((noise * np.array(scales)[:, np.newaxis]).ravel())
    # the way from the widest that is left behind to the next, in steps, is what a shift costs
    assert np.abs(outside.reshape(-1, 500).mean(axis=1) - 0.1).max() < 0.1
    assert outside.mean() == pytest.approx(0.1, abs=0.03)


def test_too_few_windows_are_counted():
    ended_at = np.arange(1, 31) * 10.0
    slices = time_slices(ended_at - 10.0, ended_at)
    with pytest.raises(NotEnoughData, match="needs 60 windows to learn from, and has seen 30") as refusal:
        require_slices(slices, 30, 60, "latency forest")
    assert "30 more" in refusal.value.next_step


def test_windows_of_one_moment_cannot_be_cut():
    same = np.full(100, 10.0)
    with pytest.raises(NotEnoughData, match="has seen 0"):
        require_slices(time_slices(same - 10.0, same), 100, 60, "latency forest")


def test_a_conformal_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(300):
        spread = rng.uniform(0.5, 2.0, 60)
        residual = spread * rng.standard_t(4, 60)
        factor = conformal_factor(np.abs(residual[:50]) / spread[:50])
        held.append(np.mean(np.abs(residual[50:]) <= factor * spread[50:]))
    assert np.mean(held) == pytest.approx(0.91, abs=0.02)  # ceil(51 * 0.9) / 51 = 0.902 to 0.922


def test_what_counts_nothing_changes_no_interval_and_what_counts_twice_stands_for_two():
    rng = np.random.default_rng(2)
    scores = rng.exponential(size=40)
    strange = np.concatenate([scores, [99.0]])
    assert conformal_factor(strange, np.append(np.ones(40), 0.0)) == conformal_factor(scores)
    assert conformal_factor(scores, np.full(40, 2.0)) == conformal_factor(np.repeat(scores, 2))
    assert conformal_factor(scores, np.ones(40)) == np.sort(scores)[36]  # ceil(41 * 0.9) = 37th
    assert conformal_factor(scores[:3], np.ones(3)) == scores[:3].max()


def noise(rng, size):
    """Losses of neighbours that are alike, as in windows."""
    white = rng.normal(size=size + 5)
    return np.convolve(white, np.ones(6) / np.sqrt(6), "valid") ** 2


def test_chance_seldom_beats_the_naive_forecast():
    rng = np.random.default_rng(2)
    won = [skill(noise(rng, 100), noise(rng, 100), seed=1).beats_naive for _ in range(300)]
    assert np.mean(won) <= 0.07


def test_a_better_forecast_beats_it_and_a_worse_one_does_not():
    rng = np.random.default_rng(3)
    naive = noise(rng, 200)
    better = skill(0.7 * naive, naive, seed=1)
    assert better.beats_naive
    assert better.ratio == pytest.approx(0.3)
    assert not skill(1.1 * naive, naive, seed=1).beats_naive
    assert not skill(0.995 * naive, naive, seed=1).beats_naive  # better, and worth nothing


def test_a_few_losses_cannot_show_that_a_forecast_is_better():
    assert skill(np.full(8, 0.1), np.ones(8), seed=1).beats_naive
    assert not skill(np.full(7, 0.1), np.ones(7), seed=1).beats_naive


def test_the_comparison_repeats_with_its_seed():
    rng = np.random.default_rng(4)
    loss, naive = noise(rng, 50), noise(rng, 50)
    assert skill(loss, naive, seed=7) == skill(loss, naive, seed=7)
    assert skill(loss, naive, seed=7).low != skill(loss, naive, seed=8).low


def test_a_naive_forecast_without_error_cannot_be_beaten():
    assert not skill(np.zeros(20), np.zeros(20), seed=1).beats_naive
