"""An always-valid test on pairs of blocks whose order was drawn by a coin."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.trials.proposal import Interval, Pair

Floats = NDArray[np.float64]

# Stakes in units of one over the pairs' spread: a geometric ladder, since the effect's size is not known beforehand.
# Each rung is best for an effect of its own share of the spread. The last never risks more than half of its wealth:
# it wins where a few pairs are far out (checkpoints, stalls). By simulation: docs/decisions/0013-paired-test.md.
_STAKES: Floats = np.array([[0.125], [0.25], [0.5], [1.0], [2.0], [4.0]])
_RISKS: Floats = np.array([[1.0], [1.0], [1.0], [1.0], [1.0], [0.5]])
_LOG_LEFT: Floats = np.log(1.0 - _RISKS, where=_RISKS < 1.0, out=np.full_like(_RISKS, -np.inf))
# What is believed of the spread of a pair's log-ratio before anything is seen, counted as one pair: about 0.2 for
# each block, what short blocks on a shared machine show. It moves how soon the test decides, never how often it errs.
_PRIOR_SPREAD = 0.3
# The median absolute deviation of a normal distribution is its standard deviation over 1.4826.
_MAD_TO_SIGMA = 1.4826


class PairedTest:
    """Test by betting whether the candidate is faster, looking as often as one likes.

    For pair i let d_i = log(candidate / baseline). If the candidate multiplies the objective by exp(θ), whatever the
    noise, then d_i − θ is a difference between two neighbouring blocks whose *sign* was drawn by our own fair coin.
    Given all that happened before, and the size of that difference, heads and tails are equally likely. Hence, with
    any stake λ_i that is fixed before pair i, and any risk r ≤ 1,

    ``wealth(θ) = Π (1 + r tanh(λ_i (d_i − θ)))``

    is a martingale that starts at 1, and so is the same with −λ_i, and so is any average over λ and r. By Ville's
    inequality, either ever exceeds 2/α with a probability of at most α/2. The values of θ that neither refutes form
    the interval; it holds at all times together with a probability of at least 1 − α. It asks for no normal, no
    independent, no stationary noise: drift, autocorrelation and checkpoints are held off by the coin alone.

    Parameters
    ----------
    alpha : float
        Probability that the interval ever misses the truth.

    Notes
    -----
    A pair can at most double the wealth, so that α = 0.05 takes at least 6 pairs, however clear they are. The stake
    is set by the robust spread of the pairs before, so that one stall does not blunt the test. Wealth falls with θ,
    hence the interval's ends and the estimate (where both wealths are the same) are roots of monotone functions.

    Examples
    --------
    >>> test = PairedTest()
    >>> for seconds in (0.0049, 0.0051, 0.0050, 0.0052, 0.0048, 0.0050, 0.0050, 0.0051):
    ...     test.add(Pair(baseline_seconds=0.010, candidate_seconds=seconds, candidate_first=True))
    >>> ratio, low, high = test.interval()
    >>> round(ratio, 2), high < 1
    (0.5, True)

    References
    ----------
    Symmetric null, e^z / cosh z = 1 + tanh z: V. de la Peña, "A general class of exponential inequalities for
    martingales and ratios", Ann. Probab. 27 (1999); A. Ramdas, J. Ruf, M. Larsson, W. Koolen, "Admissible
    anytime-valid sequential inference must rely on nonnegative martingales", arXiv:2009.03167. Betting against the
    coin of a randomised design: F. Zampieri, "Sequential Randomization Tests Using E-values", arXiv:2512.04366.
    Why not the t-mixture (T. L. Lai 1976; H. Wang, A. Ramdas 2023), which needs normal independent noise:
    docs/decisions/0013-paired-test.md.
    """

    def __init__(self, *, alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, not at {alpha}")
        self._wealth_needed = math.log(2 / alpha)
        self._log_ratios: list[float] = []
        self._spreads: list[float] = []

    def __len__(self) -> int:
        return len(self._log_ratios)

    def add(self, pair: Pair) -> None:
        """Take one more pair into the evidence.

        Raises
        ------
        ValueError
            If either of its figures is not a positive, finite number.
        """
        figures = (pair.baseline_seconds, pair.candidate_seconds)
        if not all(math.isfinite(seconds) and seconds > 0 for seconds in figures):
            raise ValueError(f"a pair needs two positive, finite figures, not {figures}")
        # the spread is fixed before the pair is seen: that is what makes the wealth a martingale
        self._spreads.append(_spread(self._log_ratios))
        self._log_ratios.append(math.log(pair.candidate_seconds / pair.baseline_seconds))

    def interval(self) -> Interval:
        """Return the estimated ratio and its interval; (1, 0, ∞) before the first pair."""
        if not self._log_ratios:
            return Interval(1.0, 0.0, math.inf)
        least, most = min(self._log_ratios), max(self._log_ratios)
        ratio = _root(lambda effect: self._wealth(effect, 1) - self._wealth(effect, -1), least, most)
        return Interval(math.exp(ratio), math.exp(self._bound(least, 1)), math.exp(self._bound(most, -1)))

    def is_below(self, ratio: float) -> bool:
        """Tell whether the whole interval lies below `ratio`, at a tenth of the interval's cost."""
        return self._wealth(math.log(ratio), -1) >= self._wealth_needed

    def is_above(self, ratio: float) -> bool:
        """Tell whether the whole interval lies above `ratio`."""
        return self._wealth(math.log(ratio), 1) >= self._wealth_needed

    def is_probably_above(self, ratio: float, alpha: float) -> bool:
        """Tell the same of a one-sided interval that may miss the truth with a probability of `alpha`."""
        return self._wealth(math.log(ratio), 1) >= math.log(1 / alpha)

    def progress_below(self, ratio: float) -> float:
        """Return which part of the evidence is there that the whole interval lies below `ratio`; from 0 to 1."""
        return min(1.0, max(0.0, self._wealth(math.log(ratio), -1) / self._wealth_needed))

    def _wealth(self, effect: float, direction: int) -> float:
        """Log wealth of the bet that the effect is greater (direction 1) or less (−1) than `effect`."""
        if not self._log_ratios:
            return 0.0
        centred = direction * (np.array(self._log_ratios) - effect) / np.array(self._spreads)
        log_wealths = _log_growth(_STAKES * centred).sum(axis=1)
        return float(np.logaddexp.reduce(log_wealths) - math.log(len(_STAKES)))

    def _bound(self, nearest: float, direction: int) -> float:
        """The effect at which the bet wins just enough to refute everything beyond; infinite while none does."""
        # out there every tanh is 1 to the last bit, even at the smallest stake
        farthest = nearest - direction * 20 * max(self._spreads) / float(_STAKES.min())
        if self._wealth(farthest, direction) < self._wealth_needed:
            return -direction * math.inf
        other_end = max(self._log_ratios) if direction > 0 else min(self._log_ratios)
        return _root(lambda effect: self._wealth(effect, direction) - self._wealth_needed, farthest, other_end)


def _log_growth(outcome: Floats) -> Floats:
    """log(1 + risk * tanh(outcome)), exact where tanh is 1 to the last bit; a row for each stake."""
    lost = np.logaddexp(0.0, -2.0 * outcome)
    kept: Floats = np.logaddexp(np.log1p(_RISKS), _LOG_LEFT - 2.0 * outcome)
    return kept - lost


def _spread(log_ratios: list[float]) -> float:
    """Robust standard deviation of the pairs so far, the prior belief counting as one pair."""
    weight = max(len(log_ratios) - 1, 0)
    if not weight:
        return _PRIOR_SPREAD
    values = np.array(log_ratios)
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
    return math.sqrt((_PRIOR_SPREAD**2 + weight * deviation**2) / (1 + weight))


def _root(function: Callable[[float], float], first: float, second: float) -> float:
    """Where the monotone `function` crosses zero."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]  # noqa: PLC0415  (half a second)

    return first if first == second else float(brentq(function, first, second, xtol=1e-9))
