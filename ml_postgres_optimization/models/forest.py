"""A trained random forest as flat arrays: fast for one row, safe to store, and readable by SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_WIDEST = 20.0  # in logs: half a thousand million times as much says as little as infinity
_CELLS_AT_ONCE = 200_000  # rows times trees that are walked together: what fits into a processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees that were trained by scikit-learn, end to end in flat arrays.

    A node sends a row to `left` when its feature is at most the threshold, to `right` when it is larger; where the
    feature is NaN, `missing_goes_left` decides. A leaf points to itself.

    Parameters
    ----------
    names : tuple of str
        Features in the order of the columns.
    roots : ndarray of int32, shape (n_trees,)
    feature, left, right, samples : ndarray of int32, shape (n_nodes,)
        `samples`: how many training rows fell into the node.
    threshold : ndarray of float64, shape (n_nodes,)
    missing_goes_left : ndarray of bool, shape (n_nodes,)
    value : ndarray of float64, shape (n_nodes, n_outputs)

    Notes
    -----
    Equal to scikit-learn's own prediction to the last bits. One row through 100 trees takes about 0.3 ms against 5 ms
    there, which is what the arrays are for: docs/decisions/0010-random-forests.md.

    References
    ----------
    L. Breiman, Random Forests, Machine Learning 45 (2001).
    """

    names: tuple[str, ...]
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_goes_left: NDArray[np.bool_]
    value: Floats
    samples: NDArray[np.int32]

    @classmethod
    def of_trees(cls, names: Sequence[str], trees: Sequence[Any], values: Sequence[Floats]) -> Forest:
        """Put scikit-learn's trees (``estimator.tree_``) end to end.

        Parameters
        ----------
        values : sequence of ndarray, shape (n_nodes of the tree, n_outputs)
            What each node predicts.
        """
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        is_leaf = _joined(trees, "children_left") < 0
        return cls(
            names=tuple(names),
            roots=starts.astype(np.int32),
            feature=np.where(is_leaf, 0, _joined(trees, "feature")).astype(np.int32),
            threshold=np.where(is_leaf, 0.0, _joined(trees, "threshold")),
            left=_children(trees, starts, "children_left"),
            right=_children(trees, starts, "children_right"),
            missing_goes_left=_joined(trees, "missing_go_to_left").astype(np.bool_),
            value=np.concatenate(values),
            samples=_joined(trees, "n_node_samples").astype(np.int32),
        )

    def leaves(self, matrix: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the leaf that each row reaches in each tree.

        Parameters
        ----------
        matrix : ndarray of float32, shape (n_rows, n_features)

        Returns
        -------
        ndarray of int32, shape (n_rows, n_trees)
        """
        rows_at_once = max(1, _CELLS_AT_ONCE // max(1, len(self.roots)))
        parts = [self._walk(matrix[at : at + rows_at_once]) for at in range(0, len(matrix), rows_at_once)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.roots)), dtype=np.int32)

    def _walk(self, matrix: NDArray[np.float32]) -> NDArray[np.int32]:
        at = np.broadcast_to(self.roots, (len(matrix), len(self.roots)))
        rows = np.arange(len(matrix))[:, np.newaxis]
        while True:
            seen = matrix[rows, self.feature[at]]
            goes_left = np.where(np.isnan(seen), self.missing_goes_left[at], seen <= self.threshold[at])
            below = np.where(goes_left, self.left[at], self.right[at])
            if np.array_equal(below, at):
                return at
            at = below

    def tree_values(self, matrix: NDArray[np.float32]) -> Floats:
        """Return what each tree predicts, shape (n_rows, n_trees, n_outputs)."""
        values: Floats = self.value[self.leaves(matrix)]
        return values

    def row(self, named: Mapping[str, float]) -> NDArray[np.float32]:
        """Return named features as a row; NaN for those that are absent, infinite, or too large for 32 bits."""
        values = np.array([named.get(name, np.nan) for name in self.names], dtype=np.float64)
        with np.errstate(over="ignore"):
            row = values.astype(np.float32)
        row[~np.isfinite(row)] = np.nan
        return row[np.newaxis, :]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything but the names, by name: what is stored."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def of_arrays(cls, names: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> Forest:
        """Rebuild what `arrays` gave, trusting nothing.

        Raises
        ------
        ValueError, KeyError
            If the arrays do not make a forest: of a wrong type or shape, or with a node that points outside or back,
            on which a walk would not end.
        """
        forest = cls(tuple(names), **{name: arrays[name] for name in _ARRAYS})
        forest._check_types()
        forest._check_nodes()
        return forest

    def _check_types(self) -> None:
        nodes = len(self.feature)
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            is_right_shape = array.ndim == 2 if name == "value" else array.ndim == 1
            if not is_right_shape or array.dtype != dtype or (name != "roots" and len(array) != nodes):
                raise ValueError(f"a forest's {name} has the wrong type or shape")

    def _check_nodes(self) -> None:
        own = np.arange(len(self.feature))
        is_leaf = (self.left == own) & (self.right == own)
        forward = (self.left > own) & (self.right > own)
        inside = (self.left < len(own)) & (self.right < len(own))
        if not (np.all(is_leaf | forward) and np.all(inside)):
            raise ValueError("a forest's node points outside, or back")
        if not (len(self.roots) and np.all((self.roots >= 0) & (self.roots < len(own)))):
            raise ValueError("a forest has no root, or one that points outside")
        if not np.all((self.feature >= 0) & (self.feature < max(1, len(self.names)))):
            raise ValueError("a forest's node asks for a feature that is not there")
        if not (np.all(np.isfinite(self.value)) and np.all(self.samples > 0)):
            raise ValueError("a forest's value or sample count is not one")


def _joined(trees: Sequence[Any], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(tree, name) for tree in trees])


def _children(trees: Sequence[Any], starts: NDArray[np.int64], name: str) -> NDArray[np.int32]:
    """Return the children of all nodes, counted from the first tree's root; a leaf is its own."""
    child = _joined(trees, name)
    own = np.arange(len(child))
    first = np.repeat(starts, [tree.node_count for tree in trees])
    return np.where(child < 0, own, child + first).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class IntervalForest:
    """A regression forest whose interval was calibrated on later time than it was grown on.

    Parameters
    ----------
    forest : Forest
        With one output.
    factor : float
        Half of the interval, in spreads.
    floor : float
        What is added to the disagreement of the trees to make a spread, since all may agree and be wrong: how far off
        they typically are on what they were grown on.
    level : float
        How often the interval should hold the truth.
    """

    forest: Forest
    factor: float
    floor: float
    level: float

    def __post_init__(self) -> None:
        if self.forest.value.shape[1] != 1:
            raise ValueError("a regression forest has one output")
        if not (0.0 <= self.factor < np.inf and 0.0 <= self.floor < np.inf and 0.0 < self.level < 1.0):
            raise ValueError("an interval's factor, floor or level is out of range")

    def mean_and_deviation(self, matrix: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return the mean over the trees and their standard deviation, each of shape (n_rows,)."""
        values = self.forest.tree_values(matrix)[:, :, 0]
        return values.mean(axis=1), values.std(axis=1)

    def half_width(self, deviation: Floats) -> Floats:
        """Return half of the interval for rows on which the trees deviate so much."""
        return np.minimum(self.factor * (deviation + self.floor), _WIDEST)


_DTYPES = {
    "roots": np.int32,
    "feature": np.int32,
    "threshold": np.float64,
    "left": np.int32,
    "right": np.int32,
    "missing_goes_left": np.bool_,
    "value": np.float64,
    "samples": np.int32,
}
_ARRAYS = tuple(field.name for field in fields(Forest) if field.name != "names")
