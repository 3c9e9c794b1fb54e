"""Forecast which errors will occur in the next window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.models.features import ERROR_CLASSES, Table, features
from ml_postgres_optimization.models.forest import Floats, Forest
from ml_postgres_optimization.models.observation import Observation, Prediction
from ml_postgres_optimization.models.score import LEVEL, ErrorScore, require_slices, skill, time_slices
from ml_postgres_optimization.models.training import (
    ForestSettings,
    Rows,
    isotonic_curve,
    sigmoid_curve,
    train_classifier,
)
from ml_postgres_optimization.retry.classification import ErrorClass

MINIMUM_WINDOWS = 60
MINIMUM_OCCURRENCES = 10
# Leaves of ten rows are the default of probability forests in the package ranger, after J. Malley et al., Probability
# machines, Methods of Information in Medicine 51 (2012).
DEFAULT_SETTINGS = ForestSettings(leaf_rows=10)
_ISOTONIC_WINDOWS, _ISOTONIC_OCCURRENCES = 1_000, 50
_SIGMOID_OCCURRENCES = 10
_Z = 1.6449  # normal quantile of a two-sided 90 % interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """A curve from the forest's raw probability to the one that was observed.

    Parameters
    ----------
    method : str
        ``isotonic``, ``sigmoid``, or ``raw`` where later occurrences were too few to tell.
    raw, observed : tuple of float
        Corners of the curve; straight in between.
    """

    method: str
    raw: tuple[float, ...] = (0.0, 1.0)
    observed: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        corners, observed = np.array(self.raw), np.array(self.observed)
        if not (len(corners) == len(observed) > 0 and np.all(np.diff(corners) > 0)):
            raise ValueError("a calibration curve's corners are not in order")
        if not np.all((observed >= 0.0) & (observed <= 1.0)):
            raise ValueError("a calibration curve leaves the range of a probability")

    def apply(self, raw: Floats) -> Floats:
        """Return calibrated probabilities."""
        return np.interp(raw, self.raw, self.observed)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorForest:
    """Forecast, for each class of error, the probability that one occurs in the next window.

    A class that occurred in fewer than `MINIMUM_OCCURRENCES` windows is not learned, and is absent from every
    prediction and score: its probability is unknown, which is not zero.

    Parameters
    ----------
    forest : Forest
        One output for each learned class.
    calibrations : mapping of ErrorClass to Calibration
        Its keys are the learned classes, in the order of the outputs.
    score : mapping of ErrorClass to ErrorScore
        Of the same recipe one slice of time earlier, as in `LatencyForest`. The naive forecast is how often an error
        followed a window with, or without, one of the same class.
    data_digest : str

    References
    ----------
    A. Niculescu-Mizil and R. Caruana, Predicting good probabilities with supervised learning, ICML 2005: isotonic
    calibration from about 1,000 cases on, sigmoid below.
    """

    kind: ClassVar[str] = "errors"

    forest: Forest
    calibrations: Mapping[ErrorClass, Calibration]
    score: Mapping[ErrorClass, ErrorScore]
    data_digest: str

    @classmethod
    def fit(
        cls, history: Iterable[Observation] | Table, seed: int, settings: ForestSettings = DEFAULT_SETTINGS
    ) -> ErrorForest:
        """Learn from all windows whose successor under the same configuration is known.

        Raises
        ------
        NotEnoughData
            If there are fewer than `MINIMUM_WINDOWS` of them.
        """
        table = Table.of(history)
        learned, known = _learnable(table)
        slices = time_slices(known.started_at, known.ended_at)
        require_slices(slices, len(known), MINIMUM_WINDOWS, "error forest")
        lesson = _ErrorLesson(known, learned, seed, settings)
        rehearsal = lesson.learn(slices.training, slices.calibration)
        score = lesson.score(*rehearsal, slices.training, slices.test)
        forest, calibrations = lesson.learn(np.concatenate([slices.training, slices.calibration]), slices.test)
        return cls(forest, calibrations, score, table.digest)

    @property
    def learned(self) -> frozenset[ErrorClass]:
        """The classes whose probability it can tell."""
        return frozenset(self.calibrations)

    def predict(self, observation: Observation) -> dict[ErrorClass, Prediction]:
        """Return the probability that an error of each learned class occurs in the next window.

        The interval is Wilson's for as many windows as the probability rests on. Were the errors of all trees alike,
        the deviation of their mean would be the mean of their deviations, each ``sqrt(p * (1 - p) / n)`` for the
        ``n`` windows of the leaf.
        """
        leaves = self.forest.leaves(self.forest.row(features(observation)))[0]
        raw = self.forest.value[leaves].mean(axis=0)
        windows = float(np.mean(self.forest.samples[leaves] ** -0.5) ** -2)
        return {
            name: _with_interval(float(calibration.apply(raw[[output]])[0]), windows)
            for output, (name, calibration) in enumerate(self.calibrations.items())
        }

    def facts(self) -> dict[str, Any]:
        """Return all but the forest, ready for JSON."""
        return {
            "calibrations": {name.value: asdict(calibration) for name, calibration in self.calibrations.items()},
            "score": {name.value: asdict(score) for name, score in self.score.items()},
            "data_digest": self.data_digest,
        }

    @classmethod
    def restore(cls, facts: Mapping[str, Any], forest: Forest) -> ErrorForest:
        """Rebuild what `facts` and `forest` gave."""
        calibrations = {
            ErrorClass(name): Calibration(
                str(stored["method"]), tuple(map(float, stored["raw"])), tuple(map(float, stored["observed"]))
            )
            for name, stored in facts["calibrations"].items()
        }
        if len(calibrations) != forest.value.shape[1]:
            raise ValueError("a forest's outputs and its classes do not belong together")
        score = {ErrorClass(name): ErrorScore.restore(stored) for name, stored in facts["score"].items()}
        return cls(forest, calibrations, score, str(facts["data_digest"]))


@dataclass(frozen=True, slots=True, eq=False)
class _ErrorLesson:
    """Rows in which every learned class is known, and how to learn from them."""

    table: Table
    learned: tuple[ErrorClass, ...]
    seed: int
    settings: ForestSettings

    def occurred(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether an error of each learned class occurred in the following window."""
        occurred: NDArray[np.bool_] = self.table.next_errors[rows][:, _columns(self.learned)] > 0
        return occurred

    def learn(self, training: Rows, calibration: Rows) -> tuple[Forest, dict[ErrorClass, Calibration]]:
        """Grow a forest on some rows, and calibrate it on later ones."""
        forest = train_classifier(
            self.table.names,
            self.table.matrix[training],
            self.occurred(training),
            seed=self.seed,
            settings=self.settings,
        )
        raw, occurred = self.raw(forest, calibration), self.occurred(calibration)
        curves = {name: _calibrate(raw[:, at], occurred[:, at]) for at, name in enumerate(self.learned)}
        return forest, curves

    def raw(self, forest: Forest, rows: Rows) -> Floats:
        """Return the forest's raw probabilities, shape (n_rows, n_classes)."""
        means: Floats = forest.tree_values(self.table.rows(rows).columns(forest.names)).mean(axis=1)
        return means

    def score(
        self, forest: Forest, calibrations: Mapping[ErrorClass, Calibration], training: Rows, test: Rows
    ) -> dict[ErrorClass, ErrorScore]:
        """Score each class against its naive forecast."""
        raw, occurred = self.raw(forest, test), self.occurred(test)
        naive = self._naive(training, test)
        return {
            name: ErrorScore(
                windows=len(test),
                occurrences=int(occurred[:, at].sum()),
                skill=skill(
                    (calibrations[name].apply(raw[:, at]) - occurred[:, at]) ** 2,
                    (naive[:, at] - occurred[:, at]) ** 2,
                    seed=self.seed,
                ),
            )
            for at, name in enumerate(self.learned)
        }

    def _naive(self, training: Rows, test: Rows) -> Floats:
        """Return how often an error followed a window in the same state: with one of its class, or without."""
        errors = self.table.errors[:, _columns(self.learned)]
        states = {"all": np.ones_like(errors, dtype=np.bool_), "with": errors == 1.0, "without": errors == 0.0}
        followed = self.occurred(training)
        rates = {
            state: ((followed & holds[training]).sum(axis=0) + 1.0) / (holds[training].sum(axis=0) + 2.0)
            for state, holds in states.items()
        }
        known = np.where(states["with"][test], rates["with"], rates["without"])
        naive: Floats = np.where(np.isnan(errors[test]), rates["all"], known)
        return naive


