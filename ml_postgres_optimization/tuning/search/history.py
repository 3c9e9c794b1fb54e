"""What is known before the next trial: this study's own trials, and what other studies have learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ml_postgres_optimization.tuning.search.encoding import Cube, Floats
from ml_postgres_optimization.tuning.search.surrogate import ForestSurrogate

# User attributes of a trial, public for whoever tells trials to a study of his own: how far it went beyond what is
# allowed, from 0 (not at all) to 1; the features of the load that it ran under; by how much it was expected to lower
# the loss.
VIOLATION = "violation"
CONTEXT = "context"
EXPECTED_GAIN = "expected_gain"
Context = Mapping[str, float]

# How many own trials it takes to believe their order as much as the likeness of the loads.
_BELIEVED_TRIALS = 5
# All lessons together count as much as so many trials of our own, so that these soon outnumber them.
_LESSONS_COUNT = 20.0
# Beyond this a trial is no place to search around, and no loss to beat.
_LARGEST_VIOLATION = 0.5
# The trees' word is taken by what came of the latest so many proposals.
_JUDGED_PROMISES = 20
_CREDITED_PROMISES = 1.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """The finished trials of another study, as parameters of this one.

    Parameters
    ----------
    parameters : sequence of mapping of str to object
    losses : sequence of float
        Against that study's own zero; lower is better.
    context : mapping of str to float
        Features of its load and machine.
    likeness : float
        Of that context to this study's, from 0 to 1.
    violations : sequence of float
    """

    parameters: Sequence[Mapping[str, Any]]
    losses: Sequence[float]
    context: Context = field(default_factory=dict)
    likeness: float = 1.0
    violations: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows to learn from: points with their context beside them, and what came of each.

    Parameters
    ----------
    inputs : ndarray of shape (n_rows, n_features)
    losses, violations : ndarray of shape (n_rows,)
        NaN where nothing is known of them.
    weights : ndarray of shape (n_rows,)
        Beside one of this study's own trials, which counts 1.
    """

    inputs: Floats
    losses: Floats
    violations: Floats
    weights: Floats

    @classmethod
    def of(
        cls,
        inputs: Floats,
        *,
        losses: Floats | float = np.nan,
        violations: Floats | float = np.nan,
        weight: float = 1.0,
    ) -> Evidence:
        """Return rows with what is known of each, or of all of them."""
        shape = (len(inputs),)
        return cls(
            inputs,
            np.broadcast_to(losses, shape),
            np.broadcast_to(violations, shape),
            np.broadcast_to(weight, shape),
        )

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """Put the rows of all parts under each other."""
        return cls(
            np.vstack([part.inputs for part in parts]),
            np.concatenate([part.losses for part in parts]),
            np.concatenate([part.violations for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class History:
    """This study's own trials, oldest first.

    Parameters
    ----------
    points : ndarray of shape (n_trials, n_parameters)
        Of those that finished.
    losses, violations : ndarray of shape (n_trials,)
        Lower losses are better.
    contexts : tuple of mapping of str to float
        Of each that finished.
    promises : ndarray of shape (n_trials,)
        By how much each was expected to lower the loss; NaN where nothing was expected.
    refused : ndarray of shape (n_refused, n_parameters)
        Those that a guard refused.
    refusals : ndarray of shape (n_refused,)
        Their violations.
    running : ndarray of shape (n_running, n_parameters)
        Those that somebody is trying at this moment.
    """

    points: Floats
    losses: Floats
    violations: Floats
    contexts: tuple[Context, ...]
    promises: Floats
    refused: Floats
    refusals: Floats
    running: Floats

    @classmethod
    def of(cls, study: Study, cube: Cube) -> History:
        """Read a study; trials without all of the cube's parameters are passed over."""
        trials = [trial for trial in study.get_trials(deepcopy=False) if cube.axes.keys() <= trial.params.keys()]
        finished = [trial for trial in trials if trial.state is TrialState.COMPLETE and _is_finite(trial.value)]
        refused = [trial for trial in trials if trial.state is TrialState.PRUNED]
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        return cls(
            _points(finished, cube),
            np.array([sign * (trial.value or 0.0) for trial in finished]),
            _violations(finished),
            tuple(trial.user_attrs.get(CONTEXT, {}) for trial in finished),
            np.array([float(trial.user_attrs.get(EXPECTED_GAIN, np.nan)) for trial in finished]),
            _points(refused, cube),
            _violations(refused),
            _points(running, cube),
        )

    @property
    def met(self) -> Floats:
        """All points that were tried, are tried, or were refused."""
        return np.vstack([self.points, self.refused, self.running])

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Which of those that finished violate little; all, where there is none."""
        allowed = self.violations < _LARGEST_VIOLATION
        return allowed if allowed.any() else ~allowed

    @property
    def best(self) -> int:
        """The position of the lowest loss among those that violate little."""
        return int(np.argmin(np.where(self.allowed, self.losses, np.inf)))

    def kept_promise(self, promise: float) -> float:
        """Return which share of what was expected of the latest trials has come true, from 0 to 1.

        It begins at 1, as if a trial of this `promise` had kept it.
        """
        before = np.minimum.accumulate(np.concatenate([[np.inf], self.losses]))[:-1]
        kept = np.maximum(before - self.losses, 0.0)
        judged = np.flatnonzero(np.isfinite(self.promises) & np.isfinite(kept))[-_JUDGED_PROMISES:]
        credit = _CREDITED_PROMISES * promise
        expected = credit + self.promises[judged].sum()
        return min(1.0, float((credit + kept[judged].sum()) / expected)) if expected > 0 else 1.0

    def evidence(self, cube: Cube, lessons: Sequence[Lesson], context: Context) -> Evidence:
        """Put own trials, what was refused, what runs, and what others have learned into one table.

        The columns are the cube's, and behind them one for each feature of the `context`.
        """
        own = np.hstack([self.points, _rows(self.contexts, context)])
        parts = [Evidence.of(own, losses=self.losses, violations=self.violations)]
        parts.append(Evidence.of(beside(self.refused, context), violations=self.refusals))
        if len(self.losses):
            # whoever tries at the same time should try something else: what runs is taken to be mediocre
            parts.append(Evidence.of(beside(self.running, context), losses=float(np.median(self.losses))))
        parts += [self._of_lesson(lesson, cube, context, _LESSONS_COUNT / len(lessons)) for lesson in lessons]
        return Evidence.joined(parts)

    def _of_lesson(self, lesson: Lesson, cube: Cube, context: Context, most: float) -> Evidence:
        points = cube.points(lesson.parameters)
        losses = np.array(lesson.losses)
        offset, trust = self._compared(points, losses, lesson.likeness)
        return Evidence.of(
            np.hstack([points, _rows([lesson.context] * len(points), context)]),
            losses=losses + offset,
            violations=np.array(lesson.violations) if lesson.violations else np.nan,
            weight=trust * min(1.0, most / len(points)),
        )

    def _compared(self, points: Floats, losses: Floats, likeness: float) -> tuple[float, float]:
        """Return by how much another study's zero lies off ours, and how far its order of configurations is ours.

        At first there is only the likeness of the loads to go by, and the initial configuration, whose loss tells
        where the other's zero is. Every own trial then says whether the other study would have known its rank.
        """
        if not len(self.losses):
            return 0.0, likeness
        from scipy.stats import kendalltau  # type: ignore[import-untyped]  # noqa: PLC0415  (a second)

        known, _ = ForestSurrogate(points, losses, seed=0).predict(self.points)
        count = len(self.losses) - 1
        order = kendalltau(known, self.losses).statistic if count else 0.0
        agreement = max(0.0, order) if math.isfinite(order) else 0.0
        trust = (_BELIEVED_TRIALS * likeness + count * agreement) / (_BELIEVED_TRIALS + count)
        return float(np.median(self.losses - known)), trust


def _points(trials: Sequence[FrozenTrial], cube: Cube) -> Floats:
    return cube.points([trial.params for trial in trials])


def _violations(trials: Sequence[FrozenTrial]) -> Floats:
    return np.array([float(trial.user_attrs.get(VIOLATION, 0.0)) for trial in trials])


def beside(points: Floats, context: Context) -> Floats:
    """Return points with the same context beside each."""
    return np.hstack([points, np.tile(list(context.values()), (len(points), 1))])


def _rows(contexts: Sequence[Context], present: Context) -> Floats:
    """Return a row of the present features for each context; what one does not say is taken to be as it is now."""
    rows = [[float(context.get(name, value)) for name, value in present.items()] for context in contexts]
    return np.array(rows, dtype=np.float64).reshape(len(contexts), len(present))


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
