"""Flat arrays predict what scikit-learn predicts, and foreign arrays are not trusted."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from ml_postgres_optimization.models.forest import Forest, IntervalForest
from ml_postgres_optimization.models.training import (
    ForestSettings,
    isotonic_curve,
    sigmoid_curve,
    train_classifier,
    train_regressor,
    varying_columns,
)

NAMES = [f"knob.k{number}" for number in range(8)]
SETTINGS = ForestSettings(trees=20, rows_per_tree=150)


@pytest.fixture(scope="module")
def matrix():
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(400, 8)).astype(np.float32)
    drawn[rng.random(drawn.shape) < 0.1] = np.nan
    return drawn


@pytest.fixture(scope="module")
def target(matrix):
    return np.nan_to_num(matrix[:, 0]) * 1.0 + np.isnan(matrix[:, 1])


@pytest.fixture(scope="module")
def forest(matrix, target):
    return train_regressor(NAMES, matrix, target.astype(np.float64), seed=3, settings=SETTINGS)


def sklearn_arguments():
    return {"n_estimators": 20, "max_samples": 150, "min_samples_leaf": 5, "max_features": 1 / 3, "random_state": 3}


def test_a_regression_is_that_of_scikit_learn(forest, matrix, target):
    reference = RandomForestRegressor(**sklearn_arguments()).fit(matrix, target)
    rng = np.random.default_rng(2)
    unseen = rng.normal(size=(300, 8)).astype(np.float32)
    unseen[rng.random(unseen.shape) < 0.3] = np.nan
    mine = forest.tree_values(unseen)[:, :, 0].mean(axis=1)
    assert mine == pytest.approx(reference.predict(unseen), abs=1e-12)


def test_a_classification_is_that_of_scikit_learn(matrix):
    occurred = np.column_stack([matrix[:, 0] > 1.0, np.nan_to_num(matrix[:, 1]) > 0.0])
    mine = train_classifier(NAMES, matrix, occurred, seed=3, settings=SETTINGS).tree_values(matrix).mean(axis=1)
    outputs = np.column_stack([occurred, np.zeros(len(matrix))])
    reference = RandomForestClassifier(**sklearn_arguments()).fit(matrix, outputs).predict_proba(matrix)
    assert mine[:, 0] == pytest.approx(reference[0][:, 1], abs=1e-12)
    assert mine[:, 1] == pytest.approx(reference[1][:, 1], abs=1e-12)


def test_a_class_that_is_always_or_never_there_has_probability_one_or_zero(matrix):
    occurred = np.column_stack([np.ones(400, dtype=bool), np.zeros(400, dtype=bool)])
    forest = train_classifier(NAMES, matrix, occurred, seed=1, settings=SETTINGS)
    assert np.unique(forest.tree_values(matrix), axis=None).tolist() == [0.0, 1.0]
    assert (forest.tree_values(matrix)[..., 0] == 1.0).all()


def test_columns_that_never_vary_are_left_out():
    nan = np.nan
    matrix = np.array([[1, nan, 1, nan], [1, nan, 2, 5]], dtype=np.float32)
    assert varying_columns(matrix).tolist() == [2, 3]
    assert varying_columns(matrix[:, :2]).tolist() == [0]


def test_many_rows_are_walked_like_one(forest, matrix):
    many = np.tile(matrix, (30, 1))
    one_by_one = np.concatenate([forest.leaves(row[np.newaxis]) for row in matrix])
    assert (forest.leaves(many) == np.tile(one_by_one, (30, 1))).all()
    assert forest.leaves(matrix[:0]).shape == (0, 20)


def test_a_row_takes_names_in_any_order_and_nan_for_what_is_absent(forest):
    named = {name: float(number) for number, name in enumerate(forest.names)}
    assert (forest.row(named) == forest.row(dict(reversed(named.items())))).all()
    strange = forest.row({forest.names[0]: float("inf"), forest.names[1]: 1e300, "moon.phase": 1.0})
    assert np.isnan(strange).all()


def test_arrays_give_the_forest_back(forest, matrix):
    again = Forest.of_arrays(forest.names, forest.arrays())
    assert (again.tree_values(matrix) == forest.tree_values(matrix)).all()


def broken(arrays, name, index, value):
    changed = arrays[name].copy()
    changed[index] = value
    return {**arrays, name: changed}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("left", 0, "back"),
        ("right", -1, "back"),
        ("left", 10**8, "outside"),
        ("roots", -1, "root"),
        ("roots", 10**8, "root"),
        ("feature", 8, "feature"),
        ("feature", -1, "feature"),
        ("value", np.nan, "not one"),
        ("samples", 0, "not one"),
    ],
)
def test_arrays_on_which_a_walk_would_go_wrong_are_refused(forest, name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        Forest.of_arrays(forest.names, broken(forest.arrays(), name, 0, value))


@pytest.mark.parametrize("name", ["roots", "feature", "threshold", "value", "missing_goes_left"])
def test_arrays_of_a_wrong_type_or_shape_are_refused(forest, name):
    arrays = forest.arrays()
    for wrong in (arrays[name].astype(np.complex128), arrays[name][..., np.newaxis]):
        with pytest.raises(ValueError, match="wrong type or shape"):
            Forest.of_arrays(forest.names, {**arrays, name: wrong})
    with pytest.raises(KeyError):
        Forest.of_arrays(forest.names, {key: value for key, value in arrays.items() if key != name})


def test_an_interval_needs_figures_that_make_one(forest):
    for factor, floor, level in [(np.nan, 0.1, 0.9), (1.0, -0.1, 0.9), (1.0, 0.1, 1.0)]:
        with pytest.raises(ValueError, match="out of range"):
            IntervalForest(forest, factor, floor, level)


def test_an_interval_stays_a_number(forest):
    wide = IntervalForest(forest, factor=1e300, floor=1.0, level=0.9)
    assert np.exp(wide.half_width(np.array([0.0, 5.0]))).max() < 1e9


def test_calibration_curves_rise_from_raw_to_observed():
    rng = np.random.default_rng(4)
    truth = rng.random(5_000)
    occurred = rng.random(5_000) < truth
    raw = truth**2  # too low everywhere
    for corners, observed in (isotonic_curve(raw, occurred), sigmoid_curve(raw, occurred)):
        assert (np.diff(observed) >= 0.0).all()
        assert np.interp([0.09, 0.25, 0.64], corners, observed) == pytest.approx([0.3, 0.5, 0.8], abs=0.1)