def _learnable(table: Table) -> tuple[tuple[ErrorClass, ...], Table]:
    """Return the classes that occurred often enough, and the rows in which each of them is known."""
    frequent = _frequent(table, ERROR_CLASSES)
    following = table.next_errors[:, _columns(frequent)]
    unknown = np.isnan(following).any(axis=1) if frequent else np.isnan(table.next_errors).all(axis=1)
    known = table.rows(np.flatnonzero(~unknown))
    return _frequent(known, frequent), known


def _frequent(table: Table, classes: tuple[ErrorClass, ...]) -> tuple[ErrorClass, ...]:
    occurrences = (table.next_errors > 0).sum(axis=0)
    return tuple(name for name in classes if occurrences[ERROR_CLASSES.index(name)] >= MINIMUM_OCCURRENCES)


def _columns(classes: tuple[ErrorClass, ...]) -> list[int]:
    return [ERROR_CLASSES.index(name) for name in classes]


def _calibrate(raw: Floats, occurred: NDArray[np.bool_]) -> Calibration:
    """Fit the richest curve that the calibration slice can bear; never promise what so few windows cannot show."""
    windows, rarer = len(raw), int(min(occurred.sum(), (~occurred).sum()))
    lowest = 1.0 / (windows + 2.0)
    if windows >= _ISOTONIC_WINDOWS and rarer >= _ISOTONIC_OCCURRENCES:
        method, (corners, observed) = "isotonic", isotonic_curve(raw, occurred)
    elif rarer >= _SIGMOID_OCCURRENCES:
        method, (corners, observed) = "sigmoid", sigmoid_curve(raw, occurred)
    else:
        corners = np.array([0.0, lowest, 1.0 - lowest, 1.0])
        method, observed = "raw", corners
    inside = np.clip(observed, lowest, 1.0 - lowest)
    return Calibration(method, tuple(corners.tolist()), tuple(inside.tolist()))


def _with_interval(probability: float, windows: float) -> Prediction:
    """Return a probability with Wilson's interval.

    References
    ----------
    E. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    shrink = 1.0 + _Z**2 / windows
    center = (probability + _Z**2 / (2.0 * windows)) / shrink
    half = _Z / shrink * math.sqrt(probability * (1.0 - probability) / windows + _Z**2 / (4.0 * windows**2))
    return Prediction(probability, max(0.0, center - half), min(1.0, center + half), LEVEL)
