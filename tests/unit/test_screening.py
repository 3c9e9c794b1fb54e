"""Screening: a few blocks, and what was thought before."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.trials import Outcome
from ml_postgres_optimization.tuning.offline import Noise, Screening, Seen

NOISE = 0.1


def seen(log_ratio, blocks, *, noise=NOISE, incumbent=4):
    return Seen(log_ratio, noise * math.sqrt(1 / blocks + 1 / incumbent), blocks)


def test_one_block_may_give_up_a_candidate_and_never_prefers_one():
    screening = Screening(expected_deviation=0.15)
    assert screening.decide(seen(0.2, 1)).outcome is Outcome.REJECTED
    assert screening.decide(seen(-0.9, 1)) is None


@given(st.floats(-1, 1), st.integers(1, 4))
def test_what_is_the_last_block_decides_and_a_single_one_never_for_the_candidate(log_ratio, blocks):
    decision = Screening(likely=0.5).decide(seen(log_ratio, blocks), is_last=True)
    assert decision is not None
    assert blocks > 1 or decision.outcome is Outcome.REJECTED


def test_two_good_blocks_prefer_it():
    assert Screening().decide(seen(-0.25, 2)).outcome is Outcome.PREFERRED


def test_the_last_block_decides_either_way():
    screening = Screening(max_blocks=4)
    assert screening.decide(seen(-0.2, 3, noise=0.3)) is None
    assert screening.decide(seen(-0.3, 4, noise=0.3)).outcome is Outcome.PREFERRED
    assert screening.decide(seen(0.0, 4, noise=0.3)).outcome is Outcome.REJECTED


def test_what_is_trusted_is_not_given_up_by_a_single_block():
    trusted = Screening(-0.1, 0.3, min_blocks=2)
    assert trusted.decide(seen(0.5, 1)) is None
    assert trusted.decide(seen(0.5, 2)).outcome is Outcome.REJECTED


@given(st.floats(-0.5, 0.5), st.integers(1, 4), st.floats(0.01, 0.5))
def test_the_estimate_lies_between_what_was_thought_and_what_was_seen(log_ratio, blocks, noise):
    screening, shown = Screening(expected_log_ratio=-0.1), seen(log_ratio, blocks, noise=noise)
    mean, _ = screening.estimate(shown)
    assert min(-0.1, log_ratio) - 1e-9 <= mean <= max(-0.1, log_ratio) + 1e-9
    ratio, low, high = screening.interval(shown)
    assert low < ratio < high


@given(st.floats(-0.5, 0.5), st.integers(1, 4), st.floats(0.01, 0.5))
def test_more_noise_lets_a_block_say_less(log_ratio, blocks, noise):
    quiet, loud = (Screening().estimate(seen(log_ratio, blocks, noise=n))[0] for n in (noise, 2 * noise))
    assert abs(loud) <= abs(quiet) + 1e-12


def test_the_noise_is_learned_from_blocks_of_one_configuration():
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
    assert preferred(math.log(0.75)) > 0.9
    assert preferred(math.log(1.1)) < 0.1


def screened(effect, rng):
    """Screen a candidate of this true effect, against four blocks of the incumbent to begin with."""
    # as the search's proposals are
    screening = Screening(0.0, 0.15, max_blocks=3, hopeless=0.35, likely=0.7)
    incumbent, candidate = [rng.gauss(0, NOISE) for _ in range(4)], []
    while True:
        candidate.append(rng.gauss(effect, NOISE))
        difference = sum(candidate) / len(candidate) - sum(incumbent[-4:]) / 4
        if decision := screening.decide(seen(difference, len(candidate))):
            return decision.outcome
        incumbent.append(rng.gauss(0, NOISE))
