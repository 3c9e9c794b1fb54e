"""The forecast of latency: honest about its interval, and about being no better than the naive one."""

import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_windows import STOCK, history, make_window

from ml_postgres_optimization.models.features import Table
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.models.training import ForestSettings, Lesson

SETTINGS = ForestSettings(trees=40)


def autoregression(coefficient, deviation, level=-6.0):
    """Return a process that forgets its deviations from a level: the naive forecast can be beaten."""
    state = {"value": 0.0}

    def log_mean(number, rng):
        state["value"] = coefficient * state["value"] + deviation * rng.normal()
        return level + state["value"]

    return log_mean


def fitted(seed):
    return LatencyForest.fit(history(400, seed, log_mean=autoregression(0.1, 0.2)), seed, SETTINGS)


@pytest.fixture(scope="module")
def forests():
    return [fitted(seed) for seed in range(6)]


def test_the_interval_holds_the_truth_as_often_as_it_says(forests):
    coverage = np.mean([forest.score.coverage_ratio for forest in forests])
    assert 0.85 <= coverage <= 0.95


def test_the_interval_of_single_predictions_holds_later_windows(forests):
    later = history(60, 99, log_mean=autoregression(0.1, 0.2))[1:-1]
    truth = [observation.following.response.mean_seconds for observation in later]
    held = []
    for forest in forests:
        predictions = [forest.predict(observation) for observation in later]
        held += [one.low <= seconds <= one.high for one, seconds in zip(predictions, truth, strict=True)]
    assert 0.85 <= np.mean(held) <= 0.97


def test_a_latency_that_comes_back_to_its_level_is_forecast_better_than_naive(forests):
    assert all(forest.score.skill.ratio > 0.1 for forest in forests)
    assert sum(forest.score.beats_naive for forest in forests) == 6


def test_a_random_walk_is_not_forecast_better_than_naive():
    clock = {"gauges": lambda number: {"tables.estimated_bytes": 1e6 * number}}
    for seed in range(4):
        walk = history(300, seed, log_mean=autoregression(1.0, 0.1), **clock)
        assert not LatencyForest.fit(walk, seed, SETTINGS).score.beats_naive


def test_the_future_is_not_known_beforehand():
    """With the truth of the held-out time shuffled, skill is gone: none of it was learned from there."""
    table = Table.of(history(300, 1, log_mean=autoregression(0.1, 0.2)))
    assert LatencyForest.fit(table, 1, SETTINGS).score.beats_naive
    change = table.next_log_mean - table.log_mean
    future = np.arange(math.ceil(0.8 * (len(table) - 1)), len(table) - 1)
    change[future] = np.random.default_rng(1).permutation(change[future])
    shuffled = replace(table, next_log_mean=table.log_mean + change)
    assert not LatencyForest.fit(shuffled, 1, SETTINGS).score.beats_naive


def test_a_level_that_was_never_seen_still_gets_a_forecast_around_it(forests):
    rng = np.random.default_rng(1)
    slow = make_window(0, mean_seconds=2.0, rng=rng)
    assert forests[0].predict(Observation(STOCK, slow)).value == pytest.approx(2.0, rel=0.6)


def test_after_a_window_without_operations_the_usual_is_forecast(forests):
    window = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1))
    prediction = forests[0].predict(Observation(STOCK, replace(window, operations={})))
    assert prediction.low < math.exp(-6.0) < prediction.high
    assert prediction.value == pytest.approx(math.exp(-6.0), rel=0.3)


def test_a_change_of_configuration_is_no_consequence_of_the_present_one():
    other = STOCK.replaced({"work_mem": 65536})

    def log_mean(number, rng):
        return -6.0 if number % 2 else -3.0

    alternating = history(130, 1, log_mean=log_mean, configuration=lambda number: other if number % 2 else STOCK)
    table = Table.of(alternating)
    assert np.isnan(table.next_log_mean).all()


def test_a_few_stalled_windows_in_the_later_slice_do_not_make_every_interval_wide():
    stalled = {420, 431, 442, 453, 464, 475, 483, 491}
    past = Table.of(
        history(500, 5, log_mean=lambda number, rng: -6.0 + 0.1 * rng.normal() + 4.0 * (number in stalled))
    )
    known = past.rows(np.isfinite(past.next_log_mean))
    factors = {}
    for recalls in (False, True):
        lesson = Lesson(known.names, known.matrix, known.next_log_mean - known.log_mean, 1, SETTINGS, recalls)
        factors[recalls] = lesson.learn(np.arange(400), np.arange(401, 499)).factor
    assert factors[True] < 0.5 * factors[False]
