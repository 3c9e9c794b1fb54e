"""Points that may be worth a trial: everywhere, around the best one, and from these to better ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ml_postgres_optimization.tuning.search.encoding import Cube, Floats

_COUNT = 1000
_SEARCHES = 8
_SEARCH_ROUNDS = 4
_NEIGHBOURS = 24
_NEIGHBOUR_DEVIATION = 0.1
_MOST_CHANGED = 6
MOST_CHECKED = 200


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


class Candidates:
    """Points of a cube around a centre; all of them are settled.

    Parameters
    ----------
    cube : Cube
    centre : ndarray of shape (n_parameters,)
    radius : float
        Of the box around the centre, as a share of each ordered axis; categorical ones stay whole.
    rng : numpy.random.Generator
    free : ndarray of bool of shape (n_parameters,), optional
        Axes along which points may differ from the centre; all without it.
    """

    def __init__(
        self, cube: Cube, centre: Floats, radius: float, rng: Generator, *, free: NDArray[np.bool_] | None = None
    ) -> None:
        self._cube = cube
        self._centre = centre
        self._radius = radius
        self._rng = rng
        self._free = np.flatnonzero(np.ones(len(cube), dtype=bool) if free is None else free)

    def anywhere(self, count: int) -> Floats:
        """Return random points."""
        return self._moved(self._rng.random((count, len(self._cube))))

    def designed(self, count: int, position: int, seed: int, *, in_region: bool) -> Floats:
        """Return a Latin hypercube's point at `position` first, then random ones in case that it is not feasible."""
        from scipy.stats import qmc  # type: ignore[import-untyped]  # noqa: PLC0415  (a second)

        design = qmc.LatinHypercube(len(self._cube), rng=default_rng(seed)).random(count)
        points = np.vstack([design[position : position + 1], self._rng.random((MOST_CHECKED, len(self._cube)))])
        return self._moved(self._in_region(points) if in_region else points)

    def improved(self, gain: Callable[[Floats], Floats], start: Floats) -> tuple[Floats, Floats]:
        """Return points and their gains, the greatest first, out of `start`, random ones, and their neighbours."""
        points = np.vstack([self._moved(start), self.anywhere(_COUNT), self._nearby(_COUNT)])
        gains = gain(points)
        for _ in range(_SEARCH_ROUNDS):
            neighbours = self._neighbours(points[np.argsort(gains)[::-1][:_SEARCHES]])
            points, gains = np.vstack([points, neighbours]), np.concatenate([gains, gain(neighbours)])
        order = np.argsort(gains, kind="stable")[::-1]
        return points[order], gains[order]

    def _moved(self, units: Floats) -> Floats:
        """Return points that are at `units` along the free axes, and as the centre along all others."""
        points = np.tile(self._centre, (len(units), 1))
        points[:, self._free] = units[:, self._free]
        return self._cube.settled(points)

    def _in_region(self, units: Floats) -> Floats:
        """Squeeze points of the whole cube into the box around the centre."""
        low, high = np.maximum(self._centre - self._radius, 0.0), np.minimum(self._centre + self._radius, 1.0)
        return np.where(self._cube.ordered, low + units * (high - low), units)

    def _nearby(self, count: int) -> Floats:
        """Return points in the region that differ from the centre in a few parameters only."""
        width = len(self._free)
        rank = self._rng.random((count, width)).argsort(axis=1)
        few = rank < self._rng.integers(1, min(_MOST_CHANGED, width) + 1, size=(count, 1))
        changed = np.zeros((count, len(self._cube)), dtype=bool)
        changed[:, self._free] = few
        units = self._in_region(self._rng.random(changed.shape))
        return self._cube.settled(np.where(changed, units, self._centre))

    def _neighbours(self, start: Floats) -> Floats:
        """Return, for each point, some that differ in one parameter: a small step, or another choice."""
        rows = np.repeat(start, _NEIGHBOURS, axis=0)
        column = self._rng.choice(self._free, size=len(rows))
        here = rows[np.arange(len(rows)), column]
        step = np.clip(here + _NEIGHBOUR_DEVIATION * self._rng.standard_normal(len(rows)), 0.0, 1.0)
        rows[np.arange(len(rows)), column] = np.where(self._cube.ordered[column], step, self._rng.random(len(rows)))
        return self._cube.settled(rows)


def fresh(points: Floats, met: Floats) -> NDArray[np.bool_]:
    """Tell which of `points` (settled) are none of those that were `met`."""
    known = {row.tobytes() for row in met}
    return np.array([row.tobytes() not in known for row in points], dtype=bool)
