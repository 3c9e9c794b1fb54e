"""What makes two measurements of one configuration differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator


class Noise(Protocol):
    """Make the noise of the next moment: a logarithm that multiplies every latency in it."""

    def after(self, level: float, seconds: float, random: Generator) -> float:
        """Return the level `seconds` after it was `level`; levels have mean 0."""


@dataclass(frozen=True, slots=True)
class WhiteNoise:
    """Every moment is independent of the one before.

    Parameters
    ----------
    sigma : float
        Standard deviation of the log-latency; 0.05 is what one calls 5 % noise.
    """

    sigma: float = 0.05

    def after(self, level: float, seconds: float, random: Generator) -> float:
        """Return a fresh level."""
        return float(random.normal(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class AutoregressiveNoise:
    """Good and bad moments last: a noisy neighbour, a warm cache, a checkpoint.

    An AR(1) process in continuous time (Ornstein and Uhlenbeck): levels `seconds` apart correlate by
    ``exp(-seconds / correlation_seconds)``, however the time between them is cut into steps.

    Parameters
    ----------
    sigma : float
        Standard deviation of the log-latency in the long run.
    correlation_seconds : float
        Time after which the correlation has fallen to 1/e; positive.
    """

    sigma: float = 0.05
    correlation_seconds: float = 30.0

    def after(self, level: float, seconds: float, random: Generator) -> float:
        """Return a level drawn towards the mean, and pushed away at random."""
        kept = math.exp(-seconds / self.correlation_seconds)
        return kept * level + float(random.normal(0.0, self.sigma * math.sqrt(1.0 - kept**2)))
