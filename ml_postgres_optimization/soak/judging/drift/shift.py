"""Where a series changed its level at once, rather than little by little."""

from __future__ import annotations

import math

import numpy as np

from ml_postgres_optimization.soak.judging.drift.trend import Rest, Series, theil_sen, whitened

# Stricter than a trend's: a point is sought at every block, and again in each part.
SIGNIFICANT = 0.01
_LEAST_BLOCKS = 6
# Two levels have one more parameter than a line, and so fit noise better.
_CLEARLY = 0.9
_MOST_SHIFTS = 4


def shifts(values: Series, rest: Rest, minimum: float) -> tuple[int, ...]:
    """Return the blocks at which a new level begins, in order.

    The series is cut where Pettitt's test finds the largest change, and each part again (binary segmentation). A cut
    is kept where the levels differ by at least `minimum` and two levels describe the part better than one straight
    line does, by absolute deviations: a slope is no shift.

    Parameters
    ----------
    values : ndarray of shape (n_blocks,)
        NaN where a block is missing.
    rest : Rest
        Whose correlation is taken out before the test.
    minimum : float
        In the unit of `values`.

    References
    ----------
    A. N. Pettitt, J. Royal Stat. Soc. C 28 (1979) 126. Correlated series must be whitened before it: F. Serinaldi,
    C. G. Kilsby, Stoch. Environ. Res. Risk Assess. 30 (2016) 763.
    """
    at = np.flatnonzero(np.isfinite(values))
    found = _search(values[at], rest, minimum, 0)
    return tuple(int(at[block]) for block in sorted(found)[:_MOST_SHIFTS])


def _search(values: Series, rest: Rest, minimum: float, offset: int) -> list[int]:
    if len(values) < 2 * _LEAST_BLOCKS:
        return []
    cut = _cut(values, rest, minimum)
    if cut is None:
        return []
    before = _search(values[:cut], rest, minimum, offset)
    after = _search(values[cut:], rest, minimum, offset + cut)
    return [*before, offset + cut, *after]


def _cut(values: Series, rest: Rest, minimum: float) -> int | None:
    at, probability = pettitt(whitened(values, rest.correlation))
    cut = min(max(at + 1, _LEAST_BLOCKS), len(values) - _LEAST_BLOCKS)
    before, after = values[:cut], values[cut:]
    if probability > SIGNIFICANT or abs(np.median(after) - np.median(before)) < minimum:
        return None
    leveled = np.abs(before - np.median(before)).sum() + np.abs(after - np.median(after)).sum()
    line = values - theil_sen(values) * np.arange(len(values))
    return cut if leveled < _CLEARLY * np.abs(line - np.median(line)).sum() else None


def pettitt(values: Series) -> tuple[int, float]:
    """Return where the level most likely changes (the first index after it), and Pettitt's approximate probability.

    Examples
    --------
    >>> pettitt(np.array([1.0, 2.0, 1.5, 1.2, 9.0, 8.0, 9.5, 8.8]))[0]
    4
    """
    n = len(values)
    signs = np.sign(np.subtract.outer(values, values))  # how each compares with each
    statistic = np.abs(np.cumsum(signs.sum(axis=1)))[:-1]
    at = int(np.argmax(statistic))
    return at + 1, min(1.0, 2 * math.exp(-6 * float(statistic[at]) ** 2 / (n**3 + n**2)))
