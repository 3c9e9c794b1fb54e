"""Screening: a few pairs, and what was thought before."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.trials import Noise, Outcome, Screening

RATIOS = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=4)


def test_without_a_pair_nothing_is_decided():
    assert Screening(Noise(0.1)).decide([]) is None


def test_one_pair_may_give_up_a_candidate_and_never_prefers_one():
    screening = Screening(Noise(0.1), expected_deviation=0.15)
    assert screening.decide([0.2]).outcome is Outcome.REJECTED
    assert screening.decide([-0.9]) is None


def test_two_good_pairs_prefer_it():
    assert Screening(Noise(0.1)).decide([-0.2, -0.15]).outcome is Outcome.PREFERRED


def test_the_last_pair_decides_either_way():
    screening = Screening(Noise(0.3), max_pairs=4)
    assert screening.decide([-0.2, -0.1, -0.2]) is None
    assert screening.decide([-0.2, -0.1, -0.2, -0.2]).outcome is Outcome.PREFERRED
    assert screening.decide([0.05, -0.05, 0.05, -0.05]).outcome is Outcome.REJECTED


@given(RATIOS, st.floats(0.01, 0.5))
def test_the_estimate_lies_between_what_was_thought_and_what_was_seen(log_ratios, deviation):
    screening = Screening(Noise(deviation), expected_log_ratio=-0.1)
    seen = sum(log_ratios) / len(log_ratios)
    mean, _ = screening.estimate(log_ratios)
    assert min(-0.1, seen) - 1e-9 <= mean <= max(-0.1, seen) + 1e-9
    ratio, low, high = screening.interval(log_ratios)
    assert low < ratio < high


@given(RATIOS, st.floats(0.01, 0.5))
def test_more_noise_lets_a_pair_say_less(log_ratios, deviation):
    quiet, loud = Screening(Noise(deviation)), Screening(Noise(2 * deviation))
    assert abs(loud.estimate(log_ratios)[0]) <= abs(quiet.estimate(log_ratios)[0]) + 1e-12


def test_the_noise_is_learned_from_pairs_of_the_same_two_configurations():
    rng = random.Random(1)
    noise = Noise(0.1)
    for trial in range(200):
        effect = rng.gauss(0, 1)
        noise = noise.after([rng.gauss(effect, 0.3) for _ in range(2 + trial % 3)])
    assert noise.deviation == pytest.approx(0.3, rel=0.1)
    assert noise.after([5.0]) == noise


def test_equal_candidates_are_preferred_now_and_then_and_better_ones_mostly():
    def preferred(effect):
        rng = random.Random(2)
        return sum(screened(effect, rng) is Outcome.PREFERRED for _ in range(1000)) / 1000

    assert preferred(0.0) < 0.35
    assert preferred(math.log(0.8)) > 0.9
    assert preferred(math.log(1.1)) < 0.05


def screened(effect, rng):
    screening, seen = Screening(Noise(0.1), expected_deviation=0.15), []
    while (decision := screening.decide(seen)) is None:
        seen.append(rng.gauss(effect, 0.1))
    return decision.outcome


def test_the_noise_of_pairs_is_known_from_blocks_before_the_first_pair():
    rng = random.Random(3)
    blocks = [math.exp(rng.gauss(0, 0.2)) for _ in range(400)]
    assert Noise.of_blocks(blocks).deviation == pytest.approx(0.2 * math.sqrt(2), rel=0.1)
    assert Noise.of_blocks([]) == Noise.of_blocks([1.0]) == Noise()


def test_what_is_trusted_is_not_given_up_by_a_single_pair():
    trusted = Screening(Noise(0.1), expected_log_ratio=-0.1, expected_deviation=0.3, min_pairs=2)
    assert trusted.decide([0.5]) is None
    assert trusted.decide([0.5, 0.4]).outcome is Outcome.REJECTED
