"""When a few blocks suffice to go on with one of two configurations, in a search that is proven at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from ml_postgres_optimization.trials import Decision, Interval, Outcome

_STANDARD = NormalDist()
_INTERVAL_DEVIATIONS = 1.96


@dataclass(frozen=True, slots=True)
class Noise:
    """How much the objective differs between blocks of one configuration, as a deviation of its logarithm.

    Parameters
    ----------
    deviation : float
    weight : float
        In blocks: how much it takes to change it.

    References
    ----------
    The conjugate update of a normal's variance: A. Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.6.
    """

    deviation: float = 0.1
    weight: float = 2.0

    def after(self, logs: Sequence[float]) -> Noise:
        """Return it after some blocks of one configuration; a single one tells nothing."""
        if len(logs) < 2:
            return self
        mean = fmean(logs)
        squares = sum((log - mean) ** 2 for log in logs)
        weight = self.weight + len(logs) - 1
        return Noise(math.sqrt((self.weight * self.deviation**2 + squares) / weight), weight)


@dataclass(frozen=True, slots=True)
class Seen:
    """What blocks show of a candidate.

    Parameters
    ----------
    log_ratio : float
        Candidate over incumbent, of the means of the objective's logarithm.
    deviation : float
        Of that, given the noise and how many blocks there are of each.
    blocks : int
        Of the candidate.
    """

    log_ratio: float
    deviation: float
    blocks: int


@dataclass(frozen=True, slots=True)
class Screening:
    """Judge a candidate by what was expected of it and what its blocks show.

    Its word is good enough to choose what the search builds upon, where a wrong step costs a little time. It proves
    nothing: of many candidates that are no better, some are preferred by chance. So what a search ends with is tried
    against what it began with, by a test that can be believed.

    Parameters
    ----------
    expected_log_ratio, expected_deviation : float
        What is thought of the candidate before its first block.
    min_blocks, max_blocks : int
        Not given up before so many of its blocks, and decided either way by so many.
    hopeless, sure : float
        Probabilities of being better, below and above which no further block is needed.
    likely : float
        What it takes once the blocks are used up.

    References
    ----------
    The posterior of a normal mean: A. Gelman et al., "Bayesian Data Analysis", 3rd ed., section 2.5. That a single
    measurement promotes what fails later: J. Freischuetz et al., "TUNA: Tuning Unstable and Noisy Cloud
    Applications", arXiv:2503.01801.
    """

    expected_log_ratio: float = 0.0
    expected_deviation: float = 0.2
    min_blocks: int = 1
    max_blocks: int = 4
    hopeless: float = 0.2
    sure: float = 0.9
    likely: float = 0.8

    def estimate(self, seen: Seen) -> tuple[float, float]:
        """Return mean and standard deviation of the candidate's log-ratio, given what was seen."""
        before, now = self.expected_deviation**-2, seen.deviation**-2
        precision = before + now
        return (before * self.expected_log_ratio + now * seen.log_ratio) / precision, precision**-0.5

    def interval(self, seen: Seen) -> Interval:
        """Return the estimated ratio, and what it lies between with a probability of 95 %, if the noise is normal."""
        mean, deviation = self.estimate(seen)
        width = _INTERVAL_DEVIATIONS * deviation
        return Interval(math.exp(mean), math.exp(mean - width), math.exp(mean + width))

    def decide(self, seen: Seen, *, is_last: bool = False) -> Decision | None:
        """Prefer the candidate, give it up, or ask for another block (None), unless this was the last one."""
        mean, deviation = self.estimate(seen)
        better = _STANDARD.cdf(-mean / deviation)
        told = f"with {better:.0%} it is faster, given {seen.blocks} blocks of it"
        # a single block may have had the luck that all others lacked
        has_several = seen.blocks > 1
        if better < self.hopeless and seen.blocks >= self.min_blocks:
            return Decision(Outcome.REJECTED, told)
        if is_last or seen.blocks >= self.max_blocks:
            return Decision(Outcome.PREFERRED if better > self.likely and has_several else Outcome.REJECTED, told)
        return Decision(Outcome.PREFERRED, told) if better > self.sure and has_several else None
