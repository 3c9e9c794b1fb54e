"""An Optuna sampler: random forest, log expected improvement, and a trust region around the best trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc  # type: ignore[import-untyped]

from ml_postgres_optimization.tuning.search.encoding import Axis, Floats, Weights, axes_of
from ml_postgres_optimization.tuning.search.surrogate import ForestSurrogate, log_expected_improvement

Feasible = Callable[[Mapping[str, Any]], bool]

_CANDIDATES = 1000
_SEARCHES = 8
_SEARCH_ROUNDS = 4
_NEIGHBOURS = 24
_NEIGHBOUR_DEVIATION = 0.1
_MOST_CHANGED = 6
_MOST_CHECKED = 200

_AT_THE_START = "the search spreads its first trials over the space"
_AT_RANDOM = "drawn at random, so that the search does not settle too soon"
_EXPECTED = "the search expects most of it"
_STAYS = "nothing else that the search thought of may be tried"


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """How far from the best trial candidates are looked for, as a share of each axis.

    Parameters
    ----------
    radius, smallest, largest : float
        At the start, and its limits; 1 reaches everywhere.
    growth : float
        By which it grows after a success, and shrinks after `patience` failures in a row.

    References
    ----------
    D. Eriksson et al., "Scalable Global Optimization via Local Bayesian Optimization" (TuRBO), NeurIPS 2019;
    OnlineTune (SIGMOD 2022) shrinks by 1.5 as well.
    """

    radius: float = 0.4
    smallest: float = 0.05
    largest: float = 1.0
    growth: float = 1.5
    patience: int = 3

    def after(self, losses: Sequence[float]) -> float:
        """Return the radius after trials with these losses, oldest first."""
        radius, failures, best = self.radius, 0, np.inf
        for position, loss in enumerate(losses):
            if loss < best:
                grown = radius * self.growth if position else radius
                radius, failures, best = min(grown, self.largest), 0, loss
            else:
                failures += 1
                if failures % self.patience == 0:
                    radius = max(radius / self.growth, self.smallest)
        return radius


class ForestSampler(BaseSampler):
    """Sample where a random forest expects most improvement.

    The first trials are a Latin hypercube in the trust region around the best trial known (everywhere, where there is
    none). Then a forest learns from all finished trials, and the candidate with the greatest log expected improvement
    is taken out of: random points, points in the trust region that differ from the best trial in a few parameters,
    and what a local search finds from the most promising of both. A share of the trials stays random.

    Parameters
    ----------
    seed : int, optional
        The same seed and history give the same samples, so that an interrupted study goes on as if it had not been.
    startup_trials : int
        Finished trials before the forest is asked.
    random_share : float
        Share of the later trials that are random; MLOS takes 0.1.
    region : TrustRegion
    choice_weights : mapping of str to sequence of float
        How often each choice of a categorical parameter is taken where nothing is known.
    feasible : callable, optional
        Tells whether parameters may be tried at all; those that may not are passed over.

    Notes
    -----
    One objective only. An ask takes about 0.3 s after 200 trials of 40 parameters on one core. Uses Optuna's public
    interface only.

    Examples
    --------
    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=ForestSampler(seed=1))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", -1, 1) - 0.3) ** 2, n_trials=30)
    >>> round(study.best_params["x"], 1)
    0.3
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        startup_trials: int = 10,
        random_share: float = 0.1,
        region: TrustRegion | None = None,
        choice_weights: Weights | None = None,
        feasible: Feasible | None = None,
    ) -> None:
        self._seed = _fresh_seed() if seed is None else seed
        self._startup_trials = startup_trials
        self._random_share = random_share
        self._region = region or TrustRegion()
        self._choice_weights = choice_weights or {}
        self._feasible = feasible or _anything
        self._independent = RandomSampler(seed=seed)
        self._intersection = IntersectionSearchSpace()
        self._reasons: dict[int, str] = {}

    def reason_of(self, number: int) -> str:
        """Say in a sentence how this sampler came to the trial of this number."""
        return self._reasons.get(number, _AT_RANDOM)

    def reseed_rng(self) -> None:
        """Draw other random numbers from now on, as Optuna asks of the copies of one sampler."""
        self._seed = _fresh_seed()
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished trials have, those with one value left out."""
        inferred = self._intersection.calculate(study)
        return {name: distribution for name, distribution in inferred.items() if not distribution.single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter by itself, at random: one that the finished trials do not have."""
        _refuse_several_objectives(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values for all parameters together."""
        _refuse_several_objectives(study)
        if not search_space:
            return {}
        axes = axes_of(search_space, self._choice_weights)
        search = _Search(axes, _History.of(study, axes), self._region, default_rng([self._seed, trial.number]))
        points, self._reasons[trial.number] = self._ranked(search, trial.number)
        for point in points:
            parameters = {name: axis.decode(unit) for (name, axis), unit in zip(axes.items(), point, strict=True)}
            if self._feasible(parameters):
                return parameters
        # stay where it is known to work
        self._reasons[trial.number] = _STAYS
        return {name: axis.decode(unit) for (name, axis), unit in zip(axes.items(), search.centre, strict=True)}

    def _ranked(self, search: _Search, number: int) -> tuple[Floats, str]:
        """Return points to try, the most promising first, and what they are."""
        if len(search.history.losses) < self._startup_trials:
            # by the trial's number, so that a point that came to nothing is not proposed again at once
            position = number % self._startup_trials
            return search.designed(self._startup_trials, position, self._seed), _AT_THE_START
        if search.rng.random() < self._random_share:
            return search.anywhere(_MOST_CHECKED), _AT_RANDOM
        return search.promising(), _EXPECTED


def _fresh_seed() -> int:
    return int(default_rng().integers(2**63))


def _refuse_several_objectives(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError("ForestSampler minimises or maximises one objective, not several")


def _anything(_parameters: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _History:
    """The finished trials: shapes (n_trials, n_parameters) and (n_trials,); lower losses are better."""

    points: Floats
    losses: Floats

    @classmethod
    def of(cls, study: Study, axes: Mapping[str, Axis]) -> _History:
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        finished = [
            trial
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.value is not None and np.isfinite(trial.value) and axes.keys() <= trial.params.keys()
        ]
        points = [[axis.encode(trial.params[name]) for name, axis in axes.items()] for trial in finished]
        losses = [sign * (trial.value or 0.0) for trial in finished]
        return cls(np.array(points).reshape(len(finished), len(axes)), np.array(losses))


class _Search:
    """One search for the next point."""

    def __init__(self, axes: Mapping[str, Axis], history: _History, region: TrustRegion, rng: Generator) -> None:
        self.history = history
        self.rng = rng
        self._axes = list(axes.values())
        self._ordered = np.array([not axis.is_categorical for axis in self._axes])
        self._radius = region.after(history.losses.tolist())

    @property
    def centre(self) -> Floats:
        """The best point so far, else the middle of the cube."""
        if not len(self.history.losses):
            return np.full(len(self._axes), 0.5)
        best: Floats = self.history.points[int(np.argmin(self.history.losses))]
        return best

    def anywhere(self, count: int) -> Floats:
        return self._snapped(self.rng.random((count, len(self._axes))))

    def designed(self, count: int, position: int, seed: int) -> Floats:
        """Return the design's next point first, then random ones in its place should it not be feasible."""
        design = qmc.LatinHypercube(len(self._axes), rng=default_rng(seed)).random(count)
        cube = np.vstack([design[position : position + 1], self.rng.random((_MOST_CHECKED, len(self._axes)))])
        return self._snapped(self._in_region(cube) if len(self.history.losses) else cube)

    def promising(self) -> Floats:
        """Return candidates by log expected improvement, the greatest first; none that was tried already."""
        surrogate = ForestSurrogate(self.history.points, self.history.losses, seed=int(self.rng.integers(2**31)))
        known, _ = surrogate.predict(self.history.points)
        best = float(known.min())

        def gain(points: Floats) -> Floats:
            return log_expected_improvement(*surrogate.predict(points), best)

        points = np.vstack([self.anywhere(_CANDIDATES), self._nearby(_CANDIDATES)])
        gains = gain(points)
        for _ in range(_SEARCH_ROUNDS):
            start = points[np.argsort(gains)[::-1][:_SEARCHES]]
            neighbours = self._neighbours(start)
            points, gains = np.vstack([points, neighbours]), np.concatenate([gains, gain(neighbours)])
        ranked = points[np.argsort(gains, kind="stable")[::-1]]
        return self._untried(ranked)[:_MOST_CHECKED]

    def _in_region(self, cube: Floats) -> Floats:
        """Squeeze points of the whole cube into the box around the centre; categorical axes stay whole."""
        low, high = np.maximum(self.centre - self._radius, 0.0), np.minimum(self.centre + self._radius, 1.0)
        return np.where(self._ordered, low + cube * (high - low), cube)

    def _nearby(self, count: int) -> Floats:
        """Return points in the region that differ from the best one in a few parameters only."""
        width = len(self._axes)
        most = min(_MOST_CHANGED, width)
        rank = self.rng.random((count, width)).argsort(axis=1)
        changed = rank < self.rng.integers(1, most + 1, size=(count, 1))
        return self._snapped(np.where(changed, self._in_region(self.rng.random((count, width))), self.centre))

    def _neighbours(self, start: Floats) -> Floats:
        """Return, for each point, some that differ in one parameter: a small step, or another choice."""
        rows = np.repeat(start, _NEIGHBOURS, axis=0)
        column = self.rng.integers(rows.shape[1], size=len(rows))
        here = rows[np.arange(len(rows)), column]
        step = np.clip(here + _NEIGHBOUR_DEVIATION * self.rng.standard_normal(len(rows)), 0.0, 1.0)
        rows[np.arange(len(rows)), column] = np.where(self._ordered[column], step, self.rng.random(len(rows)))
        return self._snapped(rows)

    def _snapped(self, points: Floats) -> Floats:
        return np.column_stack([axis.snapped(points[:, column]) for column, axis in enumerate(self._axes)])

    def _untried(self, points: Floats) -> Floats:
        tried = {row.tobytes() for row in self._snapped(self.history.points)}
        fresh = np.array([row.tobytes() not in tried for row in points])
        return points[fresh] if fresh.any() else points
