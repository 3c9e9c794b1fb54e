"""The faults beside the load: how often they come, so that base fails as often as the specification says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from ml_postgres_optimization.comparison.measuring.figures import BlockFigures
from ml_postgres_optimization.workload.faults import FaultRate, FaultSchedule, LockStall, Termination

# The specification's errors of base: 30 of 5,000 and 39 of 10,000. Below these levels no fault is injected.
WANTED_ERROR_RATIOS: Mapping[str, float] = {"HIGH": 30 / 5_000, "EXTREME": 39 / 10_000}
# An application's own bound; it makes a lock that is held too long an error (55P03) at all. The same in every arm.
LOCK_TIMEOUT = "50ms"
_LOCK_ERRORS = frozenset({"55P03"})
# Of ten operations that fail nine meet a lock and one loses its session. A write that lost its session may have been
# carried out and is not repeated, so that this share is about what remains: docs/decisions/0033-comparison.md.
_SHARE_OF_LOCKS = 0.9
_STALL, _TERMINATION = LockStall(seconds=0.15), Termination(count=1, seconds=0.2)
_MOST_PER_MINUTE = 600.0
# each has a session of its own, which the plain pool leaves free
MOST_AT_ONCE = 3
# where a calibration saw none: as on our machines
_USUAL_FAILURES_OF_A_STALL, _USUAL_FAILURES_OF_A_TERMINATION = 6.0, 1.0


@dataclass(frozen=True, slots=True)
class FaultRates:
    """How many faults come in a minute.

    Parameters
    ----------
    stalls, terminations : float
        A lock on the most used account, held for 0.15 s; a session of the load ended.
    """

    stalls: float
    terminations: float

    @property
    def is_none(self) -> bool:
        """Whether nothing goes wrong."""
        return not (self.stalls or self.terminations)

    def schedule(self, seconds: float, seed: int) -> FaultSchedule:
        """Return which fault comes when, drawn by the seed: in every arm the same ones at the same times."""
        wanted = ((_STALL, self.stalls), (_TERMINATION, self.terminations))
        rates = tuple(FaultRate(fault, per_minute=rate) for fault, rate in wanted if rate)
        return FaultSchedule(rates, seconds, seed=seed, most_at_once=MOST_AT_ONCE)

    def to_json(self) -> dict[str, float]:
        """Return both by their names."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, float]) -> Self:
        """Rebuild what `to_json` gave; raises TypeError where it is something else."""
        return cls(**stored)


NO_FAULTS = FaultRates(0.0, 0.0)


def first_guess(rate_per_second: float, wanted_ratio: float) -> FaultRates:
    """Return rates by which about `wanted_ratio` of base's operations fail, before anything was measured."""
    return _rates(rate_per_second * wanted_ratio, _USUAL_FAILURES_OF_A_STALL, _USUAL_FAILURES_OF_A_TERMINATION)


def calibrated(seen: BlockFigures, rate_per_second: float, wanted_ratio: float) -> FaultRates:
    """Return rates by which `wanted_ratio` of base's operations fail, from a block of base under faults.

    Parameters
    ----------
    seen : BlockFigures
        Its errors, by what each fault of each kind brought.
    rate_per_second : float
        Of the offered load.
    wanted_ratio : float
    """
    locks = sum(count for code, count in seen.errors.items() if code in _LOCK_ERRORS)
    lost = sum(seen.errors.values()) - locks
    of_a_stall = locks / max(1, seen.faults.get(_STALL.kind, 0)) or _USUAL_FAILURES_OF_A_STALL
    of_a_termination = lost / max(1, seen.faults.get(_TERMINATION.kind, 0)) or _USUAL_FAILURES_OF_A_TERMINATION
    return _rates(rate_per_second * wanted_ratio, of_a_stall, of_a_termination)


def _rates(failures_per_second: float, of_a_stall: float, of_a_termination: float) -> FaultRates:
    per_minute = 60.0 * failures_per_second
    return FaultRates(
        min(_MOST_PER_MINUTE, _SHARE_OF_LOCKS * per_minute / of_a_stall),
        min(_MOST_PER_MINUTE, (1.0 - _SHARE_OF_LOCKS) * per_minute / of_a_termination),
    )
