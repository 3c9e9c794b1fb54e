"""What is about to go wrong, and from when on it is worth something to act."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.target.seen import Blocker

Matter = tuple[ErrorClass, tuple[int, datetime, datetime] | None]

SYMPTOM = "symptom"
"""Source of a danger whose cause is seen, and not foretold."""


@dataclass(frozen=True, slots=True)
class Danger:
    """Errors of a class that are foretold for the next window.

    Parameters
    ----------
    error_class : ErrorClass
    probability : Prediction
        That one occurs at all.
    source : str
        Identifier of the model that says so, or `SYMPTOM`.
    blocker : Blocker or None
        The session that is its cause, where one is.
    """

    error_class: ErrorClass
    probability: Prediction
    source: str
    blocker: Blocker | None = None

    @property
    def matter(self) -> Matter:
        """What has to last for it to rise: the class and, where a session is its cause, that one in that pause."""
        seen = self.blocker
        return self.error_class, None if seen is None else (seen.pid, seen.backend_start, seen.idle_since)

    def __str__(self) -> str:
        if self.blocker is not None:
            return f"{self.error_class} errors: {self.blocker}"
        low, high = self.probability.low, self.probability.high
        return f"{self.error_class} errors: {self.probability.value:.0%} probable ({low:.0%} to {high:.0%})"


@dataclass(frozen=True, slots=True)
class Costs:
    """What acting costs and brings, in one unit: the cost of holding a lever for a window.

    Parameters
    ----------
    error : float
        Of a window with errors.
    effect : float
        Share of the windows with errors that a lever is taken to spare, 0 to 1.

    References
    ----------
    C. Elkan, The foundations of cost-sensitive learning, IJCAI 2001: act from the probability on at which the
    expected cost of doing nothing exceeds that of acting. It supposes a calibrated probability. The figures
    are our own judgement: what is held out shows what the effect is.
    """

    error: float = 4.0
    effect: float = 0.5

    def __post_init__(self) -> None:
        if not (self.error > 0 and 0 < self.effect <= 1 and self.threshold <= 1):
            raise ValueError("at these costs no error is worth a prevention")

    @property
    def threshold(self) -> float:
        """The probability from which on acting is expected to cost less than not acting."""
        return 1.0 / (self.error * self.effect)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a danger must last, and be over; in windows.

    Parameters
    ----------
    rising : int
        At the threshold or above, one after the other, before anything is done.
    horizon : int
        After the beginning of an occasion in which errors count, whether it is acted on or held out; a lever is held
        for so long at least.
    calm : int
        Below `calm_ratio` of the threshold, one after the other, before a lever is let go.
    longest : int
        That an occasion lasts at most.
    calm_ratio : float
    longest_seconds : float
        That an occasion lasts at most, however long a window is.
    advice_seconds : float
        Between two pieces of advice about one class, at least.
    """

    rising: int = 2
    horizon: int = 6
    calm: int = 3
    longest: int = 60
    calm_ratio: float = 0.5
    longest_seconds: float = 3600.0
    advice_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not (self.rising >= 1 and self.calm >= 1 and 1 <= self.horizon <= self.longest):
            raise ValueError("a patience has 1 window or more of each, and no horizon beyond the longest occasion")


class Brake:
    """Say when a lever makes the response slower than the errors that it spares are worth.

    It does where each of the last three windows, one after the other, has a mean response of more than twice the
    usual: the median of the windows before the occasion, six at most. One window alone is noise: where the means
    vary by a factor of 1.35 either way (one standard deviation), a single window against a single one before it lets
    go of a lever that costs nothing in 19 % of the occasions of six windows and in half of those of 60; this rule in
    0.02 and 0.3 %, and at a factor of 1.5 in 0.4 and 4 %.

    Parameters
    ----------
    windows : int
        How many windows before an occasion are the measure.

    References
    ----------
    ``tests/property/test_brake_law.py`` simulates these shares.
    """

    _RATIO = 2.0
    _IN_A_ROW = 3

    def __init__(self, windows: int) -> None:
        self._before: deque[float] = deque(maxlen=windows)
        self._slower = 0

    def see_before(self, log_mean: float) -> None:
        """Take the natural log of the mean response in a window without a lever; NaN says nothing."""
        if math.isfinite(log_mean):
            self._before.append(log_mean)

    def begin(self) -> None:
        """Know that a lever is pulled."""
        self._slower = 0

    def see(self, log_mean: float) -> bool:
        """Take that of a window under it, and return whether it has to be let go; NaN ends a row."""
        usual = median(self._before) if self._before else math.nan
        self._slower = self._slower + 1 if log_mean > usual + math.log(self._RATIO) else 0
        return self._slower >= self._IN_A_ROW


class Alarm:
    """Say which danger has risen, and which is past: with a gap between the two, so that nothing flutters.

    Parameters
    ----------
    threshold : float
    patience : Patience
    """

    def __init__(self, threshold: float, patience: Patience) -> None:
        self._threshold = threshold
        self._patience = patience
        self._above: dict[Matter, int] = {}
        self._below: Counter[ErrorClass] = Counter()

    def see(self, dangers: Sequence[Danger]) -> list[Danger]:
        """Take what is foretold after a window, and return the dangers that have risen, the most probable first."""
        worst = {danger.error_class: danger for danger in sorted(dangers, key=lambda one: one.probability.value)}
        for error_class in ErrorClass:
            danger = worst.get(error_class)
            probability = danger.probability.value if danger else 0.0
            is_below = probability < self._patience.calm_ratio * self._threshold
            self._below[error_class] = self._below[error_class] + 1 if is_below else 0
        high = [danger for danger in worst.values() if danger.probability.value >= self._threshold]
        # another session, or the same in another pause, begins to count anew
        self._above = {danger.matter: self._above.get(danger.matter, 0) + 1 for danger in high}
        risen = (danger for danger in high if self._above[danger.matter] >= self._patience.rising)
        return sorted(risen, key=lambda one: one.probability.value, reverse=True)

    def is_past(self, error_class: ErrorClass) -> bool:
        """Tell whether the danger of a class has been low for long enough."""
        return self._below[error_class] >= self._patience.calm

    def forget(self) -> None:
        """Begin afresh: what was seen before says nothing of what comes now."""
        self._above.clear()
        self._below.clear()
