"""Between the values of an Optuna distribution and the unit interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Floats = NDArray[np.float64]
Weights = Mapping[str, Sequence[float]]

# Values that are told apart on one axis. LlamaTune finds that 10,000 lose nothing; a trial on a live server cannot
# tell 2 % steps from each other either, and fewer values mean that a promising one is met again.
LEVELS = 65


@dataclass(frozen=True, slots=True)
class Axis:
    """The levels of one parameter, each with a stretch of the unit interval.

    Parameters
    ----------
    levels : tuple
        Ascending numbers, or the choices of a categorical parameter.
    edges : ndarray of shape (n_levels + 1,)
        Where one level's stretch ends and the next one's begins; from 0 to 1.
    is_categorical : bool
        Whether the order of the levels means nothing.
    """

    levels: tuple[Any, ...]
    edges: Floats
    is_categorical: bool

    @property
    def centres(self) -> Floats:
        """The middle of each level's stretch."""
        middle: Floats = (self.edges[:-1] + self.edges[1:]) / 2
        return middle

    @property
    def canonical(self) -> Any:
        """The level that stands for all where the parameter has no effect: the middle, or the first choice."""
        return self.levels[0] if self.is_categorical else self.decode(0.5)

    def decode(self, unit: float) -> Any:
        """Return the level at `unit`."""
        return self.levels[int(self.level_of(np.array([unit]))[0])]

    def nearest(self, value: Any) -> Any:
        """Return the level that stands for `value`."""
        return self.decode(self.encode(value))

    def encode(self, value: Any) -> float:
        """Return the place of `value`: a level's middle, in proportion between two, else the nearest end."""
        if self.is_categorical:
            return float(self.centres[self.levels.index(value)])
        return float(np.interp(float(value), self.levels, self.centres))

    def snapped(self, units: Floats) -> Floats:
        """Return the middles of the levels at `units`."""
        snapped: Floats = self.centres[self.level_of(units)]
        return snapped

    def level_of(self, units: Floats) -> NDArray[np.intp]:
        """Return the positions of the levels at `units`."""
        return np.clip(np.searchsorted(self.edges, units, side="right") - 1, 0, len(self.levels) - 1)


@dataclass(frozen=True, slots=True)
class Idle:
    """When a parameter has no effect.

    Parameters
    ----------
    parameter : str
    when : tuple of pairs of str and callable
        Other parameters, and what must be true of the value of each.
    """

    parameter: str
    when: tuple[tuple[str, Callable[[Any], bool]], ...]


class Cube:
    """The unit cube that parameters span, with one point for all parameters that come to the same.

    Parameters
    ----------
    distributions : mapping of str to optuna.distributions.BaseDistribution
    weights : mapping of str to sequence of float, optional
        The share of each choice of a categorical parameter.
    idle : sequence of Idle
        Parameters without effect lie at a level that stands for all; later rules see what earlier ones did.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        weights: Weights | None = None,
        idle: Sequence[Idle] = (),
    ) -> None:
        self.axes = axes_of(distributions, weights)
        self.ordered = np.array([not axis.is_categorical for axis in self.axes.values()], dtype=bool)
        self._column = {name: column for column, name in enumerate(self.axes)}
        self._pins = [
            self._pin(rule) for rule in idle if {rule.parameter, *(name for name, _ in rule.when)} <= self.axes.keys()
        ]

    def __len__(self) -> int:
        return len(self.axes)

    def points(self, parameters: Sequence[Mapping[str, Any]]) -> Floats:
        """Return where each of `parameters` lies, in shape (n, n_parameters); those without effect at their level."""
        units = [[axis.encode(given[name]) for name, axis in self.axes.items()] for given in parameters]
        return self._pinned(np.array(units, dtype=np.float64).reshape(len(parameters), len(self.axes)))

    def parameters(self, point: Floats) -> dict[str, Any]:
        """Return the parameters at a point, those without effect included."""
        return {name: axis.decode(unit) for (name, axis), unit in zip(self.axes.items(), point, strict=True)}

    def settled(self, points: Floats) -> Floats:
        """Return the middles of the levels at `points`, one point for all that come to the same."""
        columns = [axis.snapped(points[:, column]) for column, axis in enumerate(self.axes.values())]
        return self._pinned(np.column_stack(columns)) if columns else points

    def _pin(self, rule: Idle) -> _Pin:
        axis = self.axes[rule.parameter]
        when = tuple(
            (self._column[name], self.axes[name], np.array([holds(level) for level in self.axes[name].levels]))
            for name, holds in rule.when
        )
        return _Pin(self._column[rule.parameter], axis.encode(axis.canonical), when)

    def _pinned(self, points: Floats) -> Floats:
        pinned = points.copy()
        for pin in self._pins:
            rows = np.ones(len(pinned), dtype=bool)
            for column, axis, holds in pin.when:
                rows &= holds[axis.level_of(pinned[:, column])]
            pinned[rows, pin.column] = pin.unit
        return pinned


@dataclass(frozen=True, slots=True)
class _Pin:
    """An `Idle` in columns, units, and the levels of which it holds."""

    column: int
    unit: float
    when: tuple[tuple[int, Axis, NDArray[np.bool_]], ...]


def axis_of(distribution: BaseDistribution, weights: Sequence[float] | None = None) -> Axis:
    """Return the axis of a distribution; `weights` give each choice of a categorical one its share.

    Examples
    --------
    >>> axis = axis_of(IntDistribution(1, 200, log=True))
    >>> axis.decode(0.0), axis.decode(0.5), axis.decode(1.0)
    (1, 12, 200)
    """
    if isinstance(distribution, CategoricalDistribution):
        return Axis(tuple(distribution.choices), _edges(weights or [1.0] * len(distribution.choices)), True)
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        raise TypeError(f"a distribution of a kind that is not known: {distribution!r}")
    grid = _grid(distribution)
    kind = round if isinstance(distribution, IntDistribution) else float
    return Axis(tuple(kind(level) for level in grid.tolist()), _edges(_shares(grid, distribution.log)), False)


def axes_of(distributions: Mapping[str, BaseDistribution], weights: Weights | None = None) -> dict[str, Axis]:
    """Return an axis for each parameter, in their order."""
    given = weights or {}
    return {name: axis_of(distribution, given.get(name)) for name, distribution in distributions.items()}


def _grid(distribution: IntDistribution | FloatDistribution) -> Floats:
    """Return at most `LEVELS` distinct values from lowest to highest, whole steps above the lowest."""
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    grid = np.geomspace(low, high, LEVELS) if distribution.log else np.linspace(low, high, LEVELS)
    if step is not None:
        grid = low + np.round((grid - low) / step) * step
    return np.unique(np.clip(grid, low, high))


def _shares(grid: Floats, log: bool) -> Floats:
    """Return how much of the scale lies nearest to each level; the outer ones reach as far out as in."""
    if len(grid) == 1:
        return np.ones(1)
    gaps = np.diff(np.log(grid) if log else grid)
    shares: Floats = np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])
    return shares


def _edges(shares: Sequence[float] | Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(shares) / np.sum(shares)])
