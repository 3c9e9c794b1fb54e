"""Windows become rows: joined within a run, in the order of time."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from synthetic_windows import STOCK, history, make_window

from ml_postgres_optimization.models.features import (
    ERROR_CLASSES,
    Table,
    feature_matrix,
    features,
    observations,
    stream_observations,
)
from ml_postgres_optimization.retry.classification import ErrorClass

OTHER = STOCK.replaced({"work_mem": 65536, "jit_above_cost": 1.0})
CONFIGURATIONS = {STOCK.id: STOCK, OTHER.id: OTHER}


def windows(count=6, **parts):
    rng = np.random.default_rng(1)
    return [make_window(number, mean_seconds=0.01 + 0.001 * number, rng=rng, **parts) for number in range(count)]


def test_neighbours_of_one_run_are_joined_in_the_order_of_time():
    given = windows()
    joined = observations(reversed(given), CONFIGURATIONS)
    assert [observation.window for observation in joined] == given
    assert [observation.previous for observation in joined] == [None, *given[:-1]]
    assert [observation.following for observation in joined] == [*given[1:], None]


def test_another_run_or_a_gap_is_no_neighbour():
    first, second, third = windows(3)
    second = replace(second, labels={"run": "r2"})
    late = timedelta(seconds=2)
    third = replace(third, started_at=third.started_at + late, ended_at=third.ended_at + late)
    fourth = replace(third, started_at=third.ended_at + late, ended_at=third.ended_at + 6 * late)
    joined = observations([first, second, third, fourth], CONFIGURATIONS)
    assert len(joined) == 4
    assert all(observation.previous is None and observation.following is None for observation in joined)


def test_a_small_step_of_the_clock_is_no_gap():
    first, second = windows(2)
    second = replace(second, started_at=second.started_at + timedelta(milliseconds=300))
    assert observations([first, second], CONFIGURATIONS)[0].following is second


def test_a_window_of_an_unknown_configuration_is_left_out():
    first, second, third = windows(3)
    second = replace(second, configuration_id="gone")
    assert [one.window for one in observations([first, second, third], CONFIGURATIONS)] == [first, third]


def test_streaming_gives_the_same_rows():
    given = windows(20)
    streamed = Table.of(stream_observations(iter(given), CONFIGURATIONS))
    assert streamed.digest == Table.of(observations(given, CONFIGURATIONS)).digest


def test_rows_are_the_features_of_their_observations():
    joined = history(5, 2, log_mean=lambda number, rng: -5.0)
    matrix, names = feature_matrix(reversed(joined))
    for row, observation in zip(matrix, joined, strict=True):
        named = features(observation)
        assert row == pytest.approx([np.float32(named[name]) for name in names], nan_ok=True)


def test_labels_come_from_the_next_window_under_the_same_configuration():
    first, second, third, fourth = windows(4, errors={"40P01": 1})
    third, fourth = (replace(window, configuration_id=OTHER.id) for window in (third, fourth))
    table = Table.of(observations([first, second, third, fourth], CONFIGURATIONS))
    assert np.isfinite(table.next_log_mean).tolist() == [True, False, True, False]
    assert table.next_log_mean[0] == table.log_mean[1]
    deadlock = ERROR_CLASSES.index(ErrorClass.DEADLOCK)
    assert table.next_errors[0, deadlock] == 1.0
    assert np.isnan(table.next_errors[1, deadlock])


def test_knobs_that_only_some_rows_have_are_unknown_in_the_others():
    first, second = windows(2)
    second = replace(second, configuration_id=OTHER.id)
    table = Table.of(observations([first, second], CONFIGURATIONS))
    assert table.columns(["knob.jit_above_cost"])[:, 0] == pytest.approx([np.nan, 1.0], nan_ok=True)
    assert np.isnan(table.columns(["knob.no_such"])).all()


def test_tables_add_up():
    joined = history(12, 3, log_mean=lambda number, rng: -5.0)
    assert Table.joined([Table.of(joined[6:]), Table.of(joined[:6])]).digest == Table.of(joined).digest


def test_a_table_of_nothing_is_a_table():
    empty = Table.of([])
    assert len(empty) == 0
    assert empty.next_errors.shape == (0, len(ERROR_CLASSES))
    assert len(Table.joined([])) == 0
    assert len(Table.joined([empty, Table.of(history(2, 1, log_mean=lambda number, rng: -5.0))])) == 2


def test_what_no_tree_could_take_is_unknown():
    first, second = windows(2)
    first = replace(first, gauges={"locks.granted": float("inf"), "locks.waiting": 1e300})
    table = Table.of(observations([first, second], CONFIGURATIONS))
    assert np.isnan(table.columns(["locks.granted", "locks.waiting"])[0]).all()


def test_the_digest_sees_every_change():
    table = Table.of(history(5, 2, log_mean=lambda number, rng: -5.0))
    changed = replace(table, next_log_mean=table.next_log_mean + 1e-12)
    assert table.digest != changed.digest
    assert table.digest == Table.of(history(5, 2, log_mean=lambda number, rng: -5.0)).digest
