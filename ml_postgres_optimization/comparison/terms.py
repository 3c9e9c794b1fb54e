"""What is found out on base before anything is compared, and holds for all blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_postgres_optimization.comparison.measuring.faulting import NO_FAULTS, FaultRates
from ml_postgres_optimization.workload import Level

# So that a level's operations come at all, however slow base is.
_LEAST_RATE_PER_SECOND = 1.0
# max_connections takes no more
_MOST_CONNECTIONS = 262_143


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all blocks of a comparison.

    Parameters
    ----------
    capacities_per_second : tuple of float
        What base did in a closed loop, each time that it was measured.
    capacity_per_second : float
        Their median, of which levels offer a share.
    connections : int
        Of the plain pool.
    configured_connections : int
        Of the pool that goes with the proven configuration.
    base, optimised : mapping of str to str
        The settings that differ, as the server's files would have them.
    origin : str
        Where the optimised configuration comes from.
    faults : mapping of str to FaultRates
        By the name of a level; where none are injected, it is missing.
    calibrated_error_ratios : mapping of str to float
        What base failed under these, when that was seen beforehand.
    limits : mapping of str to (int or None, int or None)
        By the name of a level: how many operations at once the limiter begins with, under base's configuration and
        under the proven one; None for the one of which no forest foretells it, and missing where none of both.
    """

    capacities_per_second: tuple[float, ...]
    capacity_per_second: float
    connections: int
    configured_connections: int
    base: Mapping[str, str] = field(default_factory=dict)
    optimised: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    faults: Mapping[str, FaultRates] = field(default_factory=dict)
    calibrated_error_ratios: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)

    def rate_of(self, level: Level) -> float:
        """Return what a level offers, in operations per second."""
        return max(_LEAST_RATE_PER_SECOND, level.capacity_ratio * self.capacity_per_second)

    def faults_of(self, level: Level) -> FaultRates:
        """Return the faults beside a level's load."""
        return self.faults.get(level.name, NO_FAULTS)

    def limit_of(self, level: Level, *, is_configured: bool) -> int | None:
        """Return what the limiter begins with at a level; None where no forest foretells it."""
        return self.limits[level.name][is_configured] if level.name in self.limits else None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready form, from which `from_json` makes the same again."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "faults"}
        return plain | {"faults": {level: rates.to_json() for level, rates in self.faults.items()}}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Terms:
        """Rebuild what `to_json` gave.

        Raises
        ------
        AttributeError, KeyError, TypeError, ValueError
            If it is something else.
        """
        faults = {level: FaultRates.from_json(rates) for level, rates in stored["faults"].items()}
        rebuilt = {
            "faults": faults,
            "capacities_per_second": tuple(stored["capacities_per_second"]),
            "limits": {level: (base, proven) for level, (base, proven) in stored.get("limits", {}).items()},
        }
        terms = cls(**{**stored, **rebuilt})
        terms._check()
        return terms

    def _check(self) -> None:
        rates = [*self.capacities_per_second, self.capacity_per_second]
        faulted = [rate for one in self.faults.values() for rate in (one.stalls, one.terminations)]
        if not all(math.isfinite(rate) and rate > 0 for rate in rates) or not all(
            0 <= rate < 1e6 for rate in faulted
        ):
            raise ValueError("a rate of the terms is no positive number")
        limits = [limit for pair in self.limits.values() for limit in pair if limit is not None]
        for count in (self.connections, self.configured_connections, *limits):
            if not (type(count) is int and 1 <= count <= _MOST_CONNECTIONS):
                raise ValueError(f"{count!r} connections")
        if self.base.keys() != self.optimised.keys() or not self.faults.keys() <= self.calibrated_error_ratios.keys():
            raise ValueError("what belongs together in the terms does not")
