"""Tell a change of the workload from noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.tuning.watching.reading import Reading
from ml_postgres_optimization.tuning.watching.usual import Profile, distance

# A figure counts as back only when it is well inside its band, so that one at the edge does not begin anew each time.
_BACK = 0.7
# Half an hour of ten seconds each.
_MOST_WINDOWS = 180


class Departure(StrEnum):
    """What has changed."""

    MIX = "mix"
    RATE = "rate"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Patience:
    """How many windows in a row a figure must be outside its band.

    Parameters
    ----------
    load_windows : int
        Of mix and rate: at 10 s a window, a minute.
    response_windows : int
        Of the response under the same load: good and bad moments of a server last, so that it takes longer to tell.
    """

    load_windows: int = 6
    response_windows: int = 18

    def of(self, departure: Departure) -> int:
        """Return how many it takes of `departure`."""
        return self.response_windows if departure is Departure.RESPONSE else self.load_windows


@dataclass(frozen=True, slots=True)
class LastingChange:
    """A change that has lasted.

    Parameters
    ----------
    departure : Departure
    message : str
        What it was and what it is, with figures.
    """

    departure: Departure
    message: str


class ChangeDetector:
    """Watch one window after the other, and tell when the load is another one, or is answered more slowly.

    A change of the mix or the rate counts in both directions; of the response only a slower one, and only in windows
    whose load is the usual one: what gets faster by itself needs no trial.

    Parameters
    ----------
    readings : sequence of Reading
        That say what is usual, none of them idle.
    expected_seconds : float
        As in `Profile.of`.
    patience : Patience, optional

    Notes
    -----
    Usual windows teach it more: it learns anew when they have doubled, up to half an hour's. Then it stays as it is,
    so that a load which changes slowly is another one in the end, and not followed for ever.

    A change that stays is told in every window for as long as it stays: whoever listens decides when to act. An idle
    window says nothing, and leaves everything as it was.
    """

    def __init__(
        self,
        readings: Sequence[Reading],
        expected_seconds: float = math.inf,
        patience: Patience | None = None,
    ) -> None:
        self._readings = list(readings)
        self._expected_seconds = expected_seconds
        self._patience = patience or Patience()
        self._profile = Profile.of(readings, expected_seconds)
        self._outside = dict.fromkeys(Departure, 0)

    @property
    def profile(self) -> Profile:
        """What is usual, as far as it is known by now."""
        return self._profile

    def see(self, reading: Reading) -> LastingChange | None:
        """Take one window; return the change that has lasted by now, the load's before the response's."""
        if reading.is_idle:
            return None
        excess = self._excess(reading)
        for departure, value in excess.items():
            self._count(departure, value)
        lasting = (one for one in Departure if self._outside[one] >= self._patience.of(one))
        first = next(lasting, None)
        if max(excess.values()) <= 1:
            self._learn(reading)
        return None if first is None else LastingChange(first, self._described(first, reading))

    def _learn(self, reading: Reading) -> None:
        if self._profile.windows < _MOST_WINDOWS:
            self._readings.append(reading)
            if len(self._readings) >= 2 * self._profile.windows:
                self._profile = Profile.of(self._readings, self._expected_seconds)

    def _excess(self, reading: Reading) -> dict[Departure, float]:
        profile = self._profile
        mix, rate = profile.mix_excess(reading), abs(profile.rate_excess(reading))
        is_same_load = mix <= 1 and rate <= 1
        response = profile.response_excess(reading) if is_same_load else -math.inf
        return {Departure.MIX: mix, Departure.RATE: rate, Departure.RESPONSE: response}

    def _count(self, departure: Departure, excess: float) -> None:
        if excess > 1:
            self._outside[departure] += 1
        elif excess < _BACK:
            self._outside[departure] = 0

    def _described(self, departure: Departure, reading: Reading) -> str:
        windows = f"for {self._outside[departure]} windows"
        profile = self._profile
        if departure is Departure.MIX:
            share = distance(profile.counts, reading.counts)
            return f"{share:.0%} of the operations are others than before, {windows}"
        if departure is Departure.RATE:
            before = math.exp(profile.log_rate.center)
            return f"{reading.rate_per_second:,.0f} operations/s come instead of {before:,.0f}, {windows}"
        before = math.exp(profile.log_response.center) * 1000
        now = reading.response_seconds * 1000
        return f"the same load takes {now:.2f} ms instead of {before:.2f} ms, {windows}"
