"""Predict what a configuration would do under a given load: the response surface that a tuner searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.errors import NotEnoughData
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features import LOAD_CONTEXT, LoadContext, Table, encode_knobs
from ml_postgres_optimization.models.features.registry import KNOB_PREFIX
from ml_postgres_optimization.models.forest import Floats, Forest, IntervalForest
from ml_postgres_optimization.models.observation import Observation, Prediction
from ml_postgres_optimization.models.score import ForecastScore, require_slices, skill, standard_error, time_slices
from ml_postgres_optimization.models.training import DEFAULT_SETTINGS, ForestSettings, Lesson, Rows, thinned

MINIMUM_WINDOWS = 60
MINIMUM_CONFIGURATIONS = 2
_SHUFFLES, _IMPORTANCE_SHUFFLES = 5, 10
_JUDGED_ROWS, _IMPORTANCE_ROWS = 2_000, 400  # enough to judge by, and as many as can be walked in a second or two


@dataclass(frozen=True, slots=True, eq=False)
class KnobForest:
    """Predict the mean response from knobs and load alone.

    It sees no state of the server, since that is what knobs change: a surface over causes, not over symptoms.

    Parameters
    ----------
    surface : IntervalForest
        Predicts the natural log of the mean response.
    score : ForecastScore
        Of the same recipe one slice of time earlier, as in `LatencyForest`. The naive forecast knows the load and not
        the knobs: the average of the surface over configurations that were seen. Losses are compared configuration by
        configuration.
    knob_importance : mapping of str to (float, float)
        See `importance`.
    data_digest : str

    References
    ----------
    F. Hutter, H. Hoos, K. Leyton-Brown, Sequential model-based optimization for general algorithm configuration,
    LION 5 (2011): random forests as response surfaces, with the deviation of the trees as uncertainty.
    """

    kind: ClassVar[str] = "knobs"

    surface: IntervalForest
    score: ForecastScore
    knob_importance: Mapping[str, tuple[float, float]]
    data_digest: str

    @classmethod
    def fit(
        cls, history: Iterable[Observation] | Table, seed: int, settings: ForestSettings = DEFAULT_SETTINGS
    ) -> KnobForest:
        """Learn from all windows with operations or statements.

        Raises
        ------
        NotEnoughData
            If there are fewer than `MINIMUM_WINDOWS` of them, or fewer than `MINIMUM_CONFIGURATIONS` configurations.
        """
        table = Table.of(history)
        known = table.rows(np.isfinite(table.log_mean))
        slices = time_slices(known.started_at, known.ended_at)
        require_slices(slices, len(known), MINIMUM_WINDOWS, "knob forest")
        _require_configurations(known)
        names = [*LOAD_CONTEXT, *_knob_names(known.names)]
        lesson = Lesson(names, known.columns(names), known.log_mean, seed, settings)
        rehearsal = lesson.learn(slices.training, slices.calibration)
        surface = lesson.learn(np.concatenate([slices.training, slices.calibration]), slices.test)
        test = thinned(slices.test, _JUDGED_ROWS)
        judge = _Judge(rehearsal, known, slices.training, test, np.random.default_rng(seed))
        return cls(surface, judge.score(seed), judge.importance(seed), table.digest)

    def predict(self, configuration: Configuration, context: LoadContext) -> Prediction:
        """Return the mean response of a window in seconds, with its interval."""
        mean, deviation = self.predict_many([configuration], context)
        center, half = float(mean[0]), float(self.surface.half_width(deviation)[0])
        return Prediction(math.exp(center), math.exp(center - half), math.exp(center + half), self.surface.level)

    def predict_many(self, configurations: Sequence[Configuration], context: LoadContext) -> tuple[Floats, Floats]:
        """Return mean and standard deviation over the trees of the natural log of the mean response.

        Parameters
        ----------
        configurations : sequence of Configuration, length n_configurations
        context : LoadContext

        Returns
        -------
        mean, deviation : ndarray of float64, shape (n_configurations,)

        Notes
        -----
        Less than 0.1 ms for each of many configurations: benchmarks/prediction.py.
        """
        load = context.features()
        rows = [self.surface.forest.row(load | encode_knobs(configuration)) for configuration in configurations]
        matrix = np.concatenate(rows) if rows else np.empty((0, len(self.surface.forest.names)), dtype=np.float32)
        return self.surface.mean_and_deviation(matrix)

    def importance(self) -> dict[str, tuple[float, float]]:
        """Return, for each knob that can be judged, how much worse the prediction of later time gets without it.

        Returns
        -------
        dict of str to (mean, standard error)
            Rise of the mean absolute error of the log when the knob's values are shuffled, over 10 shuffles. A knob
            that did not vary in the later windows is absent: nothing can be said of it.

        Notes
        -----
        The standard error is that of the stays: the windows of one stay in a configuration share one chance to be
        predicted well or badly, so that a few long stays say little, however often their values are shuffled. Knobs
        that were always changed together share what they do.

        References
        ----------
        L. Breiman, Random Forests, Machine Learning 45 (2001), section 10: permutation importance.
        """
        return dict(self.knob_importance)

    @property
    def forest(self) -> Forest:
        """The forest in it."""
        return self.surface.forest

    def facts(self) -> dict[str, Any]:
        """Return all but the forest, ready for JSON."""
        return {
            "factor": self.surface.factor,
            "floor": self.surface.floor,
            "level": self.surface.level,
            "importance": {name: list(value) for name, value in self.knob_importance.items()},
            "score": asdict(self.score),
            "data_digest": self.data_digest,
        }

    @classmethod
    def restore(cls, facts: Mapping[str, Any], forest: Forest) -> KnobForest:
        """Rebuild what `facts` and `forest` gave."""
        surface = IntervalForest(forest, float(facts["factor"]), float(facts["floor"]), float(facts["level"]))
        importance = {name: (float(mean), float(std)) for name, (mean, std) in facts["importance"].items()}
        return cls(surface, ForecastScore.restore(facts["score"]), importance, str(facts["data_digest"]))


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """A surface, and later windows that it has not seen."""

    surface: IntervalForest
    table: Table
    training: Rows
    test: Rows
    rng: np.random.Generator

    def score(self, seed: int) -> ForecastScore:
        """Score against what the surface says when it does not know the knobs."""
        names, later = self.surface.forest.names, self.table.rows(self.test)
        mean, deviation = self.surface.mean_and_deviation(later.columns(names))
        residual = later.log_mean - mean
        losses = (np.abs(residual), np.abs(later.log_mean - self._without_knobs(later)))
        return ForecastScore(
            windows=len(later),
            skill=skill(*_by_configuration(losses, later), seed=seed),
            coverage_ratio=float(np.mean(np.abs(residual) <= self.surface.half_width(deviation))),
            level=self.surface.level,
        )

    def importance(self, seed: int) -> dict[str, tuple[float, float]]:
        """Shuffle the values of one knob after the other among the later windows, stay by stay."""
        later = self.table.rows(thinned(self.test, _IMPORTANCE_ROWS))
        names, stays = self.surface.forest.names, _stays(later)
        matrix = later.columns(names)
        loss = np.abs(later.log_mean - self._mean(matrix))
        importance = {}
        for column, name in enumerate(names):
            if name.startswith(KNOB_PREFIX) and _varies(matrix[:, column]):
                rises = _per_stay(self._loss_without(column, matrix, later.log_mean) - loss, stays)
                importance[name.removeprefix(KNOB_PREFIX)] = (float(rises.mean()), standard_error(rises, seed=seed))
        return importance

    def _loss_without(self, column: int, matrix: NDArray[np.float32], truth: Floats) -> Floats:
        """Return each window's loss with the column shuffled, on average."""
        total = np.zeros(len(matrix))
        for _ in range(_IMPORTANCE_SHUFFLES):
            total += np.abs(truth - self._mean(self._shuffled(matrix, column)))
        return total / _IMPORTANCE_SHUFFLES

    def _without_knobs(self, later: Table) -> Floats:
        names = self.surface.forest.names
        matrix = later.columns(names)
        knobs = [at for at, name in enumerate(names) if name.startswith(KNOB_PREFIX)]
        seen = self.table.rows(self.training).columns(names)[:, knobs]
        total = np.zeros(len(matrix))
        for _ in range(_SHUFFLES):
            matrix[:, knobs] = seen[self.rng.integers(0, len(seen), len(matrix))]
            total += self._mean(matrix)
        return total / _SHUFFLES

    def _shuffled(self, matrix: NDArray[np.float32], column: int) -> NDArray[np.float32]:
        shuffled = matrix.copy()
        shuffled[:, column] = self.rng.permutation(shuffled[:, column])
        return shuffled

    def _mean(self, matrix: NDArray[np.float32]) -> Floats:
        mean, _ = self.surface.mean_and_deviation(matrix)
        return mean


