"""Forecast the mean latency of the next window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from ml_postgres_optimization.models.features import Table, features
from ml_postgres_optimization.models.forest import Forest, IntervalForest
from ml_postgres_optimization.models.observation import Observation, Prediction
from ml_postgres_optimization.models.score import ForecastScore, require_slices, skill, time_slices
from ml_postgres_optimization.models.training import ForestSettings, Lesson, Rows

MINIMUM_WINDOWS = 60
DEFAULT_SETTINGS = ForestSettings(leaf_rows=10)


@dataclass(frozen=True, slots=True, eq=False)
class LatencyForest:
    """Forecast the mean response of the next window under the configuration in force, with an interval.

    Learns by how much the log of the latency will change, rather than what it will be: a forest cannot go beyond
    what it has seen, and so a level that was never seen still gets a forecast around it.

    Parameters
    ----------
    changes : IntervalForest
        Predicts the change of the natural log.
    usual : tuple of three floats
        5 %, 50 % and 95 % quantile of the log of the latency: the forecast after a window without any operation.
    score : ForecastScore
        Of the same recipe, one slice of time earlier: grown on the first 60 %, calibrated on the next 20 %, scored on
        the last 20 %. The forest itself is then grown on the first 80 % and calibrated on the last 20 %.
    data_digest : str
        SHA-256 of the table that it was fitted on.

    References
    ----------
    L. Breiman, Random Forests, Machine Learning 45 (2001).
    J. Lei et al., Distribution-free predictive inference for regression, JASA 113 (2018): the interval.
    """

    kind: ClassVar[str] = "latency"

    changes: IntervalForest
    usual: tuple[float, float, float]
    score: ForecastScore
    data_digest: str

    @classmethod
    def fit(
        cls, history: Iterable[Observation] | Table, seed: int, settings: ForestSettings = DEFAULT_SETTINGS
    ) -> LatencyForest:
        """Learn from all windows whose successor under the same configuration is known.

        Raises
        ------
        NotEnoughData
            If there are fewer than `MINIMUM_WINDOWS` of them.
        """
        table = Table.of(history)
        known = table.rows(np.isfinite(table.log_mean) & np.isfinite(table.next_log_mean))
        slices = time_slices(known.started_at, known.ended_at)
        require_slices(slices, len(known), MINIMUM_WINDOWS, "latency forest")
        change = known.next_log_mean - known.log_mean
        lesson = Lesson(known.names, known.matrix, change, seed, settings, recalls=True)
        rehearsal = lesson.learn(slices.training, slices.calibration)
        changes = lesson.learn(np.concatenate([slices.training, slices.calibration]), slices.test)
        low, middle, high = np.quantile(known.log_mean, [0.05, 0.5, 0.95]).tolist()
        score = _score(rehearsal, known, slices.test, seed)
        return cls(changes, (low, middle, high), score, table.digest)

    def predict(self, observation: Observation) -> Prediction:
        """Return the mean response of the next window in seconds, with its interval."""
        named = features(observation)
        mean, deviation = self.changes.mean_and_deviation(self.changes.forest.row(named))
        now = named["latency.log_mean"]
        if math.isnan(now):
            low, middle, high = self.usual
            return Prediction(math.exp(middle), math.exp(low), math.exp(high), self.changes.level)
        center, half = now + float(mean[0]), float(self.changes.half_width(deviation)[0])
        return Prediction(math.exp(center), math.exp(center - half), math.exp(center + half), self.changes.level)

    @property
    def forest(self) -> Forest:
        """The forest in it."""
        return self.changes.forest

    def facts(self) -> dict[str, Any]:
        """Return all but the forest, ready for JSON."""
        return {
            "factor": self.changes.factor,
            "floor": self.changes.floor,
            "level": self.changes.level,
            "usual": list(self.usual),
            "score": asdict(self.score),
            "data_digest": self.data_digest,
        }

    @classmethod
    def restore(cls, facts: Mapping[str, Any], forest: Forest) -> LatencyForest:
        """Rebuild what `facts` and `forest` gave."""
        changes = IntervalForest(forest, float(facts["factor"]), float(facts["floor"]), float(facts["level"]))
        low, middle, high = map(float, facts["usual"])
        return cls(changes, (low, middle, high), ForecastScore.restore(facts["score"]), str(facts["data_digest"]))


def _score(rehearsal: IntervalForest, known: Table, test: Rows, seed: int) -> ForecastScore:
    """Score against the naive forecast: the next window will be like this one."""
    later = known.rows(test)
    mean, deviation = rehearsal.mean_and_deviation(later.columns(rehearsal.forest.names))
    change = later.next_log_mean - later.log_mean
    return ForecastScore(
        windows=len(later),
        skill=skill(np.abs(change - mean), np.abs(change), seed=seed),
        coverage_ratio=float(np.mean(np.abs(change - mean) <= rehearsal.half_width(deviation))),
        level=rehearsal.level,
    )
