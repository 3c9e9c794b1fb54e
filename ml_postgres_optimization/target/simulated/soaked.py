"""A simulated target under load for days: its rate has a shape, it drifts, and it goes away for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.target.simulated.noise import Noise, WhiteNoise
from ml_postgres_optimization.target.simulated.target import SimulatedTarget
from ml_postgres_optimization.telemetry import ActivitySample, Clock, SampleBatch, Snapshot

_LOST = b"57P01"


class Drift:
    """A noise whose mean grows: latencies that get slower, at a constant rate.

    Parameters
    ----------
    per_hour : float
        Growth of the logarithm of the latency.
    noise : Noise
        What is added to it.
    """

    def __init__(self, per_hour: float, noise: Noise | None = None) -> None:
        self._per_second = per_hour / 3600.0
        self._noise = noise or WhiteNoise()
        self._drifted = 0.0

    def after(self, level: float, seconds: float, random: np.random.Generator) -> float:
        """Return the level `seconds` later."""
        before, self._drifted = self._drifted, self._drifted + self._per_second * seconds
        return self._noise.after(level - before, seconds, random) + self._drifted


class SoakedTarget:
    """A simulated target as a soak sees it: collector and source of samples in one.

    Parameters
    ----------
    target : SimulatedTarget
    clock : Clock
    rate_per_second : float
    shape : callable
        Seconds on the clock to the factor on the rate.
    outages : sequence of tuple of float
        From when to when the server is away, on the clock; what ends meanwhile fails.
    """

    def __init__(
        self,
        target: SimulatedTarget,
        clock: Clock,
        rate_per_second: float,
        *,
        shape: Callable[[float], float],
        outages: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._target = target
        self._clock = clock
        self._rate_per_second = rate_per_second
        self._shape = shape
        self._outages = tuple(outages)

    def snapshot(self) -> Snapshot:
        """Read every counter; raises ServerUnreachable while the server is away."""
        self._answer()
        return self._target.snapshot()

    def activity(self) -> ActivitySample:
        """Read who is doing what; raises as `snapshot`."""
        self._answer()
        return self._target.activity()

    def samples(self) -> Sequence[SampleBatch]:
        """Return what has ended since the last call, at the rate of its time."""
        batches = [self._failed(batch) for batch in self._target.samples()]
        self._target.rate_per_second = self._rate_per_second * self._shape(self._clock.monotonic_seconds())
        return batches

    def _answer(self) -> None:
        if self._is_away(self._clock.monotonic_seconds()):
            raise ServerUnreachable("The simulated server is away.", "Let time pass.")

    def _is_away(self, seconds: float) -> bool:
        return any(begin <= seconds < end for begin, end in self._outages)

    def _failed(self, batch: SampleBatch) -> SampleBatch:
        """Return what the clients saw: nothing is served while the server is away."""
        away = np.zeros(len(batch), dtype=np.bool_)
        for begin, end in self._outages:
            away |= (batch.end_seconds >= begin) & (batch.end_seconds < end)
        return replace(batch, sqlstate=np.where(away, np.bytes_(_LOST), batch.sqlstate)) if away.any() else batch
