"""The forecast of errors: calibrated, silent about what it never saw, and without knowledge of the future."""

import numpy as np
import pytest
from synthetic_windows import history

from ml_postgres_optimization.models import error_forest
from ml_postgres_optimization.models.error_forest import Calibration, ErrorForest
from ml_postgres_optimization.models.features import Table
from ml_postgres_optimization.models.score import TimeSlices
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.retry.classification import ErrorClass

SETTINGS = ForestSettings(trees=40)


def steady(number, rng):
    return -6.0 + 0.05 * rng.normal()


def risk(number):
    """Return the probability of a deadlock in a window: high after each window in which many waited for locks."""
    return 0.7 if is_crowded(number - 1) else 0.05


def is_crowded(number):
    return (number * 7919) % 100 < 30


def warned(count, seed):
    """Return windows whose deadlocks are announced by waits for locks one window before."""
    return history(
        count,
        seed,
        log_mean=steady,
        sqlstates=lambda number, rng: {"40P01": 1} if rng.random() < risk(number) else {},
        gauges=lambda number: {"locks.waiting": 9.0 if is_crowded(number) else 0.0},
    )


@pytest.fixture(scope="module")
def past():
    return warned(700, 1)


@pytest.fixture(scope="module")
def model(past):
    return ErrorForest.fit(past, 1, SETTINGS)


def test_a_class_that_was_never_seen_is_absent_and_not_zero(model, past):
    assert model.learned == {ErrorClass.DEADLOCK}
    assert set(model.predict(past[0])) == set(model.score) == {ErrorClass.DEADLOCK}


def test_a_class_that_was_hardly_seen_is_absent():
    rare = {50: {"53200": 1}, 60: {"53200": 1}}
    few = history(120, 1, log_mean=steady, sqlstates=lambda number, rng: rare.get(number, {}))
    model = ErrorForest.fit(few, 1, SETTINGS)
    assert model.learned == frozenset()
    assert model.predict(few[0]) == {}


def test_an_announced_error_is_forecast_better_than_naive(model):
    score = model.score[ErrorClass.DEADLOCK]
    assert score.beats_naive
    assert score.windows == 138
    assert score.occurrences == pytest.approx(138 * 0.245, abs=20)


def test_probabilities_are_calibrated(model, past):
    later = warned(300, 2)
    told = np.array([model.predict(one)[ErrorClass.DEADLOCK].value for one in later])
    crowded = np.array([is_crowded(number) for number in range(300)])
    assert told[crowded].mean() == pytest.approx(0.7, abs=0.12)
    assert told[~crowded].mean() == pytest.approx(0.05, abs=0.05)


def test_the_interval_of_a_probability_holds_the_truth():
    later = warned(100, 99)
    held = []
    for seed in range(3):
        model = ErrorForest.fit(warned(400, seed), seed, SETTINGS)
        told = [model.predict(one)[ErrorClass.DEADLOCK] for one in later]
        held += [one.low <= risk(number + 1) <= one.high for number, one in enumerate(told)]
    assert np.mean(held) >= 0.85


def test_the_calibration_is_as_rich_as_occurrences_allow(model):
    assert model.calibrations[ErrorClass.DEADLOCK].method == "sigmoid"
    occurred = np.zeros(1200, dtype=bool)
    occurred[::10] = True
    raw = np.random.default_rng(1).random(1200)
    assert error_forest._calibrate(raw, occurred).method == "isotonic"
    assert error_forest._calibrate(raw[:60], occurred[:60]).method == "raw"


def test_no_probability_is_more_certain_than_its_windows_can_show():
    never = error_forest._calibrate(np.linspace(0.0, 1.0, 98), np.zeros(98, dtype=bool))
    assert never.apply(np.array([0.0, 1.0])) == pytest.approx([0.01, 0.99])


def test_corners_out_of_order_or_range_make_no_calibration():
    for raw, observed in [((0.0, 0.0), (0.0, 1.0)), ((0.0, 1.0), (0.0, 1.5)), ((), ()), ((0.0, 1.0), (0.5,))]:
        with pytest.raises(ValueError, match="calibration"):
            Calibration("raw", raw, observed)


def witnessed(seed, steps=80, witnesses=8):
    """Return what several witnesses of the same windows recorded: errors by a fair coin, and a gauge drawn for each.

    Nothing announces the coin. But who saw what other witnesses recorded of the *next* window can look it up by the
    gauge: rows that were shuffled teach that, rows of an earlier time cannot.
    """
    drawn = np.random.default_rng(seed).random((2, steps))
    runs = [
        history(
            steps,
            seed,
            log_mean=lambda number, rng: -6.0,
            sqlstates=lambda number, rng: {"40001": 1} if drawn[0, number] < 0.5 else {"23505": 1},
            gauges=lambda number: {"tables.estimated_bytes": drawn[1, number]},
            run=f"witness {witness}",
        )
        for witness in range(witnesses)
    ]
    return Table.of([observation for run in runs for observation in run])


def shuffled_slices(started_at, ended_at):
    rows = np.random.default_rng(1).permutation(len(ended_at))
    first, second = int(0.6 * len(rows)), int(0.8 * len(rows))
    return TimeSlices(rows[:first], rows[first:second], rows[second:])


def test_what_only_a_leak_could_know_is_not_known(monkeypatch):
    tables = [witnessed(seed) for seed in range(2)]
    honest = [ErrorForest.fit(table, 1, SETTINGS).score[ErrorClass.SERIALIZATION] for table in tables]
    assert not any(score.beats_naive for score in honest)
    monkeypatch.setattr(error_forest, "time_slices", shuffled_slices)
    leaking = [ErrorForest.fit(table, 1, SETTINGS).score[ErrorClass.SERIALIZATION] for table in tables]
    assert all(score.beats_naive for score in leaking)


def test_where_operations_are_not_ours_only_deadlocks_can_be_seen():
    table = Table.of(history(120, 1, log_mean=steady, sqlstates=lambda number, rng: {"57014": number % 3}))
    unknown = table.next_errors.copy()
    unknown[:, 0:1], unknown[:, 2:] = np.nan, np.nan
    unknown[::4, 1] = 1.0
    served = error_forest._learnable(Table(table.names, *(getattr(table, part) for part in PARTS), unknown))
    assert served[0] == (ErrorClass.DEADLOCK,)


PARTS = ("matrix", "started_at", "ended_at", "log_mean", "next_log_mean", "errors")
