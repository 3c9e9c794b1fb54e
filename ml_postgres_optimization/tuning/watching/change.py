"""Tell a change of the workload from noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.tuning.watching.profile import Profile, distance
from ml_postgres_optimization.tuning.watching.reading import Reading

# A figure counts as back only when it is well inside its band, so that one at the edge does not begin anew each time.
_BACK = 0.7


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
    profile : Profile
        What is usual.
    patience : Patience, optional

    Notes
    -----
    A change that stays is told in every window for as long as it stays: whoever listens decides when to act. An idle
    window says nothing, and leaves everything as it was.
    """

    def __init__(self, profile: Profile, patience: Patience | None = None) -> None:
        self._profile = profile
        self._patience = patience or Patience()
        self._outside = dict.fromkeys(Departure, 0)

    def see(self, reading: Reading) -> LastingChange | None:
        """Take one window; return the change that has lasted by now, the load's before the response's."""
        if reading.is_idle:
            return None
        excess = self._excess(reading)
        for departure, value in excess.items():
            self._count(departure, value)
        lasting = (one for one in Departure if self._outside[one] >= self._patience.of(one))
        first = next(lasting, None)
        return None if first is None else LastingChange(first, self._described(first, reading))

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
