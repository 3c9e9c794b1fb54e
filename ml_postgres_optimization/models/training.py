"""Train forests and calibrate them: the only place that asks scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.models.forest import Floats, Forest, IntervalForest
from ml_postgres_optimization.models.score import LEVEL, conformal_factor

Matrix = NDArray[np.float32]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """How a forest is grown.

    Parameters
    ----------
    trees : int
        64 did as well as 100 on a real server's windows and on seven made-up histories (skill within 0.015).
    leaf_rows : int
        The fewest training rows in a leaf.
    rows_per_tree : int
        The most rows that one tree sees, drawn with replacement; 64 trees of 2,000 rows see 92 % of 50,000.
    feature_share : float
        Of the features, how many are drawn for a split: a third is Breiman's advice for regression.
    processors : int
        Threads that grow trees.
    """

    trees: int = 64
    leaf_rows: int = 5
    rows_per_tree: int = 2_000
    feature_share: float = 1 / 3
    processors: int = 2


DEFAULT_SETTINGS = ForestSettings()


def varying_columns(matrix: Matrix) -> NDArray[np.intp]:
    """Return the columns that can tell rows apart; the first one where none can, since a forest needs one."""
    seen = ~np.isnan(matrix)
    lowest = np.min(matrix, axis=0, where=seen, initial=np.inf)
    highest = np.max(matrix, axis=0, where=seen, initial=-np.inf)
    is_partly_seen = seen.any(axis=0) & ~seen.all(axis=0)
    varying = np.flatnonzero((highest > lowest) | is_partly_seen)
    return varying if len(varying) else np.zeros(1, dtype=np.intp)


def train_regressor(
    names: Sequence[str], matrix: Matrix, target: Floats, *, seed: int, settings: ForestSettings
) -> Forest:
    """Grow a forest that predicts `target`, shape (n_rows,); columns that never vary are left out."""
    return _grown(names, matrix, target, seed=seed, settings=settings)[0]


def _grown(
    names: Sequence[str], matrix: Matrix, target: Floats, *, seed: int, settings: ForestSettings
) -> tuple[Forest, list[Rows]]:
    """Return a forest, and the rows that each of its trees has seen."""
    from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-untyped]  # noqa: PLC0415  (two seconds)

    columns = varying_columns(matrix)
    model = RandomForestRegressor(**_arguments(len(matrix), seed, settings))
    model.fit(matrix[:, columns], target)
    trees = [estimator.tree_ for estimator in model.estimators_]
    forest = Forest.of_trees(_named(names, columns), trees, [tree.value[:, :, 0] for tree in trees])
    return forest, model.estimators_samples_


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What there is to learn: rows of features, what they should lead to, and how to learn it.

    Leaves predict the median of their rows, since one stalled window can be a hundred times slower than the rest.

    Parameters
    ----------
    names : sequence of str
    matrix : ndarray of float32, shape (n_rows, n_features)
    target : ndarray of float64, shape (n_rows,)
    seed : int
    settings : ForestSettings
    recalls : bool
        Whether the interval is calibrated on earlier rows too, by the trees that have not seen them: where rows that
        are alike do not share their error, as the windows of one stay in a configuration do.
    """

    names: Sequence[str]
    matrix: Matrix
    target: Floats
    seed: int
    settings: ForestSettings = DEFAULT_SETTINGS
    recalls: bool = False

    def learn(self, training: Rows, calibration: Rows) -> IntervalForest:
        """Grow a forest on some rows, and calibrate its interval on later ones, of which it knows nothing."""
        matrix, target = self.matrix[training], self.target[training]
        grown, seen = _grown(self.names, matrix, target, seed=self.seed, settings=self.settings)
        used = [list(self.names).index(name) for name in grown.names]
        some = thinned(np.arange(len(training)), _MEDIAN_ROWS)
        forest = with_medians(grown, matrix[some][:, used], target[some])
        unscaled = IntervalForest(forest, factor=1.0, floor=0.0, level=LEVEL)
        floor = self._floor(unscaled, thinned(training, _FLOOR_ROWS), used)
        mean, deviation = unscaled.mean_and_deviation(self.matrix[calibration][:, used])
        later = np.abs(self.target[calibration] - mean) / (deviation + floor)
        earlier, weight = self._recalled(forest, training, seen, used, len(calibration))
        scores = np.concatenate([earlier[:, 0] / (earlier[:, 1] + floor), later])
        factor = conformal_factor(scores, np.concatenate([weight, np.ones(len(later))]))
        return replace(unscaled, factor=factor, floor=floor)

    def _floor(self, unscaled: IntervalForest, training: Rows, used: list[int]) -> float:
        fitted, _ = unscaled.mean_and_deviation(self.matrix[training][:, used])
        return max(float(np.median(np.abs(self.target[training] - fitted))), _LOWEST_FLOOR)

    def _recalled(
        self, forest: Forest, training: Rows, seen: Sequence[Rows], used: list[int], half_life: int
    ) -> tuple[Floats, Floats]:
        """Return error and deviation of the trees that have not seen a row, shape (n_rows, 2), and what it counts.

        A row counts half as much as one that lies `half_life` rows later.
        """
        chosen = thinned(np.arange(len(training)), _RECALLED_ROWS) if self.recalls else np.empty(0, dtype=np.intp)
        unseen = np.column_stack([~np.isin(chosen, rows) for rows in seen])
        chosen, unseen = chosen[unseen.any(axis=1)], unseen[unseen.any(axis=1)]
        values = np.ma.masked_array(forest.tree_values(self.matrix[training[chosen]][:, used])[:, :, 0], ~unseen)
        error = np.abs(self.target[training[chosen]] - values.mean(axis=1).filled(0.0))
        weight = 0.5 ** ((len(training) - chosen) / half_life)
        return np.column_stack([error, values.std(axis=1).filled(0.0)]), weight


