"""Whether a series has a trend: Mann-Kendall on it and on what is left without its memory; Theil-Sen's slope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rest:
    """What a series is without its straight line and its cycle.

    Parameters
    ----------
    correlation : float
        From one block to the next, 0 to `MOST_CORRELATION`, corrected for what the fit took out of it.
    deviation : float
        Standard deviation around the fit, corrected for what it used up.
    left_total : float
        Observations less what was fitted to them.
    """

    correlation: float
    deviation: float
    left_total: float

    @property
    def inflation(self) -> float:
        """How many times the variance of a mean is that of as many independent observations."""
        return (1 + self.correlation) / (1 - self.correlation)

    @property
    def degrees(self) -> float:
        """Degrees of freedom with which Student's t stands for the normal distribution.

        The correlation is itself an estimate, from as few independent observations as the rest is worth; with the
        normal distribution, or with all of these as degrees, series with much memory are flagged too often. Half of
        them keep the probabilities (`benchmarks/drift_detection.py`).
        """
        return max(1.0, (self.left_total / self.inflation - 2) / 2)


def theil_sen(values: Series) -> float:
    """Return the median slope over all pairs of blocks, per block; NaN marks a block that is missing.

    References
    ----------
    P. K. Sen, J. Am. Stat. Assoc. 63 (1968) 1379.

    Examples
    --------
    >>> theil_sen(np.array([1.0, 3.0, np.nan, 7.0]))
    2.0
    """
    at = np.flatnonzero(np.isfinite(values))
    first, second = np.triu_indices(len(at), 1)
    return float(np.median((values[at[second]] - values[at[first]]) / (at[second] - at[first])))


def mann_kendall(values: Series) -> float:
    """Return the standard score of Kendall's S, corrected for ties and continuity; below 0 where values fall.

    References
    ----------
    M. G. Kendall, Rank Correlation Methods (1975), chapter 4.

    Examples
    --------
    >>> round(mann_kendall(np.arange(10.0)), 2)
    3.94
    """
    present = values[np.isfinite(values)]
    n = len(present)
    first, second = np.triu_indices(n, 1)
    s = float(np.sign(present[second] - present[first]).sum())
    tied = np.unique(present, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float((tied * (tied - 1) * (2 * tied + 5)).sum())) / 18
    return (s - math.copysign(min(1.0, abs(s)), s)) / math.sqrt(variance) if variance > 0 else 0.0


def whitened(values: Series, correlation: float) -> Series:
    """Return each block without what it inherited from the one before; its slope stays what it was.

    References
    ----------
    X. L. Wang, V. R. Swail, J. Climate 14 (2001) 2204, appendix.
    """
    return (values[1:] - correlation * values[:-1]) / (1 - correlation)


def trend_probability(values: Series, rest: Rest) -> float:
    """Return the probability of such a trend where there is none: the larger of the series' and the whitened one's.

    What a fitted cycle has used up of the noise is given back to it: the scores shrink by the share of free
    observations.
    """
    from scipy.special import stdtr  # type: ignore[import-untyped]  # noqa: PLC0415  (a third of a second)

    used_up = math.sqrt(min(1.0, rest.left_total / max(1, int(np.isfinite(values).sum()))))
    scores = (mann_kendall(values), mann_kendall(whitened(values, rest.correlation)))
    return max(float(2 * stdtr(rest.degrees, -abs(score) * used_up)) for score in scores)


def holm(probabilities: Series) -> Series:
    """Return the probabilities corrected for there being several, shape as given.

    References
    ----------
    S. Holm, Scand. J. Stat. 6 (1979) 65.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(probabilities)
    weights = np.arange(len(probabilities), 0, -1)
    corrected = np.empty_like(probabilities)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(probabilities[order] * weights))
    return corrected
