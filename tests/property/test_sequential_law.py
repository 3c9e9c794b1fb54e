"""The paired test against its laws: it rarely errs whatever the noise, and it finds what is there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.trials import Outcome, Pair, PairedTest, Thresholds, decide

TRIALS = 1000
PAIRS = 30
PATIENT = Thresholds(futility_alpha=None)
FIGURE = st.floats(1e-6, 1e6)
PAIRS_OF_FIGURES = st.lists(st.tuples(FIGURE, FIGURE, st.booleans()), min_size=1, max_size=40)


def white(rng, blocks):
    return 0.3 * rng.standard_normal(blocks)


def autocorrelated(rng, blocks):
    noise = np.zeros(blocks)
    for block in range(1, blocks):
        noise[block] = 0.8 * noise[block - 1] + 0.18 * rng.standard_normal()
    return noise


def heavy_tailed(rng, blocks):
    return 0.1 * rng.standard_t(1.5, blocks)


def drifting(rng, blocks):
    return np.linspace(0, 2, blocks) + 0.05 * rng.standard_normal(blocks)


def periodic(rng, blocks):
    """A checkpoint in every fourth block: in step with the pairs, the worst case for a design without a coin."""
    return 0.7 * ((np.arange(blocks) + rng.integers(4)) % 4 == 0) + 0.05 * rng.standard_normal(blocks)


def second_block_slower(rng, blocks):
    return 0.5 * (np.arange(blocks) % 2) + 0.02 * rng.standard_normal(blocks)


LESS_OFTEN = {drifting, second_block_slower}
NOISES = tuple(
    pytest.param(noise, marks=pytest.mark.long) if noise in LESS_OFTEN else noise
    for noise in (white, autocorrelated, heavy_tailed, drifting, periodic, second_block_slower)
)


def outcome_of(noise, rng, *, ratio=1.0, pairs=PAIRS, thresholds=PATIENT):
    """Run one trial on simulated blocks; return its outcome, and after how many pairs."""
    test = PairedTest()
    for first, second in noise(rng, 2 * pairs).reshape(pairs, 2):
        candidate_first = bool(rng.random() < 0.5)
        candidate, baseline = (first, second) if candidate_first else (second, first)
        test.add(Pair(math.exp(baseline), ratio * math.exp(candidate), candidate_first))
        if decision := decide(test, thresholds):
            return decision.outcome, len(test)
    return Outcome.UNDECIDED, pairs


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
def test_noise_promotes_nothing(noise):
    rng = np.random.default_rng(20)
    promoted = sum(outcome_of(noise, rng)[0] is Outcome.PROMOTED for _ in range(TRIALS))
    assert promoted <= 0.05 * TRIALS


def test_a_true_effect_of_10_percent_is_found_under_30_percent_noise():
    rng = np.random.default_rng(20)
    outcomes = [outcome_of(white, rng, ratio=0.9, pairs=300) for _ in range(100)]
    found = [pairs for outcome, pairs in outcomes if outcome is Outcome.PROMOTED]
    assert len(found) >= 80
    assert np.median(found) <= 160


@pytest.mark.parametrize(
    ("noise", "pairs"),
    [(white, 320), (autocorrelated, 90), (heavy_tailed, 120)],
    ids=["white", "autocorrelated", "heavy_tailed"],
)
def test_an_improvement_is_found_in_four_of_five_trials(noise, pairs):
    rng = np.random.default_rng(4)
    found = sum(outcome_of(noise, rng, ratio=0.9, pairs=pairs)[0] is Outcome.PROMOTED for _ in range(50))
    assert found >= 40


def test_a_clear_improvement_takes_no_more_than_eight_pairs():
    rng = np.random.default_rng(1)
    results = [outcome_of(lambda rng, n: 0.1 * rng.standard_normal(n), rng, ratio=0.4) for _ in range(50)]
    assert all(outcome is Outcome.PROMOTED and pairs <= 8 for outcome, pairs in results)


def test_equal_arms_with_little_noise_are_equivalent():
    rng = np.random.default_rng(1)
    results = [outcome_of(lambda rng, n: 0.02 * rng.standard_normal(n), rng, pairs=60)[0] for _ in range(20)]
    assert results.count(Outcome.EQUIVALENT) >= 18


@pytest.mark.parametrize("ratio", [0.5, 0.97, 1.0, 1.3])
def test_the_interval_holds_at_all_times(ratio):
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(200):
        test = PairedTest()
        noise = heavy_tailed(rng, 60).reshape(30, 2)
        covered = True
        for first, second in noise:
            coin = 1 if rng.random() < 0.5 else -1
            test.add(Pair(1.0, ratio * math.exp(coin * (first - second)), True))
            covered &= not (test.is_above(ratio) or test.is_below(ratio))
        missed += not covered
    assert missed <= 0.05 * 200


def filled(figures):
    test = PairedTest()
    for baseline, candidate, first in figures:
        test.add(Pair(baseline, candidate, first))
    return test


def test_what_brings_nothing_is_given_up_early_and_what_is_better_is_not():
    def noise(rng, blocks):
        return 0.1 * rng.standard_normal(blocks)

    rng = np.random.default_rng(5)
    worse = [outcome_of(noise, rng, ratio=1.05, pairs=200, thresholds=Thresholds()) for _ in range(50)]
    better = [outcome_of(noise, rng, ratio=0.9, pairs=200, thresholds=Thresholds())[0] for _ in range(50)]
    assert {outcome for outcome, _ in worse} == {Outcome.REJECTED}
    assert np.mean([pairs for _, pairs in worse]) <= 25
    assert better.count(Outcome.PROMOTED) >= 47


@given(PAIRS_OF_FIGURES)
def test_the_estimate_lies_inside_the_interval(figures):
    ratio, low, high = filled(figures).interval()
    assert 0 <= low <= ratio * (1 + 1e-6)
    assert ratio * (1 - 1e-6) <= high


@given(PAIRS_OF_FIGURES)
def test_exchanging_the_arms_inverts_the_interval(figures):
    ratio, low, high = filled(figures).interval()
    other = filled([(candidate, baseline, first) for baseline, candidate, first in figures]).interval()
    assert other.ratio == pytest.approx(1 / ratio, rel=1e-6)
    assert other.low == pytest.approx(1 / high, rel=1e-6)
    assert other.high == pytest.approx(1 / low if low else math.inf, rel=1e-6)


@given(PAIRS_OF_FIGURES, st.floats(0.01, 100))
def test_the_shortcuts_agree_with_the_interval(figures, ratio):
    test = filled(figures)
    _, low, high = test.interval()
    if not math.isclose(ratio, low, rel_tol=1e-6):
        assert test.is_above(ratio) == (ratio < low)
    if not math.isclose(ratio, high, rel_tol=1e-6):
        assert test.is_below(ratio) == (ratio > high)


@given(PAIRS_OF_FIGURES, st.floats(1e-3, 1e3))
def test_the_unit_of_time_is_irrelevant(figures, factor):
    scaled = [(baseline * factor, candidate * factor, first) for baseline, candidate, first in figures]
    assert filled(scaled).interval() == pytest.approx(filled(figures).interval(), rel=1e-6)


@given(PAIRS_OF_FIGURES.filter(lambda figures: len(figures) <= 5))
def test_five_pairs_never_decide(figures):
    assert decide(filled(figures), Thresholds(min_pairs=0, futility_alpha=None)) is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        PairedTest().add(Pair(bad, 1.0, True))
