"""When a few pairs suffice to go on with one of two configurations, in a search whose result is proven at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from ml_postgres_optimization.trials.proposal import Interval, Outcome
from ml_postgres_optimization.trials.verdict import Decision

_STANDARD = NormalDist()
_INTERVAL_DEVIATIONS = 1.96


@dataclass(frozen=True, slots=True)
class Noise:
    """How much the log-ratios of pairs differ that compare the same two configurations.

    Parameters
    ----------
    deviation : float
    weight : float
        In pairs: how much it takes to change it.

    References
    ----------
    The conjugate update of a normal's variance: A. Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.6.
    """

    deviation: float = 0.15
    weight: float = 2.0

    @classmethod
    def of_blocks(cls, seconds: Sequence[float]) -> Noise:
        """Return the noise of a pair, from the objective in blocks of one configuration that follow each other."""
        start = cls()
        logs = [math.log(block) for block in seconds if block > 0]
        # the difference of two blocks varies twice as much as each
        squares = 2 * sum((log - fmean(logs)) ** 2 for log in logs) if logs else 0.0
        weight = start.weight + max(0, len(logs) - 1)
        return cls(math.sqrt((start.weight * start.deviation**2 + squares) / weight), weight)

    def after(self, log_ratios: Sequence[float]) -> Noise:
        """Return it after the pairs of one more trial; a single pair tells nothing."""
        if len(log_ratios) < 2:
            return self
        mean = fmean(log_ratios)
        squares = sum((log_ratio - mean) ** 2 for log_ratio in log_ratios)
        weight = self.weight + len(log_ratios) - 1
        return Noise(math.sqrt((self.weight * self.deviation**2 + squares) / weight), weight)


@dataclass(frozen=True, slots=True)
class Screening:
    """Judge a candidate by what was expected of it and what its pairs show.

    Its word is good enough to choose what the search builds upon, where a wrong step costs a little time. It proves
    nothing: of many candidates that are no better, some are preferred by chance. So what a search ends with is tried
    against what it began with, by a test that can be believed.

    Parameters
    ----------
    noise : Noise
        Of a pair.
    expected_log_ratio, expected_deviation : float
        What is thought of the candidate before its first pair.
    min_pairs, max_pairs : int
        Not given up before so many pairs, and decided either way by so many.
    hopeless, sure : float
        Probabilities of being better, below and above which no further pair is needed.
    likely : float
        What it takes once the pairs are used up.

    References
    ----------
    The posterior of a normal mean: A. Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.5. That a single
    measurement promotes what fails later: J. Freischuetz et al., "TUNA: Tuning Unstable and Noisy Cloud
    Applications", arXiv:2503.01801.
    """

    noise: Noise
    expected_log_ratio: float = 0.0
    expected_deviation: float = 0.2
    min_pairs: int = 1
    max_pairs: int = 4
    hopeless: float = 0.25
    sure: float = 0.9
    likely: float = 0.8

    def estimate(self, log_ratios: Sequence[float]) -> tuple[float, float]:
        """Return mean and standard deviation of the candidate's log-ratio, given its pairs."""
        before, each = self.expected_deviation**-2, self.noise.deviation**-2
        precision = before + len(log_ratios) * each
        mean = (before * self.expected_log_ratio + each * sum(log_ratios)) / precision
        return mean, precision**-0.5

    def interval(self, log_ratios: Sequence[float]) -> Interval:
        """Return the estimated ratio, and what it lies between with a probability of 95 %, if the noise is normal."""
        mean, deviation = self.estimate(log_ratios)
        width = _INTERVAL_DEVIATIONS * deviation
        return Interval(math.exp(mean), math.exp(mean - width), math.exp(mean + width))

    def decide(self, log_ratios: Sequence[float]) -> Decision | None:
        """Prefer the candidate, give it up, or ask for another pair (None)."""
        if not log_ratios:
            return None
        mean, deviation = self.estimate(log_ratios)
        better = _STANDARD.cdf(-mean / deviation)
        told = f"with {better:.0%} it is faster, given {len(log_ratios)} pairs"
        if better < self.hopeless and len(log_ratios) >= self.min_pairs:
            return Decision(Outcome.REJECTED, told)
        if len(log_ratios) >= self.max_pairs:
            return Decision(Outcome.PREFERRED if better > self.likely else Outcome.REJECTED, told)
        # one pair may be a stall of the other arm
        if better > self.sure and len(log_ratios) > 1:
            return Decision(Outcome.PREFERRED, told)
        return None
