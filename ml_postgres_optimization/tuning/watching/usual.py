"""What a load is like while nothing changes: the ground that a change is told from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ml_postgres_optimization.tuning.watching.reading import Reading

# A robust standard deviation: 1.4826 times the median distance from the median is that of a normal distribution.
_NORMAL = 1.4826
_DEVIATIONS = 5.0
# Noise lasts: two minutes show little of what a load is like over an hour. A band of 12 windows is twice as wide as
# one of many; as wide, and never learned anew, noise of 20 % that lasts for five minutes woke 10 times a day.
_DOUBT_WINDOWS = 12
# What is less than this is no other load, however steady it was: half as much again, or a tenth of other operations.
_LEAST_LOG = math.log(1.5)
_LEAST_DISTANCE = 0.1


@dataclass(frozen=True, slots=True)
class Band:
    """Where a figure stays while nothing changes.

    Parameters
    ----------
    center : float
        Median.
    limit : float
        How far from it counts as a change; positive.
    """

    center: float
    limit: float

    @classmethod
    def of(cls, values: Sequence[float], least: float) -> Band:
        """Return the band around the median of `values`, `least` wide at least, wider the fewer they are."""
        center = median(values)
        spread = _NORMAL * median(abs(value - center) for value in values)
        return cls(center, max(least, _DEVIATIONS * spread) * (1 + _DOUBT_WINDOWS / len(values)))

    def excess(self, value: float) -> float:
        """Return how far `value` is from the center, in limits; beyond ±1 is outside."""
        return (value - self.center) / self.limit


@dataclass(frozen=True, slots=True)
class Profile:
    """What a load is like, and the answer to it, under one configuration.

    Parameters
    ----------
    counts : mapping of str to int
        Of all windows together.
    mix : Band
        Distance of a window's mix from that of all others; its center is what chance alone makes of it.
    log_rate, log_response : Band
        Natural logs of operations per second and of seconds.
    windows : int
        How many it was learned from.
    """

    counts: Mapping[str, int]
    mix: Band
    log_rate: Band
    log_response: Band
    windows: int

    @classmethod
    def of(cls, readings: Sequence[Reading], expected_seconds: float = math.inf) -> Profile:
        """Learn from `readings`, none of them idle.

        Parameters
        ----------
        expected_seconds : float, optional
            The longest response that is in order: what a proof has shown. Without it, a server that became slow
            right after the proof would pass for usual.
        """
        response = Band.of([math.log(reading.response_seconds) for reading in readings], _LEAST_LOG)
        center = min(response.center, math.log(expected_seconds)) if expected_seconds > 0 else response.center
        return cls(
            pooled(readings),
            Band.of(list(_distances(readings)), _LEAST_DISTANCE),
            Band.of([math.log(reading.rate_per_second) for reading in readings], _LEAST_LOG),
            Band(center, response.limit),
            len(readings),
        )

    def mix_excess(self, reading: Reading) -> float:
        """Return how far the mix of `reading` is from this one's, in limits."""
        return self.mix.excess(distance(self.counts, reading.counts))

    def rate_excess(self, reading: Reading) -> float:
        """Return how far its rate is from this one's, in limits; negative where less comes."""
        return self.log_rate.excess(math.log(reading.rate_per_second))

    def response_excess(self, reading: Reading) -> float:
        """Return how far its response is from this one's, in limits; negative where it is faster."""
        return self.log_response.excess(math.log(reading.response_seconds))

    def fits(self, reading: Reading) -> bool:
        """Tell whether the load of `reading` is this one, whatever the server makes of it."""
        return self.mix_excess(reading) <= 1 and abs(self.rate_excess(reading)) <= 1


def pooled(readings: Iterable[Reading]) -> dict[str, int]:
    """Return the operations of all readings together."""
    counts: dict[str, int] = {}
    for reading in readings:
        for name, count in reading.counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts


def distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the total variation between two mixes: the share of operations that would have to be others.

    Examples
    --------
    >>> distance({"read": 80, "write": 20}, {"read": 5, "write": 5})
    0.3
    """
    first_total, second_total = sum(first.values()), sum(second.values())
    if not (first_total and second_total):
        return 0.0
    shares = (
        abs(first.get(name, 0) / first_total - second.get(name, 0) / second_total) for name in {*first, *second}
    )
    return round(math.fsum(shares) / 2, 12)


def _distances(readings: Sequence[Reading]) -> Iterable[float]:
    """Yield the distance of each mix from that of all others together: its own part in these would flatter it."""
    whole = pooled(readings)
    for reading in readings:
        others = {name: count - reading.counts.get(name, 0) for name, count in whole.items()}
        yield distance(others, reading.counts)