_MEDIAN_ROWS, _FLOOR_ROWS = 10_000, 1_000  # enough for the median of a leaf, and of an error
_RECALLED_ROWS = 4_000  # and for the quantile of one
_LOWEST_FLOOR = 1e-3  # a tenth of a per cent of a latency: no measurement is better


def thinned(rows: Rows, most: int) -> Rows:
    """Return at most so many of the rows, evenly spaced."""
    return rows[:: -(-len(rows) // most)] if len(rows) else rows


def with_medians(forest: Forest, matrix: Matrix, target: Floats) -> Forest:
    """Return the forest with, in each leaf, the median of the targets that fall into it instead of their mean.

    A leaf into which none of these rows falls keeps its mean.

    On windows of a real, noisy server this turned a forecast 29 % worse than the naive one (mean absolute error of
    the log) into one 2 % better: docs/decisions/0010-random-forests.md.

    References
    ----------
    After N. Meinshausen, Quantile regression forests, JMLR 7 (2006), who takes the median over all trees at once.
    """
    value = forest.value.copy()
    for leaves in forest.leaves(matrix).T:
        order = np.lexsort((target, leaves))
        sorted_target = target[order]
        leaf, first, rows = np.unique(leaves[order], return_index=True, return_counts=True)
        value[leaf, 0] = (sorted_target[first + (rows - 1) // 2] + sorted_target[first + rows // 2]) / 2.0
    return replace(forest, value=value)


def train_classifier(
    names: Sequence[str], matrix: Matrix, occurred: NDArray[np.bool_], *, seed: int, settings: ForestSettings
) -> Forest:
    """Grow a forest that predicts the probability of each column of `occurred`, shape (n_rows, n_classes)."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415  (as above)

    columns = varying_columns(matrix)
    model = RandomForestClassifier(**_arguments(len(matrix), seed, settings))
    # constant outputs beside fewer than two keep scikit-learn's arrays of one shape
    constants = np.zeros((len(occurred), max(0, 2 - occurred.shape[1])), dtype=np.bool_)
    model.fit(matrix[:, columns], np.column_stack([occurred, constants]).astype(np.int64))
    trees = [estimator.tree_ for estimator in model.estimators_]
    labels = [model.classes_[output].tolist() for output in range(occurred.shape[1])]
    return Forest.of_trees(_named(names, columns), trees, [_probabilities(tree.value, labels) for tree in trees])


def isotonic_curve(raw: Floats, occurred: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the corners of the monotone curve from raw to observed probability."""
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]  # noqa: PLC0415  (as above)

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(raw, occurred.astype(np.float64))
    return np.asarray(model.X_thresholds_, dtype=np.float64), np.asarray(model.y_thresholds_, dtype=np.float64)


def sigmoid_curve(raw: Floats, occurred: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return corners of the logistic curve from raw to observed probability.

    References
    ----------
    J. Platt, Probabilistic outputs for support vector machines (1999).
    """
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # noqa: PLC0415  (as above)

    corners = np.linspace(0.0, 1.0, 201)
    model = LogisticRegression(C=10.0).fit(_log_odds(raw)[:, np.newaxis], occurred)
    return corners, np.asarray(model.predict_proba(_log_odds(corners)[:, np.newaxis])[:, 1], dtype=np.float64)


def _arguments(rows: int, seed: int, settings: ForestSettings) -> dict[str, Any]:
    return {
        "n_estimators": settings.trees,
        "min_samples_leaf": settings.leaf_rows,
        "max_features": settings.feature_share,
        "max_samples": settings.rows_per_tree if rows > settings.rows_per_tree else None,
        "n_jobs": settings.processors,
        "random_state": seed,
    }


def _named(names: Sequence[str], columns: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(names[column] for column in columns)


def _probabilities(value: Floats, labels: Sequence[list[int]]) -> Floats:
    """Return the probability of label 1 at each node, shape (n_nodes, n_classes)."""
    probabilities = np.zeros((len(value), len(labels)))
    for output, known in enumerate(labels):
        if 1 in known:
            probabilities[:, output] = value[:, output, known.index(1)]
    return probabilities


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-3, 1.0 - 1e-3)
    return np.log(inside / (1.0 - inside))