def _by_configuration(losses: tuple[Floats, Floats], later: Table) -> tuple[Floats, Floats]:
    """Return the mean losses of each stay in a configuration: its windows share one chance to be predicted well."""
    stays = _stays(later)
    one, other = (_per_stay(loss, stays) for loss in losses)
    return one, other


def _stays(table: Table) -> NDArray[np.int64]:
    """Number the stays in a configuration, in the order of time; one number for each row."""
    knobs = _knob_values(table)
    return np.cumsum(np.concatenate([[0], np.any(knobs[1:] != knobs[:-1], axis=1)]))


def _per_stay(losses: Floats, stays: NDArray[np.int64]) -> Floats:
    means: Floats = np.bincount(stays, losses) / np.bincount(stays)
    return means


def _varies(values: NDArray[np.float32]) -> bool:
    return len(np.unique(values)) > 1


def _knob_values(table: Table) -> NDArray[np.float32]:
    """Return the knobs' columns; what is not known is equal to itself, as NaN is not."""
    return np.nan_to_num(table.columns(_knob_names(table.names)), nan=-np.inf)


def _knob_names(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(KNOB_PREFIX)]


def _require_configurations(known: Table) -> None:
    seen = len(np.unique(_knob_values(known), axis=0))
    if seen < MINIMUM_CONFIGURATIONS:
        raise NotEnoughData(
            f"The knob forest needs {MINIMUM_CONFIGURATIONS} configurations to compare, and has seen {seen}.",
            "Run trials, or make windows with --simulate, which varies the knobs.",
        )
