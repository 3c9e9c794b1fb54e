"""Where knobs meet metrics: what a model learns from, and what it is asked about."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.telemetry import Window


@dataclass(frozen=True, slots=True)
class Observation:
    """A window with the configuration that was in force, and what came right before and right after.

    Parameters
    ----------
    configuration : Configuration
    window : Window
    previous : Window or None
        The window before, of the same run, for trends; None where there is none.
    following : Window or None
        The window after, of the same run: what a forecast is scored against; None when it is not known yet.
    """

    configuration: Configuration
    window: Window
    previous: Window | None = None
    following: Window | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A value with its interval.

    Parameters
    ----------
    value, low, high : float
        In the unit of what is predicted (seconds, or a probability from 0 to 1).
    level : float
        How often the interval should hold the truth: 0.9 for 90 %.
    """

    value: float
    low: float
    high: float
    level: float = 0.9

    def stretched(self, ratio: float) -> Prediction:
        """Return it with an interval whose ends lie `ratio` times as far from the value, in logs.

        The value is positive.
        """
        low, high = (self.value * (end / self.value) ** ratio for end in (self.low, self.high))
        return replace(self, low=low, high=high)
